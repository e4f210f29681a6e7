#!/usr/bin/env bash
# Sets up, builds and runs every test: ctest (C++), pytest (the real command line, Python tools), broken inputs through
# a build with sanitizers, fuzz targets. Exit code 0 only if all passed.  usage: bash tests/run.sh [--full] [--help]
#   --full    also what is marked as slow: more shapes of what others cover
# With CI set, as continuous integration does, a test that is skipped is a failure unless ALLOWED_SKIPS has its reason.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PRESET=dev
readonly LOGS=build/test-logs
readonly HOSTILE_COUNT=17 # of each class of input
# Of tests/python: what waits for most of its time goes on beside everything; what holds ranks to a
# time comes at the end, one after the other. All other modules share the cores.
readonly WAITING=('slurm/*')
readonly TIMED=(commands/{environments,pretrain} federation/{failures,two_at_once})
# What a machine may lack: other data sets, a GPU, netCDF's own tool, the right to mount a disk.
readonly ALLOWED_SKIPS='shared/data is not here|--device cuda|ncdump is not installed|needs root|no golden digests of|is no build folder'
TIMES=() SKIPPED=() MARKED=(-m 'not slow')

say() { printf '\ntests: %s\n' "$*"; }
timed() { # name of the step, then its command
    local name=$1 begun=$SECONDS code=0
    shift
    say "$name"
    "$@" || code=$?
    TIMES+=("$(printf '%-12s %4d s' "${name%%:*}" $((SECONDS - begun)))")
    return "$code"
}
# What goes on beside the steps has a process group of its own, which ends with this script.
beside() {
    set -m
    "$@" </dev/null &
    set +m
}
stop_beside() {
    local job
    for job in $(jobs -pr); do kill -INT -- "-$job" || true; done
}
trap stop_beside EXIT

# CUDA code compiles wherever a compiler for it is, also on machines without a GPU to run it.
configure() {
    local log=$LOGS/configure.log
    cmake --preset "$PRESET" 2>&1 | tee "$log" || return 1
    if { command -v nvcc || [ -x /usr/local/cuda/bin/nvcc ]; } >/dev/null && grep -q 'CUDA back end: OFF' "$log"; then
        echo "tests: error: nvcc is on this machine, but the build left CUDA out; see $log" >&2
        return 1
    fi
}
# Form: what the tools say, nobody has to.
lint() {
    local code=0
    find include src tests \( -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
        xargs -0 clang-format --dry-run -Werror || code=1
    find . -name '*.sh' -not -path './.venv/*' -not -path './build/*' -print0 | xargs -0 shellcheck -x slurm/submit .ci/run || code=1
    .venv/bin/python -m ruff check --quiet . && .venv/bin/python -m ruff format --quiet --check . || code=1
    .venv/bin/python -m mypy --no-error-summary || code=1
    return "$code"
}
build() { cmake --build --preset "$PRESET"; }
ctest_all() { ctest --preset "$PRESET" --no-tests=error --parallel "$(nproc)" 2>&1 | tee "$LOGS/ctest.log"; }

modules() { # of tests/python, by the patterns of folder/name
    local pattern
    for pattern in "$@"; do compgen -G "tests/python/${pattern%/*}/test_${pattern##*/}.py"; done | sort -u
}
pytest_part() { # what pytest is told
    # By module, not by script: a script's first line holds the path of the folder that .venv was made in.
    COMIGS_EXECUTABLE=$PWD/build/$PRESET/comigs .venv/bin/python -m pytest -ra "${MARKED[@]}" "$@" 2>&1
}
pytest_all() {
    local waiting timed others code=0
    mapfile -t waiting < <(modules "${WAITING[@]}")
    mapfile -t timed < <(modules "${TIMED[@]}")
    mapfile -t others < <(modules '*/*' | grep -vxFf <(printf '%s\n' "${waiting[@]}" "${timed[@]}"))
    beside pytest_part "${waiting[@]}" >"$LOGS/pytest-waiting.log"
    local slurm=$!
    pytest_part --numprocesses "$(nproc)" --dist loadfile "${others[@]}" | tee "$LOGS/pytest-others.log" || code=1
    pytest_part "${timed[@]}" | tee "$LOGS/pytest-timed.log" || code=1
    wait "$slurm" || code=1
    cat "$LOGS/pytest-waiting.log"
    return "$code"
}

# Broken inputs meet the program under the address and undefined-behaviour sanitizers: exit code 2 or a correct run.
build_hostile() { cmake --preset hostile && cmake --build --preset hostile --target comigs; }
hostile_all() { .venv/bin/python -m tests.hostile --executable build/hostile/comigs --count "$HOSTILE_COUNT"; }
has_fuzzer() { # clang++ with libFuzzer
    echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long) { return 0; }' |
        clang++ -fsanitize=fuzzer -x c++ - -o /dev/null
} >/dev/null 2>&1
build_fuzz() { ! has_fuzzer || { cmake --preset fuzz && cmake --build --preset fuzz; }; }
fuzz_all() {
    if ! has_fuzzer; then
        SKIPPED+=("fuzz targets: no clang++ with libFuzzer here (Debian: clang, libclang-rt-dev)")
        return 0
    fi
    .venv/bin/python -m tests.fuzz --executions 20000
}
# While the tests above wait for each other.
build_rest() {
    renice -n 19 "$BASHPID" >/dev/null
    build_hostile && build_fuzz
} >"$LOGS/build-rest.log" 2>&1
wait_for_build() {
    wait "$1" || { tail -n 30 "$LOGS/build-rest.log" >&2 && return 1; }
}

