"""Runs the fuzz targets on seeds made from good files, for a number of executions or of seconds each.

python -m tests.fuzz [--executions 20000 | --seconds 600]     from the repository's root, after
    cmake --preset fuzz && cmake --build --preset fuzz

Exit code 0 only if no target stopped. An input that stops one is kept in --found, and runs again with
`build/fuzz/fuzz_TARGET FILE`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.trial import ROOT

from .seeds import TARGETS, write_seeds

LONGEST_INPUT_BYTES, SECONDS_FOR_ONE, MOST_MEMORY_MIB, MOST_ALLOCATION_MIB = 16384, 20, 2048, 512


@dataclass(frozen=True)
class Fuzzed:
    target: str
    executions: int
    covered: int  # edges
    kept: list[str]  # inputs that stopped it
    output: str
    code: int


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--executions", type=int, default=20_000, metavar="N", help="of each target [%(default)s]"
    )
    parser.add_argument("--seconds", type=int, metavar="S", help="for each target, in the place of a number")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="the same inputs for the same [%(default)s]"
    )
    parser.add_argument(
        "--only", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS)
    )
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build" / "fuzz", metavar="FOLDER", help="[build/fuzz]"
    )
    parser.add_argument(
        "--corpus", type=Path, metavar="FOLDER", help="go on with the inputs there, and add to them"
    )
    parser.add_argument(
        "--found",
        type=Path,
        default=ROOT / "build" / "fuzz" / "found",
        metavar="FOLDER",
        help="[build/fuzz/found]",
    )
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="at a time [%(default)s]"
    )
    return parser.parse_args()


def fuzz(target: str, folder: Path, wanted: argparse.Namespace) -> Fuzzed:
    corpus, scratch = (wanted.corpus or folder) / target, folder / f"{target}-scratch"
    scratch.mkdir(parents=True)
    write_seeds(target, corpus, scratch)
    found = wanted.found / target
    found.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    _, words = TARGETS[target]
    limit = f"-runs={wanted.executions}" if wanted.seconds is None else f"-max_total_time={wanted.seconds}"
    command = [
        wanted.build / f"fuzz_{target}",
        corpus,
        limit,
        f"-seed={wanted.seed}",
        f"-artifact_prefix={found}/",
    ]
    command += [f"-max_len={LONGEST_INPUT_BYTES}", f"-timeout={SECONDS_FOR_ONE}", "-print_final_stats=1"]
    command += [f"-rss_limit_mb={MOST_MEMORY_MIB}", f"-malloc_limit_mb={MOST_ALLOCATION_MIB}"]
    command += [f"-dict={ROOT / 'tests' / 'fuzz' / words}"] if words else []
    sanitizers = {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1", "TMPDIR": str(scratch)}
    done = subprocess.run(
        list(map(str, command)),
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | sanitizers,
    )
    executions = re.search(r"stat::number_of_executed_units: *(\d+)", done.stderr)
    edges = re.findall(r"cov: (\d+)", done.stderr)
    kept = sorted(str(path) for path in set(found.iterdir()) - before)
    return Fuzzed(
        target,
        int(executions[1]) if executions else 0,
        int(edges[-1]) if edges else 0,
        kept,
        done.stderr,
        done.returncode,
    )


def main() -> int:
    wanted = arguments()
    missing = [target for target in wanted.only if not (wanted.build / f"fuzz_{target}").is_file()]
    if missing:
        print(
            f"tests.fuzz: not built in {wanted.build}: {', '.join(missing)} (cmake --preset fuzz)",
            file=sys.stderr,
        )
        return 2
    with (
        tempfile.TemporaryDirectory(prefix="comigs-fuzz-") as temporary,
        ThreadPoolExecutor(wanted.jobs) as pool,
    ):
        results = list(pool.map(lambda target: fuzz(target, Path(temporary), wanted), wanted.only))
    stopped = [result for result in results if result.code != 0]
    for result in stopped:
        print(
            f"{result.target} stopped: {', '.join(result.kept) or 'no input kept'}\n{result.output[-6000:]}\n"
        )
    print(f"{'target':<16}{'executions':>12}{'edges':>8}  found")
    for result in results:
        print(f"{result.target:<16}{result.executions:>12,}{result.covered:>8}  {len(result.kept)}")
    return 1 if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
