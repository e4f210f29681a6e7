#!/usr/bin/env bash
# Takes comigs through a card: every stage of `python -m tests.gpu` from the bundle beside this script, a table last.
# usage: bash run.sh [first|second] [--output FOLDER] [--rehearse]
#   first, second   one half of the stages, each under ten minutes; without: both
#   --output        for the table and all that the stages print; default gpu-results
#   --rehearse      on a machine without a card: a stage that stops for want of one is as expected
# Exit code: 0 all passed, 1 not, 2 it could not begin, for want of a card too.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
    echo "gpu: error: $*" >&2
    exit 2
}
unpack() { # into the folder named, once for both halves
    local mark needed
    mark=$(cksum <"$here/bundle.tar.xz")
    [ "$(cat "$1/unpacked" 2>/dev/null)" != "$mark" ] || return 0
    { mkdir -p "$1" 2>/dev/null && [ -w "$1" ]; } || fail "$1 cannot be written; name another place: TMPDIR=FOLDER"
    rm -rf "$1/unpacked" "$1/comigs-gpu"
    if ! tar -xJf "$here/bundle.tar.xz" -C "$1" 2>"$1/errors"; then
        rm -rf "$1/comigs-gpu"
        fail "$here/bundle.tar.xz cannot be unpacked in $1: $(head -n 1 "$1/errors")"
    fi
    for needed in version setup.sh bin/mpirun bin/comigs tests/gpu/__main__.py tests/bench/steps.py; do
        [ -e "$1/comigs-gpu/$needed" ] && continue
        rm -rf "$1/comigs-gpu"
        fail "$here/bundle.tar.xz is without $needed; make it anew: bash tests/gpu/bundle.sh"
    done
    echo "$mark" >"$1/unpacked"
}
# The folders of libraries of the machine's torch: its own, and the packages that it needs.
torch_libraries() {
    python3 - <<'PYTHON'
import importlib.util
from pathlib import Path

found = importlib.util.find_spec("torch")
if found is None:
    raise SystemExit(1)
torch = Path(found.submodule_search_locations[0])
print(":".join(map(str, [torch / "lib", *sorted(torch.parent.glob("nvidia/*/lib"))])))
PYTHON
}

output=gpu-results arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h)
            sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --output)
            [ -n "${2:-}" ] || fail "--output: expected a folder"
            output=$2 && shift 2
            ;;
        first | second | --rehearse) arguments+=("$1") && shift ;;
        *) fail "unknown argument '$1'; see: bash run.sh --help" ;;
    esac
done
[ -f "$here/bundle.tar.xz" ] || fail "$here/bundle.tar.xz is not there; make it: bash tests/gpu/bundle.sh"
for tool in python3 tar xz; do
    command -v "$tool" >/dev/null || fail "$tool is not on PATH"
done
libraries=$(torch_libraries) || fail "$(command -v python3) must be a Python that holds torch"
{ mkdir -p "$output" 2>/dev/null && [ -w "$output" ]; } || fail "--output: $output cannot be written"
output=$(cd "$output" && pwd)

place=${TMPDIR:-/tmp}/comigs-gpu-$(id -u)
begun=$SECONDS
unpack "$place"
root=$place/comigs-gpu
echo "gpu: $(cat "$root/version") unpacked in $root ($((SECONDS - begun)) s)"

export COMIGS_GPU_LIBRARIES=$libraries:$root/lib
export PATH=$root/bin:$PATH
export COMIGS_EXECUTABLE=$root/bin/comigs COMIGS_TEST_BIN=$root/bin
export COMIGS_REQUIRE_GPU=1 # what would be skipped without a card fails
export PYTHONUNBUFFERED=1 PYTHONPYCACHEPREFIX=$place/bytecode # torch's too, which may lie there without
# Open MPI and PMIx look for their plug-ins where Debian has them, unless they are told otherwise.
export OPAL_PREFIX=$root OPAL_BINDIR=$root/bin OPAL_PKGLIBDIR=$root/openmpi/plugins
export OPAL_PKGDATADIR=$root/openmpi/data OPAL_SYSCONFDIR=$root/openmpi/etc
export PMIX_PKGLIBDIR=$root/pmix/plugins PMIX_PKGDATADIR=$root/pmix/data
export OMPI_MCA_plm_rsh_agent=sh # all ranks are here

cd "$root"
exec python3 -m tests.gpu --output "$output" "${arguments[@]}"