case "${1:-}" in
    '') ;;
    --full) MARKED=() ;;
    --help | -h)
        sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *)
        echo "tests: error: unknown option '$1'; usage: bash tests/run.sh [--full]" >&2
        exit 2
        ;;
esac

mkdir -p "$LOGS"
rm -f "$LOGS"/pytest-*.log
timed "set-up: packages, Python environment" bash setup.sh
environment=$(bash setup.sh --env)
eval "$environment"
timed "lint: clang-format, shellcheck, ruff, mypy" lint
timed "configure: preset $PRESET" configure
timed "tidy: clang-tidy" .venv/bin/python -m tests.tidy "build/$PRESET"
timed "build: build/$PRESET" build
beside build_rest
rest=$!

failed=()
timed "ctest: C++ tests, one process and MPI" ctest_all || failed+=(ctest)
timed "pytest: command line, data_prep, analysis, independent references" pytest_all || failed+=(pytest)
timed "builds: what is left of build/hostile and build/fuzz" wait_for_build "$rest" || failed+=(build)
timed "hostile: broken inputs through build/hostile" hostile_all || failed+=(hostile)
timed "fuzz: parsers, 20,000 executions each" fuzz_all || failed+=(fuzz)

say "time taken"
printf '    %s\n' "${TIMES[@]}" "$(printf '%-12s %4d s' altogether "$SECONDS")"
say "ctest's and pytest's own summaries"
grep -E '^[0-9]+% tests passed' "$LOGS/ctest.log" || tail -n 3 "$LOGS/ctest.log"
tail -qn 1 "$LOGS"/pytest-*.log
mapfile -t -O "${#SKIPPED[@]}" SKIPPED < <(sed -n 's/^SKIPPED //p' "$LOGS"/pytest-*.log)
[ "${#SKIPPED[@]}" -eq 0 ] || printf 'tests: SKIPPED: %s\n' "${SKIPPED[@]}"
mapfile -t UNEXPECTED < <(printf '%s\n' "${SKIPPED[@]}" | grep -vE "^\$|$ALLOWED_SKIPS")
if [ -n "${CI:-}" ] && [ "${#UNEXPECTED[@]}" -gt 0 ]; then
    failed+=("skips without a reason in ALLOWED_SKIPS")
fi
if [ "${#failed[@]}" -gt 0 ]; then
    echo "tests: failed: ${failed[*]}" >&2
    exit 1
fi
