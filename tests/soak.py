"""Runs that are disturbed at random moments, from their first one to their last, one after another.

Killed (SIGKILL of a random rank): resumed until they end, with the results of the unbroken run, bit for bit, and no
round lost that was reported as done. Frozen (SIGSTOP of a random rank): the others leave with exit code 1, and name it,
within the patience and ten seconds. Suspended (SIGSTOP of all ranks, for longer than the patience, each at a moment of
its own; then SIGCONT): go on to the same results. Prints a line a run and a closing line for each kind; exit code 0
only if all was so.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.broken_runs import Running, arguments, contents, differing, finish, rounds_in, rounds_told
from tests.helpers.tiny import Done, data_set, gpt2_folder

RANKS, ROUNDS, MOST_KILLS_A_RUN = 4, 8, 6
SECONDS_A_ROUND = 0.3
PATIENCE_SECONDS, SECONDS_TO_LEAVE = 3, 10
OPTIONS = (
    "--rounds",
    ROUNDS,
    "--local-steps",
    30,
    "--router-every",
    7,
    "--router-steps",
    2,
    "--batch-sequences",
    4,
)
OPTIONS += ("--context-tokens", 12, "--experts", "4,2,1,1", "--method", "comigs-1gxs", "--resume", "auto")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/soak.sh", description=__doc__)
    for kind in ("kills", "freezes", "suspensions"):
        parser.add_argument(f"--{kind}", type=int, default=None, metavar="N", help=f"{kind} in all")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random moments (default: 0)")
    options = parser.parse_args()
    if options.kills is options.freezes is options.suspensions is None:
        options.kills, options.freezes, options.suspensions = 100, 100, 50
    with tempfile.TemporaryDirectory(prefix="comigs-soak-") as folder:
        soak = Soak(Path(folder), random.Random(options.seed))
        wanted = (
            (soak.kill, options.kills),
            (soak.freeze, options.freezes),
            (soak.suspend, options.suspensions),
        )
        return 0 if all([disturb(count) for disturb, count in wanted if count]) else 1


class Soak:
    """Each method disturbs so many times and says whether all went as it should."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        data, base = data_set(folder / "data"), gpt2_folder(folder / "base")
        self._given = ("--data", data, "--model", base, *OPTIONS)
        self._unbroken, self._output, self._chance = folder / "unbroken", folder / "broken", chance
        begun = time.monotonic()
        finish(arguments(*self._given, "--output", self._unbroken))
        self._seconds_of_run = time.monotonic() - begun

    def kill(self, kills: int) -> bool:
        begun = time.monotonic()
        done = runs = equal = lost = 0
        while done < kills:
            command = self._command()
            killed, lost_here = self._kill_until_done(command, min(kills - done, MOST_KILLS_A_RUN))
            finish(command)
            done, runs, lost = done + killed, runs + 1, lost + lost_here
            unlike = self._differing()
            equal += not unlike
            print(
                f"run {runs}: {killed} kills, {done} of {kills} in all: {', '.join(unlike) or 'equal'}",
                flush=True,
            )
        arrays = len(contents(self._unbroken / "results.h5"))
        print(
            f"soak: {done} kills in {runs} runs, {equal} of {runs} runs equal to the unbroken one in all {arrays} "
            f"arrays and attributes, {lost} reported rounds lost, {time.monotonic() - begun:.0f} s"
        )
        return equal == runs and lost == 0

    def freeze(self, freezes: int) -> bool:
        begun = time.monotonic()
        met = named = late = well_ended = 0
        longest = 0.0
        while met < freezes:
            rank = self._chance.randrange(RANKS)
            with Running(*self._command("--patience", PATIENCE_SECONDS), ranks=RANKS) as run:
                moment = self._wait_for_a_moment(run)
                frozen = time.monotonic()
                if not run.signal(rank, signal.SIGSTOP):
                    continue
                if self._is_left_alone(run, rank):
                    late += 1
                    run.signal(rank, signal.SIGCONT)
                    well_ended += end_of(run).code == 0 and not self._differing()
                    continue
                done = end_of(run)
            seconds = time.monotonic() - frozen
            met, longest = met + 1, max(longest, seconds)
            well = is_named(rank, done) and seconds <= PATIENCE_SECONDS + SECONDS_TO_LEAVE
            named += well
            said = done.errors.strip().replace("\n", " | ")
            print(
                f"freeze {met}: rank {rank} after {moment:.2f} s: "
                f"{'named' if well else f'NOT NAMED, code {done.code}: {said}'}, {seconds:.1f} s",
                flush=True,
            )
        print(
            f"soak: {met} freezes, {named} named with exit code 1 within {PATIENCE_SECONDS} + {SECONDS_TO_LEAVE} s, "
            f"the slowest after {longest:.1f} s, {time.monotonic() - begun:.0f} s; {late} more froze when all others "
            f"had left, {well_ended} of them with all results"
        )
        return named == met and well_ended == late

    def suspend(self, suspensions: int) -> bool:
        begun = time.monotonic()
        met = equal = 0
        while met < suspensions:
            with Running(*self._command("--patience", PATIENCE_SECONDS), ranks=RANKS) as run:
                moment = self._wait_for_a_moment(run)
                if not self._signal_all(run, signal.SIGSTOP):
                    continue
                time.sleep(self._chance.uniform(1, 2) * PATIENCE_SECONDS)
                self._signal_all(run, signal.SIGCONT)
                done = end_of(run)
            unlike = self._differing() if done.code == 0 else [f"code {done.code}: {done.errors.strip()}"]
            met, equal = met + 1, equal + (not unlike)
            print(f"suspension {met}: after {moment:.2f} s: {', '.join(unlike) or 'equal'}", flush=True)
        print(f"soak: {met} suspensions, {equal} runs ended equal, {time.monotonic() - begun:.0f} s")
        return equal == met

    @staticmethod
    def _is_left_alone(run: Running, rank: int) -> bool:
        """Whether the others leave and it does not: the work is done, and nobody waits for it but mpirun."""
        until = time.monotonic() + PATIENCE_SECONDS + SECONDS_TO_LEAVE
        while time.monotonic() < until and not run.is_over():
            if run.ranks().keys() == {rank}:
                time.sleep(3)  # mpirun ends it too where one of them has failed
                return run.ranks().keys() == {rank} and not run.is_over()
            time.sleep(0.05)
        return False

    def _command(self, *more: object) -> list[object]:
        shutil.rmtree(self._output, ignore_errors=True)
        return arguments(*self._given, "--output", self._output, *more)

    def _differing(self) -> list[str]:
        return differing(self._unbroken / "results.h5", self._output / "results.h5")

    def _wait_for_a_moment(self, run: Running) -> float:
        """Any one between the ranks' start and their end; they start a moment after mpirun."""
        run.wait_until(lambda: len(run.ranks()) == RANKS)
        seconds = self._chance.uniform(0, self._seconds_of_run)
        moment = time.monotonic() + seconds
        run.wait_until(lambda: time.monotonic() > moment)
        return seconds

    def _signal_all(self, run: Running, number: signal.Signals) -> bool:
        there = False
        for rank in self._chance.sample(range(RANKS), RANKS):
            there = run.signal(rank, number) or there
            time.sleep(self._chance.uniform(0, 0.1))
        return there

    def _kill_until_done(self, command: list[object], most: int) -> tuple[int, int]:
        """How many kills met a run that was still on its way, and how many rounds that were told are not there."""
        killed = lost = 0
        while killed < most:
            with Running(*command, ranks=RANKS) as run:
                # Moments follow the run's own progress, not the clock: a busy machine is slower.
                run.wait_until(lambda run=run: len(run.ranks()) == RANKS)
                run.wait_for_round(self._chance.randrange(-1, ROUNDS))
                moment = time.monotonic() + self._chance.uniform(0, SECONDS_A_ROUND)
                run.wait_until(lambda moment=moment: time.monotonic() > moment)
                met = run.signal(self._chance.randrange(RANKS), signal.SIGKILL)
                told = rounds_told(run.end().output)
            results = self._output / "results.h5"
            lost += max(0, told - (rounds_in(results) if results.exists() else -1))
            if not met:
                break
            killed += 1
        return killed, lost


def end_of(run: Running) -> Done:
    try:
        return run.end()
    except subprocess.TimeoutExpired:
        return Done(-1, run.output(), "hangs", "")


def is_named(rank: int, done: Done) -> bool:
    return done.code == 1 and f"rank {rank} (user" in done.errors


if __name__ == "__main__":
    sys.exit(main())
