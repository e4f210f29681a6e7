"""comigs beside plain PyTorch: ratios of speed and memory, and what they must reach.

python -m tests.bench.compare [--json FILE] [--only NAME ...]     from the repository's root
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

from .programs import ROOT, BenchError, Executables
from .rows import ROWS, Row
from .steps import Measured
from .table import Figure, as_json, as_text


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.compare", description=__doc__.splitlines()[0]
    )
    names = [row.name for row in ROWS]
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="processes of each kind [3]")
    parser.add_argument(
        "--threads",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="compute threads of both in the rows of one user [%(default)s]",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="of both; cuda: the rows of steps [cpu]"
    )
    parser.add_argument(
        "--executables",
        type=Path,
        default=ROOT / "build" / "dev",
        metavar="FOLDER",
        help="where comigs and bench_steps are [build/dev]",
    )
    parser.add_argument(
        "--official",
        type=Path,
        metavar="FOLDER",
        help="a checkout of the authors' program (epfml/CoMiGS), for the rows official-*, which are left out without",
    )
    wanted = parser.parse_args()
    needing = [row.name for row in ROWS if row.official and row.name in wanted.only]
    if needing and wanted.only != names and wanted.official is None:
        parser.error(f"--only {' '.join(needing)}: needs --official FOLDER")
    if wanted.official and not (wanted.official / "models" / "model.py").is_file():
        parser.error(
            f"--official: {wanted.official}: expected a checkout of epfml/CoMiGS, with models/model.py"
        )
    if wanted.repeats < 1 or wanted.threads < 1:
        parser.error("--repeats and --threads: expected at least 1")
    return wanted


def machine() -> str:
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.2f}"


def compare(rows: list[Row], measured: Measured, repeats: int) -> list[Figure]:
    """Steps first, all kinds in turn; then what a row measures on its own."""
    measured.measure([case for row in rows for case in row.cases], repeats)
    figures = []
    for row in rows:
        print(f"{row.name}: {row.what}", flush=True)
        figures.append(Figure(row.name, row.unit, row.values(measured, repeats), row.bound))
    return figures


def possible(row: Row, wanted: argparse.Namespace) -> bool:
    return (row.of_steps or wanted.device == "cpu") and (wanted.official is not None or not row.official)


def main() -> int:
    wanted = arguments()
    begun = time.monotonic()
    try:
        executables = Executables(wanted.executables)
        for program in ("comigs", "bench_steps"):
            executables.path(program)
        print(f"machine: {machine()}; {wanted.threads} threads, {wanted.repeats} repeats", flush=True)
        rows = [row for row in ROWS if row.name in wanted.only and possible(row, wanted)]
        measured = Measured(executables, wanted.threads, wanted.device, wanted.official)
        figures = compare(rows, measured, wanted.repeats)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    minutes = (time.monotonic() - begun) / 60
    print(f"\n{as_text(figures)}\n\n{minutes:.1f} minutes; load {os.getloadavg()[0]:.2f}")
    if wanted.json:
        wanted.json.write_text(json.dumps(as_json(figures), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
