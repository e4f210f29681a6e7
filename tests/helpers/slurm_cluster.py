"""The test cluster of slurm/test-cluster.sh, as a person uses it: submit, wait, look."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.built_program import ROOT

SCRIPT = ROOT / "slurm" / "test-cluster.sh"
# Until something counts as hanging: many times what it takes on an idle machine, as test machines are busy.
PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Ended:
    """What Slurm says of a job that has ended. `nodes`: of its last start. `code`: the batch script's."""

    state: str
    code: int
    restarts: int
    nodes: str


class Cluster:
    """`state`: its folder. Jobs see `shared` below /tmp, and the repository."""

    def __init__(self, state: Path, shared: Path) -> None:
        self._state = state
        self._shared = shared
        self.environment = dict(os.environ)

    def start(self) -> None:
        """Skips the tests, and says why, where this machine does not allow such a cluster."""
        done = self.control("start", "--share", str(self._shared))
        if done.returncode == 2:
            pytest.skip(f"NO TEST ON SLURM: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        lines = self.control("env").stdout.splitlines()
        for name, value in (word.split("=", 1) for line in lines for word in shlex.split(line)[1:]):
            self.environment[name] = value

    def stop(self) -> None:
        done = self.control("stop")
        assert done.returncode == 0, done.stderr

    def clear(self, but: str) -> None:
        """No job but one, and all nodes: what a failed test left is not in the way of the next one."""
        numbers = set(self.run("squeue", "--noheader", "--format=%A").split()) - {but}
        if numbers:
            self.run("scancel", *numbers)
            for number in numbers:
                self.wait(number)
        for node in ("n1", "n2"):
            self.control("repair", node)

    def control(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of test-cluster.sh. Its output goes to files: what it starts keeps no pipe open."""
        out, err = (self._shared / f"test-cluster.{name}" for name in ("out", "err"))
        with out.open("w") as output, err.open("w") as errors:
            done = subprocess.run(
                [SCRIPT, *words, "--state", self._state],
                stdin=subprocess.DEVNULL, stdout=output, stderr=errors, timeout=PATIENCE_SECONDS, check=False,
            )  # fmt: skip
        return subprocess.CompletedProcess(done.args, done.returncode, out.read_text(), err.read_text())

    def run(self, *command: object, **variables: str) -> str:
        """Runs a command of Slurm's, or one that calls them, in the repository's root. Returns its output."""
        done = subprocess.run(
            list(map(str, command)), env=self.environment | variables, cwd=ROOT,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, command: Sequence[object], **variables: str) -> str:
        """A command that submits a job; returns the job's number."""
        said = self.run(*command, **variables)
        found = re.search(r"Submitted batch job (\d+)", said)
        assert found is not None, said
        return found[1]

    def records(self, job: str) -> list[dict[str, str]]:
        """Slurm's records of a job: one, or one for each task of an array or component."""
        lines = self.run("scontrol", "show", "job", "--oneliner", job).splitlines()
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines if line]

    def wait(self, job: str) -> list[Ended]:
        """Until nothing of the job runs or waits."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self.run("squeue", "--noheader", "--states=all", "--format=%T", "--jobs", job).split():
            states = {record["JobState"] for record in self.records(job)}
            if states.isdisjoint({"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED"}):
                break
            assert time.monotonic() < until, f"job {job} has not ended: {self.records(job)}"
            time.sleep(0.3)
        return [
            Ended(
                record["JobState"],
                int(record["ExitCode"].partition(":")[0]),
                int(record["Restarts"]),
                record.get("NodeList", ""),
            )
            for record in self.records(job)
        ]

    def wait_for(self, what: str, is_there: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not is_there():
            assert time.monotonic() < until, f"waited {PATIENCE_SECONDS:g} s for {what}"
            time.sleep(0.1)
