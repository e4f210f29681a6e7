#!/usr/bin/env bash
# Takes comigs through a card: every stage of `python -m tests.gpu` from the bundle beside this script, a table last.
# usage: bash run.sh [first|second] [--output FOLDER] [--rehearse]
#   first, second   one half of the stages, each under ten minutes; without: both
#   --output        for the table and all that the stages print; default gpu-results
#   --rehearse      on a machine without a card: a stage that stops for want of one is as expected
# Exit code: 0 all passed, 1 not, 2 it could not begin.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
    echo "gpu: error: $*" >&2
    exit 2
}
unpack() { # into the folder named, once for both halves
    local mark
    mark=$(cksum <"$here/bundle.tar.xz")
    [ "$(cat "$1/unpacked" 2>/dev/null)" != "$mark" ] || return 0
    rm -rf "$1/comigs-gpu"
    mkdir -p "$1"
    tar -xJf "$here/bundle.tar.xz" -C "$1" && echo "$mark" >"$1/unpacked"
}
# The folders of libraries of the machine's torch: its own, and the packages that it needs.
torch_libraries() {
    python3 - <<'PYTHON'
import importlib.util
from pathlib import Path

found = importlib.util.find_spec("torch")
if found is None:
    raise SystemExit("python3 has no torch")
torch = Path(found.submodule_search_locations[0])
print(":".join(map(str, [torch / "lib", *sorted(torch.parent.glob("nvidia/*/lib"))])))
PYTHON
}

case "${1:-}" in
    --help | -h)
        sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
esac
[ -f "$here/bundle.tar.xz" ] || fail "$here/bundle.tar.xz is not there; make it: bash tests/gpu/bundle.sh"
command -v python3 >/dev/null || fail "python3 is not on PATH"
libraries=$(torch_libraries) || fail "$(command -v python3) must be a Python that holds torch"

place=${TMPDIR:-/tmp}/comigs-gpu-$(id -u)
begun=$SECONDS
unpack "$place"
root=$place/comigs-gpu
echo "gpu: $(cat "$root/version") unpacked in $root ($((SECONDS - begun)) s)"

export COMIGS_GPU_LIBRARIES=$libraries:$root/lib
export PATH=$root/bin:$PATH
export COMIGS_EXECUTABLE=$root/bin/comigs COMIGS_TEST_BIN=$root/bin
export COMIGS_REQUIRE_GPU=1 # what would be skipped without a card fails
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Open MPI and PMIx look for their plug-ins where Debian has them, unless they are told otherwise.
export OPAL_PREFIX=$root OPAL_BINDIR=$root/bin OPAL_PKGLIBDIR=$root/openmpi/plugins
export OPAL_PKGDATADIR=$root/openmpi/data OPAL_SYSCONFDIR=$root/openmpi/etc
export PMIX_PKGLIBDIR=$root/pmix/plugins PMIX_PKGDATADIR=$root/pmix/data
export OMPI_MCA_plm_rsh_agent=sh # all ranks are here

output=$PWD/gpu-results arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --output)
            output=$(realpath -m "${2:?--output: expected a folder}")
            shift 2
            ;;
        *) arguments+=("$1") && shift ;;
    esac
done
cd "$root"
exec python3 -m tests.gpu --output "$output" "${arguments[@]}"
