#!/usr/bin/env bash
# From nothing to a trained run and its report: set-up, build, data, base model, CoMiGS with four users, report.
# What an earlier call finished is used again; remove runs/quickstart (or a folder in it) to make it anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly HOME_OF_RUNS=runs/quickstart
readonly DATA=$HOME_OF_RUNS/data BASE=$HOME_OF_RUNS/base REPORT=$HOME_OF_RUNS/report.html
readonly COMIGS=build/release/comigs USERS=4
TIMES=()

usage() {
    cat <<HELP
usage: bash jobs/quickstart.sh [options of comigs train]

  bash jobs/quickstart.sh                             CoMiGS, one generalist and one specialist for each of four users
  bash jobs/quickstart.sh --method fedavg --seed 1    another method, another seed; same data, same base model

The run goes to $HOME_OF_RUNS/<method>[-<other options>]; the report, $REPORT,
shows this run first and beside it all others that were finished here.
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
    [[ $method =~ ^[a-z0-9][a-z0-9-]*$ && $method != data && $method != base ]] || return 1
    printf '%s/%s' "$HOME_OF_RUNS" "$(printf '%s%s' "$method" "$rest" | tr -c '[:alnum:]._\n' -)"
}

build() {
    cmake --preset release && cmake --build --preset release --target comigs
}

# Both find for themselves what an earlier call made. Short validation and test splits: a quick look, not a study.
prepare_data() {
    .venv/bin/python -m data_prep multilingual --output "$DATA" --validation-tokens 10000 --test-tokens 8000
}

pretrain() {
    local ranks
    ranks=$(nproc)
    mpirun -n $((ranks < 2 ? ranks : 2)) "$COMIGS" pretrain jobs/quickstart-base.ini
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

train() {
    local code=0 begun=no resume=(--resume auto)
    [[ " $* " != *" --resume"[\ =]* ]] || resume=()
    [ ! -e "$RUN/run.log" ] || begun=yes
    mkdir -p "$RUN"
    mpirun -n "$USERS" "$COMIGS" train jobs/quickstart.ini --output "$RUN" "${resume[@]}" "$@" |
        tee -a "$RUN/run.log" || code=$?
    if [ "$code" -eq 0 ]; then
        touch "$RUN/.finished"
    elif [ "$begun" = no ] && [ ! -e "$RUN/results.h5" ]; then # nothing was begun
        rm -f "$RUN/run.log"
        rmdir "$RUN" 2>/dev/null || true
    fi
    return "$code"
}

report() {
    local other runs=("$RUN")
    for other in "$HOME_OF_RUNS"/*/.finished; do
        other=${other%/.finished}
        [ "$other" = "$RUN" ] || runs+=("$other")
    done
    .venv/bin/python -m analysis report "${runs[@]}" --output "$REPORT"
}

for argument in "$@"; do
    case "$argument" in
        --help | -h) usage && exit 0 ;;
        --output | --output=*)
            echo "quickstart: error: --output is chosen here (see --help); for your own folder call comigs train" >&2
            exit 2
            ;;
    esac
done
RUN=$(run_folder "$@") || {
    echo "quickstart: error: --method needs the name of a method; '$COMIGS methods' lists them" >&2
    exit 2
}

hold
timed "set-up: packages, Python environment" bash setup.sh
environment=$(bash setup.sh --env)
eval "$environment"
timed "build: $COMIGS" build
timed "data: five languages, tokeniser trained on them, into $DATA" prepare_data
timed "base: a small GPT-2 from scratch, into $BASE (about two minutes on two cores)" pretrain
if [ -f "$RUN/.finished" ]; then
    say "train: $RUN is there from an earlier call; remove it to train again"
else
    timed "train: $USERS users, one a rank, into $RUN" train "$@"
fi
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
