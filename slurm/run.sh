# The common body of all batch scripts: starts the ranks, and requeues the job when they were interrupted. Sourced:
#   . slurm/run.sh
#   federate PROGRAM train JOB.ini [options of comigs train]
# Outside of a job the script that sources it submits itself, with what the site file says.
# shellcheck shell=bash disable=SC2154 # the site file's settings

SLURM_FOLDER=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SITE_FILE=${COMIGS_SITE:-$SLURM_FOLDER/site.sh}
readonly SLURM_FOLDER SITE_FILE
readonly SECONDS_TO_LEAVE=8 # for the other ranks after the first has ended
readonly BAD_INPUT=2
readonly INTERRUPTED=3 # comigs' exit code where a checkpoint was written and --resume goes on from it
TOLD_EARLY=no # to leave, before the ranks were started

say() { printf 'slurm: %s\n' "$*"; }

# A site file is shell that others have written: the shell's options and folder are afterwards as they were before.
before_site() {
    SHELL_OPTIONS=$(set +o) HERE=$PWD
    trap 'ended_by_site' EXIT
}
after_site() {
    [[ $(trap -p EXIT) != *ended_by_site* ]] || trap - EXIT
    eval "$SHELL_OPTIONS"
    cd "$HERE" || exit
}
ended_by_site() {
    say "$SITE_FILE: calls exit, or a command failed after 'set -e'; expected settings and a function enter"
    exit "$BAD_INPUT"
}

before_site
# shellcheck source=slurm/site.sh
. "$SITE_FILE" </dev/null
after_site
declare -F enter >/dev/null || {
    say "$SITE_FILE: not there, or without a function enter; expected what $SLURM_FOLDER/site.sh has"
    exit "$BAD_INPUT"
}

if [ -z "${SLURM_JOB_ID:-}" ]; then
    exec sbatch ${partition:+--partition="$partition"} ${account:+--account="$account"} ${qos:+--qos="$qos"} \
        "${options[@]}" "$0" "$@"
fi

