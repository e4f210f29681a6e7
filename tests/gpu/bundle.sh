#!/usr/bin/env bash
# Packs what run.sh needs on a machine with a card, a driver and a Python with torch: .gpu/run.sh, .gpu/bundle.tar.xz.
# usage: bash tests/gpu/bundle.sh [--build FOLDER]     of the programs; default build/dev; README.md here says more
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly PROGRAMS=(comigs bench_steps test_kernels test_kernels_card test_adapter test_train)
# What the tests and measurements read of the repository.
readonly SOURCES=(tests/gpu tests/bench tests/python/{conftest,project/test_gpu}.py tests/helpers/{__init__,tiny,built_program,llamas,plain_model}.py console data_prep jobs setup.sh)
# The machine's own: glibc's, and those that come with torch.
readonly GLIBC='ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libutil|libresolv|libanl|libnsl|libmvec'
readonly LARGEST=$((64 << 20)) # bytes

fail() {
    echo "bundle: error: $*" >&2
    exit 2
}

build=build/dev
while [ $# -gt 0 ]; do
    case $1 in
        --build)
            [ -n "${2:-}" ] || fail "--build: expected a folder"
            build=$2 && shift 2
            ;;
        --help | -h)
            sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *) fail "unknown option '$1'; usage: bash tests/gpu/bundle.sh [--build FOLDER]" ;;
    esac
done
[ -x "$build/comigs" ] || fail "$build/comigs is not there; build it, or name another folder with --build"
# The folders of Open MPI and PMIx, as they name them themselves.
ompi() { ompi_info --path "$1" --parsable | cut -d: -f3; }
pmix() { readlink -f /usr/lib/*/pmix2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/comigs-gpu
mkdir -p "$bundle"/{bin,libexec,lib,openmpi,pmix}

# --- programs, each behind a script of its name that finds the libraries; nobody else on the machine sees those
add_program() { # name, file
    install -m 755 "$2" "$bundle/libexec/$1"
    strip "$bundle/libexec/$1"
    cat >"$bundle/bin/$1" <<'WRAPPER'
#!/bin/sh
LD_LIBRARY_PATH=$COMIGS_GPU_LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec "$(dirname "$0")/../libexec/$(basename "$0")" "$@"
WRAPPER
    chmod 755 "$bundle/bin/$1"
}
for program in "${PROGRAMS[@]}"; do
    if [ -x "$build/$program" ]; then
        add_program "$program" "$build/$program"
    else
        echo "bundle: without $program, which is not in $build"
    fi
done
add_program mpirun "$(readlink -f "$(command -v mpirun)")"

# --- what Open MPI and PMIx load when they run
cp -r "$(ompi pkglibdir)" "$bundle/openmpi/plugins"
cp -r "$(ompi pkgdatadir)" "$bundle/openmpi/data"
cp -r "$(ompi sysconfdir)" "$bundle/openmpi/etc"
cp -r "$(pmix)/lib/pmix" "$bundle/pmix/plugins"
cp -r "$(pmix)/share/pmix" "$bundle/pmix/data"

# --- their libraries, but for the machine's own
needed() {
    local torch='/torch/lib/|/nvidia/[^ ]*/lib/'
    find "$bundle/libexec" "$bundle"/*/plugins -type f \( -perm -u+x -o -name '*.so' \) -exec ldd {} + |
        awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u | grep -vE "$torch|/($GLIBC)\.so"
}
missing=$(find "$bundle/libexec" -type f -exec ldd {} + | grep 'not found' || true)
[ -z "$missing" ] || fail "libraries that are not on this machine either:"$'\n'"$missing"
needed >"$work/libraries"
while read -r library; do
    cp -L "$library" "$bundle/lib/"
done <"$work/libraries"
find "$bundle/lib" -type f -exec strip --strip-unneeded {} +

# --- the tests themselves
for source in "${SOURCES[@]}"; do
    mkdir -p "$bundle/$(dirname "$source")"
    cp -r "$source" "$bundle/$source"
done
rm -rf "$bundle/tests/bench/figures" "$bundle/jobs/datasets" "$bundle/data_prep/sample"
find "$bundle" -name __pycache__ -prune -exec rm -rf {} +
git describe --always --dirty >"$bundle/version" 2>/dev/null || echo 'no commit' >"$bundle/version"

mkdir -p .gpu
XZ_OPT=-0 tar --owner=0 --group=0 -cJf "$work/bundle.tar.xz" -C "$work" comigs-gpu
bytes=$(stat -c %s "$work/bundle.tar.xz")
[ "$bytes" -le "$LARGEST" ] || fail "$((bytes >> 20)) MiB, expected at most $((LARGEST >> 20))"
mv "$work/bundle.tar.xz" .gpu/bundle.tar.xz
cp tests/gpu/run.sh .gpu/run.sh
echo "bundle: .gpu, $((bytes >> 20)) MiB, of $(cat "$bundle/version")"
