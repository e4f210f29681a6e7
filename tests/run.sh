#!/usr/bin/env bash
# Sets up, builds and runs every test: ctest (C++), pytest (the real command line, Python tools), broken inputs through
# a build with sanitizers, fuzz targets. Exit code 0 only if all passed.  usage: bash tests/run.sh [--help]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PRESET=dev
readonly CTEST_LOG=build/$PRESET-ctest.log PYTEST_LOG=build/$PRESET-pytest.log
readonly HOSTILE_COUNT=17 # of each class of input
TIMES=() SKIPPED=()

say() { printf '\ntests: %s\n' "$*"; }
timed() { # name of the step, then its command
    local name=$1 begun=$SECONDS code=0
    shift
    say "$name"
    "$@" || code=$?
    TIMES+=("$(printf '%-12s %4d s' "${name%%:*}" $((SECONDS - begun)))")
    return "$code"
}

# CUDA code compiles wherever a compiler for it is, also on machines without a GPU to run it.
configure() {
    local log=build/$PRESET-configure.log
    mkdir -p build
    cmake --preset "$PRESET" 2>&1 | tee "$log" || return 1
    if { command -v nvcc || [ -x /usr/local/cuda/bin/nvcc ]; } >/dev/null && grep -q 'CUDA back end: OFF' "$log"; then
        echo "tests: error: nvcc is on this machine, but the build left CUDA out; see $log" >&2
        return 1
    fi
}
build() { cmake --build --preset "$PRESET"; }
ctest_all() { ctest --preset "$PRESET" --no-tests=error --parallel "$(nproc)" 2>&1 | tee "$CTEST_LOG"; }
pytest_all() {
    # By module, not by script: a script's first line holds the path of the folder that .venv was made in.
    COMIGS_EXECUTABLE=$PWD/build/$PRESET/comigs .venv/bin/python -m pytest tests/python -ra 2>&1 | tee "$PYTEST_LOG"
}
# Broken inputs meet the program under the address and undefined-behaviour sanitizers: exit code 2 or a correct run.
build_sanitized() { cmake --preset asan >build/asan-configure.log && cmake --build --preset asan --target comigs; }
hostile_all() {
    build_sanitized && .venv/bin/python -m tests.hostile --executable build/asan/comigs --count "$HOSTILE_COUNT"
}
has_fuzzer() { # clang++ with libFuzzer
    echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long) { return 0; }' |
        clang++ -fsanitize=fuzzer -x c++ - -o /dev/null
} >/dev/null 2>&1
fuzz_all() {
    if ! has_fuzzer; then
        SKIPPED+=("fuzz targets: no clang++ with libFuzzer here (Debian: clang, libclang-rt-dev)")
        echo "tests: SKIPPED: ${SKIPPED[-1]}"
        return 0
    fi
    cmake --preset fuzz >build/fuzz-configure.log && cmake --build --preset fuzz &&
        .venv/bin/python -m tests.fuzz --executions 20000
}

case "${1:-}" in
    '') ;;
    --help | -h)
        sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *)
        echo "tests: error: unknown option '$1'; usage: bash tests/run.sh" >&2
        exit 2
        ;;
esac

timed "set-up: packages, Python environment" bash setup.sh
environment=$(bash setup.sh --env)
eval "$environment"
timed "configure: preset $PRESET" configure
timed "build: build/$PRESET" build

failed=()
timed "ctest: C++ tests, one process and MPI" ctest_all || failed+=(ctest)
timed "pytest: command line, data_prep, analysis, independent references" pytest_all || failed+=(pytest)
timed "hostile: broken inputs through build/asan" hostile_all || failed+=(hostile)
timed "fuzz: parsers, 20,000 executions each" fuzz_all || failed+=(fuzz)

say "time taken"
printf '    %s\n' "${TIMES[@]}" "$(printf '%-12s %4d s' altogether "$SECONDS")"
say "ctest's and pytest's own summaries"
grep -E '^[0-9]+% tests passed' "$CTEST_LOG" || tail -n 3 "$CTEST_LOG"
tail -n 1 "$PYTEST_LOG"
[ "${#SKIPPED[@]}" -eq 0 ] || printf 'tests: SKIPPED: %s\n' "${SKIPPED[@]}"
if [ "${#failed[@]}" -gt 0 ]; then
    echo "tests: failed: ${failed[*]}" >&2
    exit 1
fi
