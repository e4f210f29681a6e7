"""Says which run it is, how long all of it has taken and may still take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import mean

from .process import last_line
from .runs import DONE, INTERRUPTED, Run


class Progress:
    """Counts all runs asked for, also those that are done already."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.failed: list[tuple[Run, str]] = []  # with what to say of each at the end
        self._runs = runs
        self._begun = time.monotonic()

    def elapsed(self) -> str:
        return _duration(time.monotonic() - self._begun)

    def begins(self, run: Run) -> None:
        number = self._runs.index(run) + 1
        times = f"{self.elapsed()} elapsed, {self._left(number - 1)}"
        print(f"run {number}/{len(self._runs)}  {run.folder}  ({times})", flush=True)

    def at_work(self, run: Run) -> None:
        self.failed.append((run, "another process is at work there, or it is in Slurm's queue"))

    def ended(self, run: Run, code: int) -> None:
        took = _duration(run.seconds() or 0.0)
        if run.status() == DONE:
            print(f"    done in {took}", flush=True)
        elif code == INTERRUPTED:
            self.failed.append((run, "interrupted; the same command goes on with it"))
            print("    interrupted", flush=True)
        else:
            self.failed.append((run, "see run.log there"))
            said = last_line(run.folder / "run.log") if code else "no results.h5"
            print(f"    failed after {took} with exit code {code}: {said}", flush=True)

    def _left(self, begin: int) -> str:
        """From the mean of the runs on the same data set, where there is one yet, else of all."""
        known: dict[str, list[float]] = {}
        for run in self._runs:
            if run.status() == DONE and (seconds := run.seconds()) is not None:
                known.setdefault(run.data_set.name, []).append(seconds)
        if not known:
            return "time left not known yet"
        means = {name: mean(there) for name, there in known.items()}
        overall = mean(seconds for there in known.values() for seconds in there)
        left = [run for run in self._runs[begin:] if run.status() != DONE]
        return f"about {_duration(sum(means.get(run.data_set.name, overall) for run in left))} left"


def _duration(seconds: float) -> str:
    """h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
