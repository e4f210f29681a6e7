"""Runs that are killed (SIGKILL of a random rank at a random moment) and resumed until they end, one after another.

Each must end with the results of the unbroken run, bit for bit, and lose no round that was reported as done.
Prints a line a kill and one closing line; exit code 0 only if all runs are equal.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "python"))

from broken_runs import Running, arguments, contents, differing, finish, rounds_in, rounds_told  # noqa: E402
from tiny import data_set, gpt2_folder  # noqa: E402

RANKS, ROUNDS, MOST_KILLS_A_RUN = 4, 8, 6
SECONDS_A_ROUND = 0.3
OPTIONS = ("--rounds", ROUNDS, "--local-steps", 30, "--router-every", 7, "--router-steps", 2, "--batch-sequences", 4)
OPTIONS += ("--context-tokens", 12, "--experts", "4,2,1,1", "--method", "comigs-1gxs", "--resume", "auto")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/soak.sh", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="kills in all (default: 100)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random moments (default: 0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="comigs-soak-") as folder:
        return soak(Path(folder), options.kills, random.Random(options.seed))


def soak(folder: Path, kills: int, chance: random.Random) -> int:
    given = ("--data", data_set(folder / "data"), "--model", gpt2_folder(folder / "base"), *OPTIONS)
    unbroken = folder / "unbroken"
    begun = time.monotonic()
    finish(arguments(*given, "--output", unbroken))
    done = runs = equal = lost = 0
    while done < kills:
        output = folder / "broken"
        command = arguments(*given, "--output", output)
        killed, lost_here = kill_until_done(command, output, min(kills - done, MOST_KILLS_A_RUN), chance)
        finish(command)
        unlike = differing(unbroken / "results.h5", output / "results.h5")
        done, runs, lost = done + killed, runs + 1, lost + lost_here
        equal += not unlike
        print(f"run {runs}: {killed} kills, {done} of {kills} in all: {', '.join(unlike) or 'equal'}", flush=True)
        shutil.rmtree(output)
    arrays = len(contents(unbroken / "results.h5"))
    print(
        f"soak: {done} kills in {runs} runs, {equal} of {runs} runs equal to the unbroken one in all {arrays} arrays "
        f"and attributes, {lost} reported rounds lost, {time.monotonic() - begun:.0f} s"
    )
    return 0 if equal == runs and lost == 0 else 1


def kill_until_done(
    command: list[object], output: Path, most: int, chance: random.Random
) -> tuple[int, int]:
    """How many kills met a run that was still on its way, and how many rounds that were told are not in the file."""
    killed = lost = 0
    while killed < most:
        with Running(*command, ranks=RANKS) as run:
            # Moments follow the run's own progress, not the clock: a busy machine is slower.
            run.wait_until(lambda run=run: len(run.ranks()) == RANKS)
            run.wait_for_round(chance.randrange(-1, ROUNDS))
            moment = time.monotonic() + chance.uniform(0, SECONDS_A_ROUND)
            run.wait_until(lambda moment=moment: time.monotonic() > moment)
            met = run.signal(chance.randrange(RANKS), signal.SIGKILL)
            told = rounds_told(run.end().output)
        results = output / "results.h5"
        lost += max(0, told - (rounds_in(results) if results.exists() else -1))
        if not met:
            break
        killed += 1
    return killed, lost


if __name__ == "__main__":
    sys.exit(main())
