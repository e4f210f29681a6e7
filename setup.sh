#!/usr/bin/env bash
# Brings a Debian or Ubuntu machine, or a cluster account, to the point where comigs builds and its tests run.
# Run it as often as you like: what is there already is left alone. `bash setup.sh --help` says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly VENV=.venv
readonly STAMP=$VENV/comigs-setup # also says that the folder was made here
readonly LOCK=$VENV.lock
readonly MINIMUM_CMAKE=3.23 PINNED_CMAKE=3.31.10 PINNED_NINJA=1.13.0
readonly MINIMUM_GXX=12 MINIMUM_PYTHON=3.11
readonly NEEDED_GIB=8 # room for .venv (5.3 GiB) and for pip's downloads while it is made

# Debian's packages, each with the reason it is here.
PACKAGES=(
    ca-certificates                # TLS, for pip
    g++ cmake ninja-build git      # compiler, build, the commit noted in results.h5
    libopenmpi-dev openmpi-bin     # MPI: one rank is one user
    libhdf5-dev hdf5-tools         # results.h5
    libboost-program-options-dev   # command line and INI files
    libboost-test-dev              # C++ tests
    libbenchmark-dev               # times of single kernels (tests/bench)
    nlohmann-json3-dev             # manifests, config.json, safetensors headers
    libspdlog-dev                  # log
    librandom123-dev               # counter-based random numbers
    libhwy-dev                     # vector instructions, picked when the program runs
    libssl-dev                     # SHA-256 digests
    clang-format shellcheck        # form of C++ and shell code (tests/run.sh)
    clang                          # fuzz targets (tests/fuzz), which libFuzzer drives
    python3 python3-venv           # data_prep, analysis, tests; LibTorch comes as a Python package
)

usage() {
    cat <<HELP
usage: bash setup.sh [--check | --env | --help]

Installs what comigs needs, with pinned versions, and says what it does and how long each step took:
  1. Debian packages (compiler, CMake, Open MPI, HDF5, Boost, ...), only those that are missing
  2. a Python environment in .venv
  3. the Python packages of requirements.txt, among them torch, which is also the C++ build's LibTorch, and those of
     this folder (jobs, slurm, data_prep, analysis), which are used where they lie
A second run finds everything in place and ends at once.

  --check   change nothing; say what is missing; exit code 0 when all is there, else 2
  --env     print the shell lines that put the tools on PATH and let mpirun work for this user:
                eval "\$(bash setup.sh --env)"

Without root or sudo, as on a cluster's login node, nothing is installed by apt: the tools, headers and
libraries are looked for instead, wherever modules put them, and what is missing is listed (exit code 2).
The search covers the compiler's own folders, CPATH, LIBRARY_PATH, CMAKE_PREFIX_PATH, CONDA_PREFIX, HDF5_ROOT,
HDF5_DIR and BOOST_ROOT. CMake and Ninja come from PyPI if the machine has none or too old a CMake.

environment:
  COMIGS_NO_APT=1       do as if apt were not allowed
  COMIGS_PYTHON=PATH    the Python ($MINIMUM_PYTHON or newer) to make .venv with
  CXX=PATH              the C++ compiler (g++ $MINIMUM_GXX or newer)
  PIP_INDEX_URL, PIP_FIND_LINKS, PIP_NO_CACHE_DIR, ...   are pip's own and work as usual
HELP
}

# --- saying things

say() { printf 'setup: %s\n' "$*"; }
fail() { # exit code, then what to say, one argument a line
    local code=$1
    shift
    printf 'setup: error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf 'setup:        %s\n' "$@" >&2
    exit "$code"
}
now_ms() { date +%s%3N; }
seconds_since() { # milliseconds, as now_ms gave them
    local ms=$(($(now_ms) - $1))
    printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}
