#!/usr/bin/env bash
# A real Slurm of two nodes on this machine, to try things out and for the tests. `slurm/test-cluster.sh --help` says more.
set -euo pipefail

SELF=$(realpath "${BASH_SOURCE[0]}")
ROOT=$(dirname "$(dirname "$SELF")")
readonly SELF ROOT
PATH=$PATH:/usr/sbin:/sbin
readonly NODES=(n1 n2)
readonly MARK=comigs-test-cluster # a file of the folder that says whose it is
readonly SECONDS_TO_START=120
# Ports are looked for here, below those that the kernel hands out by itself.
readonly FIRST_PORT=20000 LAST_PORT=31000

usage() {
    cat <<HELP
usage: slurm/test-cluster.sh COMMAND [--state FOLDER] [--cpus N] [--share FOLDER]...

  start            start munge, the controller and two nodes, n1 and n2; wait until both take jobs
  stop             cancel all jobs, end all processes of the cluster, remove its folder
  status           what runs; exit code 0 if everything does
  env              print the shell lines after which sbatch, srun, squeue ... mean this cluster:
                       eval "\$(slurm/test-cluster.sh env)"
  fail NODE        end a node with all that runs on it at once, as a power failure would
  repair NODE      start it again

  --state FOLDER   where everything of the cluster lies (default: \$COMIGS_TEST_CLUSTER, else
                   ${TMPDIR:-/tmp}/comigs-slurm)
  --cpus N         CPUs that a node says it has (default: 8; jobs share what the machine has)
  --share FOLDER   a folder below /tmp that jobs see; may be given several times

Needs root, Debian's slurm-wlm and munge (setup.sh installs them), and unshare. All traffic is over loopback. Each
node has its own /tmp and /dev/shm: what jobs read and write must lie elsewhere, in this repository or under --share.
HELP
}

fail() { # exit code, message
    printf 'test-cluster: error: %s\n' "$2" >&2
    exit "$1"
}

# --- processes: a file holds the id and the start time, so that nothing else is ever taken for ours

