"""All stages one after the other, whatever one of them says, and a table of them.

python -m tests.gpu [first|second] [--output FOLDER] [--rehearse]     as run.sh starts it
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .stages import ABSENT, FAILED, FIRST, MACHINE, NO_CARD, PASSED, SECOND, Outcome, carry_out

SECONDS = 570  # for all stages of a command
PATIENCE = 4  # times as long where all is rehearsed, on a machine that has other work


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("half", nargs="?", choices=("first", "second"), help="without: both")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"), metavar="FOLDER")
    parser.add_argument("--rehearse", action="store_true", help="there is no card, as expected")
    return parser.parse_args()


def row(outcome: Outcome) -> str:
    name, note = outcome.stage.name, outcome.note
    back = f" (fell back {outcome.fell_back} times)" if outcome.fell_back else ""
    return f"{name:36} {outcome.verdict:8} {outcome.seconds:6.1f} s  {note[:200]}{back}"


def summary(outcomes: list[Outcome], rehearse: bool) -> tuple[str, bool]:
    """The last line, and whether all went as it should."""
    count = {v: sum(o.verdict == v for o in outcomes) for v in (PASSED, FAILED, NO_CARD, ABSENT)}
    fell_back = sum(o.fell_back > 0 for o in outcomes)
    failed = count[FAILED] + (0 if rehearse else count[NO_CARD])
    line = f"GPU: {count[PASSED]} passed, {failed} failed, {fell_back} fell back"
    if count[ABSENT]:
        line += f"; {count[ABSENT]} left out, whose tools are not here"
    if rehearse:
        line = f"rehearsal: {count[NO_CARD]} stages stopped for want of a card, as expected\n{line}"
    return line, failed == 0 and fell_back == 0


def main() -> int:
    wanted = arguments()
    stages = [MACHINE, *{"first": FIRST, "second": SECOND, None: FIRST + SECOND}[wanted.half]]
    wanted.output.mkdir(parents=True, exist_ok=True)
    of_half = wanted.half or "all"
    begun = time.monotonic()
    patience = PATIENCE if wanted.rehearse else 1
    outcomes: list[Outcome] = []
    with (wanted.output / f"{of_half}.log").open("w", encoding="utf-8") as log:
        for stage in stages:
            left = patience * SECONDS - (time.monotonic() - begun)
            outcomes.append(carry_out(stage, left, log, patience))
            print(row(outcomes[-1]), flush=True)
            if stage is MACHINE and outcomes[-1].verdict == NO_CARD and not wanted.rehearse:
                print("gpu: error: there is no card here; without one: --rehearse", file=sys.stderr)
                return 2
    line, good = summary(outcomes, wanted.rehearse)
    table = "\n".join([*map(row, outcomes), "", f"{time.monotonic() - begun:.0f} s altogether", line])
    (wanted.output / f"{of_half}.txt").write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n(all that was printed: {wanted.output / of_half}.log)")
    print(line.splitlines()[-1])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