older() { # true when version $1 is below version $2
    [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}
# Fills the array named first with the lines that a command prints. (Process substitution would need /proc.)
lines_of() {
    local -n array=$1
    local text
    shift
    text=$("$@")
    array=()
    # shellcheck disable=SC2034 # a reference to the caller's array
    [ -z "$text" ] || mapfile -t array <<<"$text"
}
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command with its output in a log; every 20 s says how far it is; shows the log's end if it fails.
logged() {
    local log ticker code=0
    log=$(mktemp)
    (
        while sleep 20 >/dev/null 2>&1; do
            say "    ... $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-90)"
        done
    ) &
    ticker=$!
    "$@" >"$log" 2>&1 || code=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    [ "$code" -eq 0 ] || tail -n 15 "$log" | sed 's/^/    | /' >&2
    rm -f "$log"
    return "$code"
}

# --- step 1: what the system has to offer

apt_missing() { # the packages that dpkg does not know as installed
    local installed package
    # dpkg-query's exit code tells of packages it never heard of, which is no error here.
    installed=$({ dpkg-query -W -f '${db:Status-Status}=${Package}\n' "${PACKAGES[@]}" 2>/dev/null || true; } |
        sed -n 's/^installed=//p' | tr '\n' ' ')
    for package in "${PACKAGES[@]}"; do
        [[ " $installed" == *" $package "* ]] || printf '%s\n' "$package"
    done
}

# Ubuntu 22.04's own compiler and Python are too old; it ships newer ones beside them.
add_packages_of_release() {
    local ID='' VERSION_ID=''
    # shellcheck disable=SC1091
    [ ! -r /etc/os-release ] || . /etc/os-release
    # libFuzzer: there clang brings it along, elsewhere it is a package of its own.
    [ "$ID-$VERSION_ID" = ubuntu-22.04 ] || PACKAGES+=(libclang-rt-dev)
    [ "$ID-$VERSION_ID" != ubuntu-22.04 ] || PACKAGES+=(g++-12 python3.11 python3.11-venv)
}

# The tests start a Slurm of their own. Where there is one already nothing is installed beside it.
add_slurm_for_tests() {
    have srun || PACKAGES+=(slurm-wlm munge)
}

apt_allowed() { # sets AS_ROOT to what goes before apt-get
    AS_ROOT=()
    [ "$(id -u)" -ne 0 ] || return 0
    have sudo || return 1
    AS_ROOT=(sudo)
    sudo -n true 2>/dev/null && return 0
    [ -t 0 ] && [ -t 2 ] && sudo -v # asks for the password, where there is somebody to ask
}

install_packages() { # the missing ones
    local apt=("${AS_ROOT[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
    # One source of many may be out of order without harm, so that only the installation itself decides.
    logged "${apt[@]}" update || say "  apt-get update complained; going on with the lists that are there"
    logged "${apt[@]}" install --no-install-recommends "$@" ||
        fail 1 "apt-get could not install: $*" "What it said is above. Mend that and run setup.sh again."
}

compiler() {
    local name
    for name in ${CXX:+"$CXX"} g++ g++-12 g++-13 g++-14; do
        have "$name" || continue
        older "$("$name" -dumpfullversion -dumpversion 2>/dev/null || echo 0)" "$MINIMUM_GXX" || {
            printf '%s' "$name"
            return 0
        }
    done
    return 1
}

search_folders() { # where modules, Spack and conda put things, as -I and -L flags, one a line
    local folder multiarch
    multiarch=$("$1" -print-multiarch 2>/dev/null || true)
    printf '%s\n' -I/usr/include/hdf5/serial "-L/usr/lib/$multiarch/hdf5/serial"
    local IFS=:
    for folder in ${CMAKE_PREFIX_PATH:-} ${CONDA_PREFIX:-} ${HDF5_ROOT:-} ${HDF5_DIR:-} ${BOOST_ROOT:-}; do
        printf '%s\n' "-I$folder/include" "-L$folder/lib" "-L$folder/lib64"
    done
}

# Prints one line for each thing that is missing: what it is | Debian's package.
probe() {
    local cxx flags header library package
    cxx=$(compiler) || echo "g++ $MINIMUM_GXX or newer|g++"
    have git || echo 'git|git'
    have mpirun || have srun || echo 'mpirun|openmpi-bin'
    have mpicxx || echo 'mpicxx|openmpi-bin libopenmpi-dev'
    find_python >/dev/null || echo "Python $MINIMUM_PYTHON or newer with venv|python3 python3-venv"
    # Without a compiler nobody knows which folders it would search; the rest is looked for once there is one.
    [ -n "$cxx" ] || return 0
    ! have mpicxx || echo '#include <mpi.h>' | mpicxx -M -x c++ - >/dev/null 2>&1 ||
        echo 'header mpi.h|libopenmpi-dev'
    lines_of flags search_folders "$cxx"
    while read -r header package; do
        echo "#include <$header>" | "$cxx" -std=c++20 "${flags[@]}" -M -x c++ - >/dev/null 2>&1 ||
            echo "header $header|$package"
    done <<'HEADERS'
hdf5.h libhdf5-dev
boost/program_options.hpp libboost-program-options-dev
boost/test/unit_test.hpp libboost-test-dev
benchmark/benchmark.h libbenchmark-dev
nlohmann/json.hpp nlohmann-json3-dev
spdlog/spdlog.h libspdlog-dev
Random123/philox.h librandom123-dev
hwy/highway.h libhwy-dev
openssl/evp.h libssl-dev
HEADERS
    while read -r library package; do
        echo 'int main() {}' | "$cxx" "${flags[@]}" -x c++ - -o /dev/null "-l$library" 2>/dev/null ||
            echo "library lib$library|$package"
    done <<'LIBRARIES'
hdf5 libhdf5-dev
boost_program_options libboost-program-options-dev
boost_unit_test_framework libboost-test-dev
benchmark libbenchmark-dev
crypto libssl-dev
hwy libhwy-dev
LIBRARIES
}

tell_missing() { # the lines of probe
    local line packages
    printf 'setup: error: missing on this machine, and apt may not be used:\n' >&2
    for line in "$@"; do
        printf 'setup:   %-42s Debian, Ubuntu: %s\n' "${line%%|*}" "${line#*|}" >&2
    done
    [[ $1 != g++* ]] || echo 'setup: (Headers and libraries are looked for once there is a compiler.)' >&2
    packages=$(printf '%s\n' "$@" | cut -d '|' -f 2 | tr ' ' '\n' | sort -u | paste -sd ' ')
    cat >&2 <<HINT
setup: Load the modules that hold them (module avail openmpi hdf5 boost), or name their folders in
setup: CMAKE_PREFIX_PATH, or ask the administrators for: apt-get install $packages
setup: Then run setup.sh again.
HINT
}

system_step() { # sets SYSTEM_CHANGED
    local missing=() lacking=() started
    SYSTEM_CHANGED=no
    add_packages_of_release
    add_slurm_for_tests
    if [ "${COMIGS_NO_APT:-0}" != 1 ] && have apt-get && have dpkg-query; then
        lines_of missing apt_missing
        [ "${#missing[@]}" -gt 0 ] || return 0
        if [ "$MODE" = check ]; then
            say "missing Debian packages: ${missing[*]}"
            INCOMPLETE=yes
            return 0
        fi
        if apt_allowed; then
            started=$(now_ms)
            say "[1/3] Debian packages: installing ${missing[*]} (about a minute or two)"
            install_packages "${missing[@]}"
            say "[1/3] done in $(seconds_since "$started")"
            SYSTEM_CHANGED=yes
            return 0
        fi
    fi
    lines_of lacking probe
    [ "${#lacking[@]}" -gt 0 ] || return 0
    tell_missing "${lacking[@]}"
    exit 2
}

# --- steps 2 and 3: Python

find_python() {
    local name
    for name in ${COMIGS_PYTHON:+"$COMIGS_PYTHON"} python3 python3.11 python3.12 python3.13; do
        "$name" - "$MINIMUM_PYTHON" 2>/dev/null <<'PY' && printf '%s' "$name" && return 0
import ensurepip, sys, venv
sys.exit(sys.version_info[:2] < tuple(int(part) for part in sys.argv[1].split(".")))
PY
    done
    return 1
}

venv_step() {
    local python started
    if "$VENV/bin/python" -c 'import pip' 2>/dev/null; then return 0; fi
    python=$(find_python) ||
        fail 2 "no Python $MINIMUM_PYTHON or newer with the modules venv and ensurepip was found" \
            "found: $(python3 --version 2>&1 || true)" \
            "Install one (Debian: python3 python3-venv) or name it: COMIGS_PYTHON=/path/to/python3"
    started=$(now_ms)
    say "[2/3] Python environment in $VENV (some seconds)"
    mkdir -p "$VENV"
    echo incomplete >"$STAMP"
    (cd "$VENV" && rm -rf bin include lib lib64 pyvenv.cfg) # a half of one
    "$python" -m venv "$VENV" || fail 1 "$python -m venv $VENV failed; its message is above"
    say "[2/3] done in $(seconds_since "$started")"
}

wanted_from_pypi() { # tools that the system has not got, or not new enough
    older "$(cmake --version 2>/dev/null | awk 'NR == 1 { print $3 }')" "$MINIMUM_CMAKE" &&
        echo "cmake==$PINNED_CMAKE"
    have ninja || echo "ninja==$PINNED_NINJA"
}

digest() { { cat requirements.txt && printf '%s\n' "${EXTRA[@]}"; } | sha256sum | cut -d ' ' -f 1; }

# Prints the pins that .venv does not fulfil; the versions are read from the packages' records, nothing is imported.
unfulfilled_pins() {
    "$VENV/bin/python" - "${EXTRA[@]}" <<'PY'
import importlib.metadata as metadata
import sys

from pip._vendor.packaging.requirements import Requirement

lines = [line.partition("#")[0].strip() for line in open("requirements.txt", encoding="utf-8")] + sys.argv[1:]
installed = {(d.metadata["Name"] or "").lower().replace("_", "-"): d.version for d in metadata.distributions()}
for requirement in (Requirement(line) for line in lines if line):
    if requirement.marker is None or requirement.marker.evaluate():
        found = installed.get(requirement.name.lower().replace("_", "-"))
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            print(f"{requirement} (found: {found or 'none'})")
PY
}

complete() {
    [ "$(cat "$STAMP" 2>/dev/null)" = "$(digest)" ] && [ -x "$VENV/bin/python" ] &&
        compgen -G "$VENV/lib/python3*/site-packages/torch/lib/libtorch_cpu.so" >/dev/null &&
        [ -z "$(unfulfilled_pins)" ] && has_our_packages
}

# A link leads to the environment of another folder, whose packages stay its own; here the working directory has them.
has_our_packages() {
    [ -L "$VENV" ] || compgen -G "$VENV/lib/python3*/site-packages/comigs-*.dist-info/direct_url.json" >/dev/null
}

# Somebody's own environment, or anything else, is neither removed nor installed into.
check_venv_is_ours() {
    [ -e "$VENV" ] || [ -L "$VENV" ] || return 0
    # An empty folder, also by a link, is as good as none.
    [ -f "$STAMP" ] || { [ -d "$VENV" ] && [ -z "$(ls -A "$VENV")" ]; } ||
        fail 2 "$VENV: found something that setup.sh did not make, expected none; move it away and run setup.sh again"
}

# One at a time: a second call waits for the first, and then finds everything there.
hold() {
    local code=0
    have flock || return 0
    exec 9>>"$LOCK"
    flock -n -E 75 9 || code=$?
    if [ "$code" -eq 75 ]; then
        say "another setup.sh is at work here; waiting for its end"
        flock 9
    elif [ "$code" -ne 0 ]; then
        say "no locks on this file system: let one setup.sh end before the next one begins"
    fi
}

python_step() {
    local started room
    check_venv_is_ours
    room=$(df -Pk . 2>/dev/null | awk 'NR == 2 { print int($4 / 1048576) }')
    [ -d "$VENV/lib" ] && [ -f "$STAMP" ] || [ "$room" -ge "$NEEDED_GIB" ] ||
        fail 1 "$NEEDED_GIB GiB of free disk space are needed for $VENV, but only $room GiB are free in $PWD"
    venv_step
    started=$(now_ms)
    say "[3/3] Python packages of requirements.txt into $VENV (2.8 GB to download the first time: minutes)"
    echo incomplete >"$STAMP"
    mkdir -p "$VENV/tmp" # pip unpacks beside where it installs: /tmp is often too small for torch
    # Compiling all modules beforehand takes longer than compiling on first use those that are used.
    TMPDIR=$PWD/$VENV/tmp logged "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input \
        --progress-bar off --no-compile -r requirements.txt "${EXTRA[@]}" ||
        fail 1 "pip could not install the packages of requirements.txt; what it said is above" \
            "Without a network: make the package index reachable (PIP_INDEX_URL) or name a folder of wheels" \
            "(PIP_FIND_LINKS and PIP_NO_INDEX=1). Nothing needs to be undone: run setup.sh again."
    has_our_packages || TMPDIR=$PWD/$VENV/tmp logged "$VENV/bin/python" -m pip install --disable-pip-version-check \
        --no-input --no-index --no-deps --no-build-isolation --editable . ||
        fail 1 "pip could not install the packages of this folder; what it said is above"
    rm -rf "$VENV/tmp"
    digest >"$STAMP"
    say "[3/3] done in $(seconds_since "$started")"
}

# --- what the callers need in their environment

cores() { # whole ones that this process may use, as Open MPI counts its slots
    local whole allowed
    allowed=$(nproc)
    whole=$({ lscpu -p=CORE,SOCKET 2>/dev/null || true; } | sed '/^#/d' | sort -u | wc -l)
    echo $((whole > 0 && whole < allowed ? whole : allowed))
}

print_environment() {
    local cxx
    printf 'export PATH=%q:"%sPATH"\n' "$PWD/$VENV/bin" '$'
    cxx=$(compiler) && [ "$cxx" != g++ ] && printf 'export CXX=%q\n' "$cxx"
    if [ "$(id -u)" -eq 0 ]; then
        echo 'export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1'
    fi
    # Ranks share the cores among themselves: nobody else ties them to one. Four users run on any machine.
    echo 'export OMPI_MCA_hwloc_base_binding_policy=none'
    # In a job of Slurm's mpirun counts its tasks instead, and a shell on a node is mostly one.
    [ "$(cores)" -ge 4 ] && [ -z "${SLURM_JOB_ID:-}" ] || echo 'export OMPI_MCA_rmaps_base_oversubscribe=1'
    # In a step's shell (srun --pty) what mpirun starts shares the step's resources: otherwise it waits for its end.
    [ -z "${SLURM_STEP_ID:-}" ] || echo 'export SLURM_OVERLAP=1'
    # Open MPI looks for a remote shell even if all ranks run here, and complains where there is none.
    have ssh || have rsh || echo 'export OMPI_MCA_plm_rsh_agent=sh'
}

main() {
    local begun
    begun=$(now_ms)
    PATH=${PATH//"$PWD/$VENV/bin:"/} # judge the system, also where --env was taken
    MODE=install INCOMPLETE=no
    case "${1:-}" in
        '') ;;
        --check) MODE=check ;;
        --env) print_environment && exit 0 ;;
        --help | -h) usage && exit 0 ;;
        *) fail 2 "unknown option '$1'; see: bash setup.sh --help" ;;
    esac
    system_step
    lines_of EXTRA wanted_from_pypi
    if [ "$MODE" = check ]; then
        complete || { say "missing or outdated: the Python packages in $VENV" && INCOMPLETE=yes; }
        [ "$INCOMPLETE" = no ] || fail 2 "not complete; run: bash setup.sh"
        say "everything is there ($(seconds_since "$begun"))"
    elif complete; then
        if [ "$SYSTEM_CHANGED" = yes ]; then
            say "ready after $(seconds_since "$begun")"
        else
            say "everything is there, nothing to do ($(seconds_since "$begun"))"
        fi
    else
        hold
        complete || python_step
        say "ready after $(seconds_since "$begun")"
    fi
}

main "$@"