start_time() { # of a process, in clock ticks since boot; nothing if there is none
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

note_process() { # name, id
    printf '%s %s\n' "$2" "$(start_time "$2")" >"$STATE/$1.process"
}

process_of() { # prints the id of the process of this name; fails if it does not run
    local id started
    { read -r id started <"$STATE/$1.process"; } 2>/dev/null || return 1
    [ -n "$started" ] && [ "$(start_time "$id")" = "$started" ] || return 1
    { tr '\0' ' ' <"/proc/$id/cmdline" | grep -qF -- "$STATE"; } 2>/dev/null || return 1
    printf '%s' "$id"
}

end_process() { # name, signal
    local id tries
    id=$(process_of "$1") || { rm -f "$STATE/$1.process" && return 0; }
    kill "-$2" "$id" 2>/dev/null || true
    for ((tries = 0; tries < 100; ++tries)); do
        process_of "$1" >/dev/null || { rm -f "$STATE/$1.process" && return 0; }
        sleep 0.1
    done
    kill -KILL "$id" 2>/dev/null || true
    rm -f "$STATE/$1.process"
}

run_daemon() { # name, then the command, which stays in the foreground
    local name=$1
    shift
    setsid "$@" </dev/null >>"$STATE/$name.log" 2>&1 &
    note_process "$name" $!
    disown
}

# --- the cluster

free_ports() { # prints as many free ports as asked for
    local port found=0
    for ((port = FIRST_PORT + RANDOM % (LAST_PORT - FIRST_PORT); found < $1; ++port)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue
        printf '%s ' "$port"
        found=$((found + 1))
    done
}

write_configuration() {
    local host ports memory i
    host=$(hostname -s)
    memory=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
    read -ra ports <<<"$(free_ports $((1 + ${#NODES[@]})))"
    cat >"$STATE/slurm.conf" <<CONF
ClusterName=comigs-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits for cred_expire seconds before it starts again.
AuthInfo=socket=$STATE/munge.socket,cred_expire=6
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$STATE/controller
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/%n/slurmd.pid
SlurmdSpoolDir=$STATE/%n/spool
SlurmdLogFile=$STATE/%n/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
# Heterogeneous jobs are started by the backfill scheduler only.
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=1
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
KillWait=10
# Seconds for which a job that has ended can be looked at.
MinJobAge=86400
MpiDefault=none
GresTypes=gpu
CONF
    # GPUs by name only: jobs ask for them and find numbers in CUDA_VISIBLE_DEVICES, behind which there is nothing.
    for i in 0 1 2 3; do mknod "$STATE/gpu$i" c 1 3; done
    echo "Name=gpu File=$STATE/gpu[0-3]" >"$STATE/gres.conf"
    for i in "${!NODES[@]}"; do
        echo "NodeName=${NODES[i]} NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[i + 1]} CPUs=$CPUS RealMemory=$memory Gres=gpu:4"
    done >>"$STATE/slurm.conf"
    echo 'PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP' >>"$STATE/slurm.conf"
}

# What runs in a node's own namespaces as its first process. Bind mounts give it a /tmp of its own, because the files
# of Slurm's PMIx plugin and of Open MPI have the same names on every node; those shared lie in it as before.
be_node() { # name, then the folders that are shared
    local node=$1 folder
    shift
    mount --rbind /tmp /mnt
    mount --bind "$(below_mnt "$STATE/$node/tmp")" /tmp
    mount -t tmpfs tmpfs /dev/shm
    for folder in "$@"; do
        [ "$(below_mnt "$folder")" != "$folder" ] || continue
        mkdir -p "$folder"
        mount --rbind "$(below_mnt "$folder")" "$folder"
    done
    slurmd -D -N "$node" -f "$STATE/slurm.conf" &
    wait # as the first process this shell takes over whatever loses its parent
}

below_mnt() { # where a folder of the machine's /tmp lies while /tmp is another
    case $1 in
        /tmp/*) printf '/mnt%s' "${1#/tmp}" ;;
        *) printf '%s' "$1" ;;
    esac
}

# All of a node's processes are in its process namespace, and end with the first one.
start_node() {
    mkdir -p "$STATE/$1/spool" "$STATE/$1/tmp"
    chmod 1777 "$STATE/$1/tmp"
    run_daemon "$1" unshare --mount --pid --fork --kill-child --mount-proc \
        bash "$SELF" be-node "$1" --state "$STATE" "${SHARED[@]/#/--share=}"
}

is_ready() { # all nodes, or the one named
    local states state
    states=$(sinfo --noheader --Node --format %T "${@/#/--nodes=}" 2>/dev/null) && [ -n "$states" ] || return 1
    for state in $states; do
        [[ $state =~ ^(idle|mixed|allocated|completing)$ ]] || return 1
    done
}

wait_until_ready() {
    local begun=$SECONDS
    until is_ready "$@"; do
        [ $((SECONDS - begun)) -lt "$SECONDS_TO_START" ] || return 1
        sleep 0.2
    done
}

# --- commands

check_machine() {
    local program
    [ "$(id -u)" -eq 0 ] || fail 2 'needs root: the nodes have mounts and processes of their own'
    for program in munged mungekey slurmctld slurmd srun unshare; do
        command -v "$program" >/dev/null || fail 2 "no '$program' on this machine; Debian: slurm-wlm munge util-linux"
    done
    unshare --mount --pid --fork --kill-child --mount-proc true 2>/dev/null ||
        fail 2 'unshare --mount --pid is not allowed here, as in some containers'
}

start() {
    local node
    check_machine
    [ ! -e "$STATE/$MARK" ] || fail 2 "$STATE: a cluster is there already; stop it first"
    # `stop` removes what is in the folder.
    [ -z "$(ls -A "$STATE" 2>/dev/null)" ] || fail 2 "$STATE: found files, expected an empty folder or none"
    mkdir -p "$STATE"
    (set -o noclobber && echo "$STATE" >"$STATE/$MARK") 2>/dev/null ||
        fail 2 "$STATE: a cluster is there already, or the folder cannot be written"
    mkdir -p "$STATE/controller"
    chmod 755 "$STATE"
    printf '%s\n' "${SHARED[@]}" >"$STATE/shared"
    write_configuration
    mungekey --create --keyfile "$STATE/munge.key"
    run_daemon munged munged --foreground --key-file="$STATE/munge.key" --socket="$STATE/munge.socket" \
        --pid-file="$STATE/munge.pid" --log-file="$STATE/munge.log" --seed-file="$STATE/munge.seed" --force
    run_daemon slurmctld slurmctld -D -f "$STATE/slurm.conf"
    for node in "${NODES[@]}"; do start_node "$node"; done
    wait_until_ready || {
        tail -n 5 "$STATE"/*.log "$STATE"/*/slurmd.log >&2 || true
        stop
        fail 1 "the nodes took no jobs within $SECONDS_TO_START s; the ends of the logs are above"
    }
    echo "test-cluster: nodes ${NODES[*]} take jobs; state in $STATE"
}

stop() {
    local node
    [ "$(cat "$STATE/$MARK" 2>/dev/null)" = "$STATE" ] || return 0
    for node in "${NODES[@]}"; do end_process "$node" KILL; done
    end_process slurmctld KILL # nothing of its state is wanted any more
    end_process munged TERM
    # What the cluster made, and the mark last; anything else stays.
    rm -rf "${NODES[@]/#/$STATE/}" "$STATE/controller"
    rm -f "$STATE"/{slurm.conf,gres.conf,shared} "$STATE"/gpu[0-3] "$STATE"/munge.* "$STATE"/*.log "$STATE"/*.process
    rm -f "$STATE"/slurmctld.pid "$STATE/$MARK"
    rmdir "$STATE" 2>/dev/null || fail 1 "$STATE: the cluster is gone; what it did not make is there still"
}

status() {
    local name id code=0
    for name in munged slurmctld "${NODES[@]}"; do
        if id=$(process_of "$name"); then
            printf '%-10s process %s\n' "$name" "$id"
        else
            printf '%-10s does not run\n' "$name"
            code=1
        fi
    done
    [ "$code" -ne 0 ] || sinfo --Node --format '%N %T' || code=1
    return "$code"
}

print_environment() {
    printf 'export SLURM_CONF=%q\n' "$STATE/slurm.conf"
    # Both nodes have this machine's addresses: ranks talk over loopback.
    echo 'export OMPI_MCA_btl_tcp_if_include=lo'
}

check_node() {
    [[ " ${NODES[*]} " == *" ${1:-} "* ]] || fail 2 "found '${1:-}', expected a node: ${NODES[*]}"
}

main() {
    local command=${1:-} words=()
    [ $# -eq 0 ] || shift
    STATE=${COMIGS_TEST_CLUSTER:-${TMPDIR:-/tmp}/comigs-slurm} CPUS=8 SHARED=()
    while [ $# -gt 0 ]; do
        case $1 in
            --state | --cpus | --share) [ $# -gt 1 ] || fail 2 "$1: no value" ;;&
            --state) STATE=$2 && shift ;;
            --cpus) CPUS=$2 && shift ;;
            --share) SHARED+=("$(realpath "$2")") && shift ;;
            --share=*) SHARED+=("${1#--share=}") ;;
            -*) fail 2 "unknown option '$1'; see: slurm/test-cluster.sh --help" ;;
            *) words+=("$1") ;;
        esac
        shift
    done
    STATE=$(realpath -m "$STATE")
    [[ $CPUS =~ ^[1-9][0-9]*$ ]] || fail 2 "--cpus $CPUS: expected a number of at least 1"
    export SLURM_CONF=$STATE/slurm.conf
    case $command in
        start)
            SHARED+=("$STATE" "$ROOT")
            start
            ;;
        be-node) be_node "${words[0]}" "${SHARED[@]}" ;;
        stop) stop ;;
        status | env | fail | repair)
            [ -e "$STATE/$MARK" ] || fail 2 "$STATE: no cluster is there; start one first"
            mapfile -t SHARED <"$STATE/shared"
            ;;&
        status) status ;;
        env) print_environment ;;
        fail | repair) check_node "${words[0]:-}" ;;&
        fail) end_process "${words[0]}" KILL ;;
        repair)
            ! process_of "${words[0]}" >/dev/null || fail 2 "${words[0]} runs already"
            start_node "${words[0]}"
            wait_until_ready "${words[0]}" || fail 1 "${words[0]} took no jobs within $SECONDS_TO_START s"
            ;;
        --help | -h | help) usage ;;
        *) fail 2 "unknown command '$command'; see: slurm/test-cluster.sh --help" ;;
    esac
}

main "$@"
