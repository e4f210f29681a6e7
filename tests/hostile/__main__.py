"""Breaks good inputs in hundreds of ways, disturbs what surrounds good runs, and runs the real command line on each.

python -m tests.hostile --executable build/hostile/comigs [--count 30] [--seed 0]     from the repository's root

Each must end in a clean refusal (exit code 2 and one message that names the file or the option), in a correct run,
or, disturbed as the table of docs/stopping.md says, in a named stop (its exit code and one message); anything else is
listed and makes the exit code 1. All comes from the seed and is not stored: `--only CLASS:NUMBER --keep FOLDER` makes
a single one again.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from . import trial
from .broken import InputClass
from .classes import CLASSES
from .commands import Scene, Surroundings, Undisturbed
from .material import make

HEAD = ("class", "tried", trial.CLEAN_REFUSAL, trial.CORRECT_RUN, trial.NAMED_STOP, trial.OTHER)


@dataclass(frozen=True)
class Case:
    kind: InputClass | Surroundings
    number: int

    @property
    def label(self) -> str:
        return f"{CLASSES.index(self.kind)}:{self.number}"


@dataclass(frozen=True)
class Outcome:
    case: Case
    what: str
    verdict: trial.Verdict


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.hostile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--executable", type=Path, required=True, metavar="FILE", help="comigs, sanitized or not"
    )
    parser.add_argument(
        "--count",
        type=int,
        default=30,
        metavar="N",
        help="inputs of each class; of surroundings a quarter [%(default)s]",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="[%(default)s]")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="at a time [%(default)s]"
    )
    parser.add_argument(
        "--seconds", type=float, default=120, metavar="S", help="after which one hangs [%(default)s]"
    )
    parser.add_argument("--only", metavar="CLASS[:NUMBER]", help="classes are counted from 0")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the broken inputs there")
    wanted = parser.parse_args()
    if not wanted.executable.is_file():
        parser.error(f"--executable {wanted.executable}: no such file")
    return wanted


def cases(wanted: argparse.Namespace) -> list[Case]:
    all_cases = [
        Case(kind, number)
        for kind in CLASSES
        for number in range(0 if kind.needs() else kind.count(wanted.count))
    ]
    if wanted.only is None:
        return all_cases
    kind, _, number = wanted.only.partition(":")
    if number:
        return [Case(CLASSES[int(kind)], int(number))]
    return [case for case in all_cases if case.kind is CLASSES[int(kind)]]


def attempt(case: Case, scene: Scene, wanted: argparse.Namespace) -> Outcome:
    folder = scene.place.folder.with_name(case.label.replace(":", "-"))
    scene = replace(scene, place=scene.place.copy(folder))
    what, verdict = case.kind.meet(scene, random.Random(f"{wanted.seed} {case.kind.name} {case.number}"))
    left = [path for path in folder.rglob(".*") if path.name.startswith(".")]
    if verdict.kind != trial.OTHER and left:
        verdict = trial.Verdict(trial.OTHER, f"left behind: {left[0].name}")
    if wanted.keep is None:
        shutil.rmtree(folder)
    return Outcome(case, what, verdict)


def attempts(scene: Scene, wanted: argparse.Namespace) -> list[Outcome]:
    """As many side by side as there are cores for."""
    outcomes: list[Outcome] = []
    asked = cases(wanted)
    for cores in sorted({case.kind.cores for case in asked}):
        with ThreadPoolExecutor(max(1, wanted.jobs // cores)) as pool:
            now = [case for case in asked if case.kind.cores == cores]
            outcomes += pool.map(lambda case: attempt(case, scene, wanted), now)
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    rows = [list(HEAD)]
    for kind in CLASSES:
        found = Counter(outcome.verdict.kind for outcome in outcomes if outcome.case.kind is kind)
        if found:
            rows.append([kind.name, str(found.total()), *(str(found[word]) for word in HEAD[2:])])
    total = [str(sum(int(row[column]) for row in rows[1:])) for column in range(1, len(HEAD))]
    rows.append(["altogether", *total])
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def main() -> int:
    wanted, begun = arguments(), time.monotonic()
    executable = wanted.executable.resolve()
    os.environ |= trial.SANITIZERS_OF_RANKS | {"COMIGS_EXECUTABLE": str(executable)}
    with tempfile.TemporaryDirectory(prefix="comigs-hostile-") as temporary:
        folder = wanted.keep or Path(temporary)
        good = make(folder / "good", executable)
        scene = Scene(good, executable, wanted.seconds, Undisturbed(good, executable, wanted.seconds))
        outcomes = attempts(scene, wanted)
    others = [outcome for outcome in outcomes if outcome.verdict.kind == trial.OTHER]
    for outcome in others:
        print(
            f"{outcome.case.label} {outcome.case.kind.name}, {outcome.what[:200]}: {outcome.verdict.reason}"
        )
    for kind in CLASSES:
        if kind.needs():
            print(f"left out: {kind.name}: {kind.needs()}")
    sanitized = "with sanitizers" if trial.is_sanitized(wanted.executable) else "without sanitizers"
    print(f"\n{table(outcomes)}\n")
    print(
        f"seed {wanted.seed}, {wanted.executable} ({sanitized}), {time.monotonic() - begun:.0f} s: others = {len(others)}"
    )
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