# Runs a command with a rank for every task of the job, all in one MPI_COMM_WORLD, and returns its exit code. What the
# batch shell is told (time limit, preemption) it tells the launcher, which tells the ranks.
launch() {
    local launcher_id told code group cpus words=() codes=
    [ "$TOLD_EARLY" = no ] || return "$INTERRUPTED"
    # --kill-on-bad-exit=1 would end the others by SIGTERM, which ranks take as a wish, and wait 30 s before SIGKILL; and
    # it would come between ranks that leave one after another with the same code. --wait kills, and only those left over.
    local srun=(srun "--mpi=$launcher" --kill-on-bad-exit=0 "--wait=$SECONDS_TO_LEAVE")
    if [ "$launcher" = mpirun ]; then
        words=(mpirun "$@")
    elif [ "${SLURM_HET_SIZE:-1}" -gt 1 ]; then
        for codes in "$PWD/.slurm-$SLURM_JOB_ID"-??????; do remove_codes "$codes"; done # of a start that was killed
        codes=$(mktemp -d "$PWD/.slurm-$SLURM_JOB_ID-XXXXXX") || return 1
        for ((group = 0; group < SLURM_HET_SIZE; ++group)); do
            cpus=SLURM_CPUS_PER_TASK_HET_GROUP_$group
            words+=(${words[0]+:} "--het-group=$group" ${!cpus+"--cpus-per-task=${!cpus}"})
            # srun tells the ranks of all components the cores of the last one.
            words+=(${!cpus+env "SLURM_CPUS_PER_TASK=${!cpus}"} "$SLURM_FOLDER/rank.sh" "$codes" "$@")
        done
        words=("${srun[@]}" "${words[@]}")
    else
        words=("${srun[@]}" ${SLURM_CPUS_PER_TASK+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} "$@")
    fi
    "${words[@]}" &
    launcher_id=$!
    [ -z "$codes" ] || { release "$launcher_id" "$codes" & }
    trap 'told=yes; kill -USR1 "$launcher_id" 2>/dev/null' USR1
    # mpirun would end its ranks on SIGTERM; SIGUSR1 it passes on.
    local term=TERM
    [ "$launcher" != mpirun ] || term=USR1
    trap 'told=yes; kill "-$term" "$launcher_id" 2>/dev/null' TERM
    while :; do # a signal ends `wait` before the launcher has ended
        told=no code=0
        wait "$launcher_id" || code=$?
        [ "$told" = yes ] || break
    done
    if [ -n "$codes" ]; then
        ! all_left "$codes" || code=$(sort -n "$codes"/* | tail -n 1)
        remove_codes "$codes"
    fi
    return "$code"
}

# Removes a folder of exit codes, and nothing in it that slurm/rank.sh did not write.
remove_codes() { # folder
    [ -d "$1" ] && [ ! -L "$1" ] || return 0
    find "$1" -maxdepth 1 -type f \( -name 'rank-[0-9]*' -o -name '.[0-9]*' \) -delete
    rmdir "$1" 2>/dev/null || true
}

# srun of a heterogeneous job may stay for ever after its last rank has left: its PMIx plugin has one agent for all
# components, and their threads race for it (seen in Slurm 22.05). Ranks leave their exit codes in a folder, so that such
# an srun can be ended and the code of the run is known. Killed ranks leave none: for them the controller is asked.
all_left() { # folder
    local name tasks=0
    for name in "${!SLURM_NTASKS_HET_GROUP_@}"; do tasks=$((tasks + ${!name})); done
    [ "$tasks" -gt 0 ] && [ "$(find "$1" -name 'rank-*' | wc -l)" -eq "$tasks" ]
}
has_steps() { # some component of this job runs ranks, as far as the controller tells
    local name jobs='' steps
    for name in "${!SLURM_JOB_ID_HET_GROUP_@}"; do jobs+=${!name},; done
    steps=$(squeue --noheader --steps --jobs="$jobs" --format=%i) || return 0
    grep -q '\.[0-9]' <<<"$steps"
} 2>/dev/null
release() { # launcher's process, folder
    local looks=0 seen=no gone=0
    trap '' USR1 TERM
    while kill -0 "$1" 2>/dev/null; do
        sleep 5
        if all_left "$2"; then
            sleep "$SECONDS_TO_LEAVE"
            break
        fi
        # A minute later again: other nodes' files may take so long to be seen here.
        [ $((looks++ % 12)) -eq 0 ] || continue
        if has_steps; then
            seen=yes gone=0
        elif [ "$seen" = yes ] && [ $((++gone)) -eq 3 ]; then
            break
        fi
    done
    [ ! -d "$2" ] || ! kill -KILL "$1" 2>/dev/null || say "all ranks have left, but srun had not"
}

# What Slurm has on record of this job. The environment may tell of another one, in which this job was
# submitted: of its array, its components, its restarts.
record() { scontrol show job --oneliner "$SLURM_JOB_ID" 2>/dev/null | grep "^JobId=$SLURM_JOB_ID "; }
entry() { tr ' ' '\n' <<<"$RECORD" | sed -n "s/^$1=//p" | head -n 1; }

# The name by which Slurm requeues this job alone: the id of an array's first task would mean the whole array.
this_job() {
    local array leader
    array=$(entry ArrayJobId) leader=$(entry HetJobId)
    if [ -n "$array" ]; then
        printf '%s_%s' "$array" "$(entry ArrayTaskId)"
    else
        printf '%s' "${leader:-$SLURM_JOB_ID}"
    fi
}

# Puts this job back into the queue, unless Slurm is ending it for another reason than its time limit: it was cancelled,
# or Slurm requeues it by itself (node failure, preemption). A controller that is away, as while it is started anew, is
# waited for: Slurm's commands give up after some 20 s.
requeue() {
    local tries state reason
    for ((tries = 0; tries < 6; ++tries)); do
        [ "$tries" -eq 0 ] || sleep 10
        RECORD=$(record) && break
    done
    state=$(entry JobState) reason=$(entry Reason)
    if [ "$state" != RUNNING ] && [ "$reason" != TimeLimit ]; then
        say "interrupted; Slurm ends the job itself (${state:-unknown state})"
    elif [ "$(entry BatchFlag)" = 0 ] || [ -n "${SLURM_STEP_ID:-}" ]; then
        say "interrupted; the same command goes on: job $SLURM_JOB_ID is not this run's alone, and stays as it is"
    elif [ "${SLURM_RESTART_COUNT:-0}" -ge "$restarts" ]; then
        say "interrupted; not requeued: this was restart ${SLURM_RESTART_COUNT:-0} of $restarts (site file: restarts)"
    else
        say "interrupted; the job goes back into the queue"
        scontrol requeue "$(this_job)"
    fi
}

# Slurm's PMIx plugin does not start a step on a node that crashed during a step of the same number, as its socket is
# there still. A requeued job counts its steps from 0 again, so that empty ones come before that of the ranks.
pass_old_steps() {
    local step groups=''
    [ "${SLURM_HET_SIZE:-1}" -eq 1 ] || groups=$(seq -s , 0 $((SLURM_HET_SIZE - 1)))
    for ((step = 0; step < ${SLURM_RESTART_COUNT:-0} % 16; ++step)); do
        timeout 300 srun --quiet --mpi=none --ntasks=1 --nodes=1 ${groups:+--het-group="$groups"} true
    done
}

# Takes from the environment what is another job's, in which this one was submitted with all its variables.
leave_outer_job() {
    RECORD=$(record) || return 0
    # shellcheck disable=SC2046 # names
    [ -n "$(entry HetJobId)" ] ||
        unset SLURM_HET_SIZE SLURM_PACK_SIZE $(compgen -e SLURM_ | grep -E '_(HET|PACK)_GROUP_')
    SLURM_RESTART_COUNT=$(entry Restarts) # unset in a first start
    [ "${SLURM_RESTART_COUNT:-0}" != 0 ] || unset SLURM_RESTART_COUNT
    # A batch script is no step, and its ranks get the job's memory by themselves.
    [ "${SLURM_TASK_PID:-}" != $$ ] || unset "${!SLURM_STEP@}" "${!SLURM_CPU_BIND@}" "${!SLURM_MEM_@}"
}

# What every job does before its ranks start.
begin() {
    trap 'TOLD_EARLY=yes' USR1 TERM
    leave_outer_job
    say "job $(this_job), restart ${SLURM_RESTART_COUNT:-0}, on ${SLURM_JOB_NODELIST:-?}"
    before_site
    enter </dev/null
    after_site
    [ -d "${TMPDIR:-/tmp}" ] || unset TMPDIR # of another job, on another node
    # What was loaded is for the ranks, also where sbatch was told --export=NONE, which srun would go by.
    export SLURM_EXPORT_ENV=ALL
    # In the shell of a step (srun --pty) its resources are shared with it: another step would wait for its end.
    [ -z "${SLURM_STEP_ID:-}" ] || export SLURM_OVERLAP=1
    [ "$launcher" = mpirun ] || pass_old_steps
}

# Runs comigs to its end in this job; ends the script with its exit code.
federate() { # program and arguments
    local code=0
    begin
    launch "$@" --resume auto || code=$?
    [ "$code" -ne "$INTERRUPTED" ] || requeue
    exit "$code"
}

# The same for a run of jobs.sweep: what it prints and how it ended stay in its folder.
federate_in() { # folder, program and arguments
    local folder=$1 code=0
    shift
    begin
    this_job >"$folder/slurm-job"
    rm -f "$folder/ended.json"
    launch "$@" --resume auto >>"$folder/run.log" 2>&1 || code=$?
    if [ "$code" -eq "$INTERRUPTED" ]; then
        requeue
    else
        printf '{"code": %d, "seconds": %d}\n' "$code" "$SECONDS" >"$folder/ended.json"
    fi
    exit "$code"
}
