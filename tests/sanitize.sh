#!/usr/bin/env bash
# Builds the C++ tests with a sanitizer, or takes the usual build to Valgrind, and runs them; by hand.
# usage: bash tests/sanitize.sh address|thread|valgrind     exit code 0 only if all of them are clean
#   address   address, undefined behaviour, leaks: every test                      (build/asan)
#   thread    data races: the tests of rooms without LibTorch, with MPI            (build/tsan)
#   valgrind  memcheck: the tests of rooms without LibTorch, with MPI on two ranks (build/dev)
# What Open MPI, LibTorch and the OpenMP runtime do themselves is left out: tests/sanitizers/*.supp say why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SUPPRESSIONS=$PWD/tests/sanitizers
# LibTorch and its OpenMP runtime are not built for the thread sanitizer, and too large for Valgrind.
readonly ROOMS=(base config data io_files io_safetensors io_hdf5 results_rounds kernels)

fail() {
    echo "tests: error: $*" >&2
    exit 2
}
configure_and_build() { # preset, then targets
    local preset=$1
    shift
    cmake --preset "$preset"
    cmake --build --preset "$preset" ${1:+--target "$@"}
}
targets() { printf 'test_%s ' "${ROOMS[@]}" comm; }

address() {
    configure_and_build asan
    ctest --preset asan --no-tests=error --parallel "$(nproc)"
}

thread() {
    # shellcheck disable=SC2046 # words
    configure_and_build tsan $(targets)
    ctest --preset tsan --no-tests=error --parallel "$(nproc)" \
        -R "^($(IFS='|' && echo "${ROOMS[*]}")|comm_ranks_[0-9]+)\$"
}

valgrind() {
    local program
    program=$(type -P valgrind) || fail "valgrind is not here (apt install valgrind)"
    # shellcheck disable=SC2046
    configure_and_build dev $(targets)
    local memcheck room failed=()
    # With names for what Open MPI unloads at its end.
    memcheck=("$program" -q --keep-debuginfo=yes --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite
        --show-leak-kinds=definite "--suppressions=$SUPPRESSIONS/memcheck.supp")
    [ ! -r /usr/share/openmpi/openmpi-valgrind.supp ] ||
        memcheck+=(--suppressions=/usr/share/openmpi/openmpi-valgrind.supp)
    export OMP_NUM_THREADS=1
    for room in "${ROOMS[@]}"; do
        echo "memcheck: $room"
        "${memcheck[@]}" "build/dev/test_$room" --log_level=error || failed+=("$room")
    done
    echo "memcheck: comm, two ranks"
    mpirun -n 2 "${memcheck[@]}" build/dev/test_comm --log_level=error || failed+=(comm)
    [ ${#failed[@]} -eq 0 ] || fail "not clean: ${failed[*]}"
}

environment=$(bash setup.sh --env)
eval "$environment"
case "${1:-}" in
    address | thread | valgrind) "$1" ;;
    --help | -h) sed -n '2,8s/^# //p' "${BASH_SOURCE[0]}" ;;
    *) fail "expected address, thread or valgrind; see: bash tests/sanitize.sh --help" ;;
esac
