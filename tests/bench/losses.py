"""Losses of comigs and of plain PyTorch side by side, from the same numbers on the same batches.

python -m tests.bench.losses [--steps N] [--precision float32|bf16]     from the repository's root
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .programs import ROOT, BenchError, Executables
from .steps import Case, Measured, check_losses, difference


def main() -> int:
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.losses", description=about)
    built = ROOT / "build" / "dev"
    parser.add_argument("--steps", type=int, default=30, metavar="N", help="[30]")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="[float32]")
    parser.add_argument("--executables", type=Path, default=built, metavar="FOLDER", help="[build/dev]")
    wanted = parser.parse_args()
    case = Case(precision=wanted.precision, warm_up=0, measured=wanted.steps)
    measured = Measured(Executables(wanted.executables), len(os.sched_getaffinity(0)))
    try:
        comigs, plain = measured.once(case), measured.once(case.of("plain"))
        print("step  comigs      plain       relative difference")
        for step, (own, other) in enumerate(zip(comigs.totals, plain.totals, strict=True), start=1):
            print(f"{step:4}  {own:10.6f}  {other:10.6f}  {abs(own - other) / abs(other):.1e}")
        print(f"greatest difference: {difference(comigs, plain):.1e}")
        check_losses(case.of("plain"), comigs, plain)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
