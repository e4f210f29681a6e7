"""A run: one data set, one choice of options, one seed. Its folder says whether it is done.

* run.json: what is run: options, job file's settings, digests of data and base; written before it begins
* run.log: what comigs printed
* results.h5, checkpoints: what comigs measured, and where it goes on after an interruption
* ended.json: exit code and seconds; not there while it runs, nor after an interruption
* slurm-job: the job, or task of an array, that was last given the run
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from console.mistakes import JobError
from console.small_files import LARGEST_JOB_FILE, Unreadable, json_of, text_of
from console.whole_file import write_whole
from slurm.script import in_queue

from .held import is_held
from .items import Case
from .process import run_logged
from .removal import remove_run
from .scale import DataSet

FOLDER = Path("runs")
DONE, FAILED, MISSING = "done", "failed", "missing"
BAD_INPUT, INTERRUPTED = 2, 3  # comigs' exit codes
_LONGEST_NAME = 120
_RESULTS = ("results.h5", "checkpoints")
_MARKS = ("run.json", "ended.json")  # of a folder that a sweep made


@dataclass(frozen=True)
class Run:
    """`options`: what the job file does not say already, so that equal runs of different items are one."""

    data_set: DataSet
    options: dict[str, str]
    seed: int

    @property
    def folder(self) -> Path:
        return runs_of(self.data_set) / f"{_slug(self.options)}-seed{self.seed}"

    def command(self, comigs: str) -> list[str]:
        """`comigs train` and its arguments, without what starts the ranks."""
        return [comigs, "train", *self.arguments()]

    def arguments(self) -> list[str]:
        """Those of `comigs train`."""
        words = [str(self.data_set.job_file)]
        if self.data_set.pruning is not None:  # the job file is about the base that was pruned
            words += ["--model", str(self.data_set.base)]
        for name, value in {**self.options, "seed": str(self.seed), "output": str(self.folder)}.items():
            words += [f"--{name.replace('_', '-')}", value]
        return words

    def identity(self) -> dict[str, Any]:
        """All that decides the results. Where the data or the base lies does not."""
        settings = {
            name: value for name, value in self.data_set.settings.items() if name not in ("data", "model")
        }
        manifest = self.data_set.data / "manifest.json"
        weights = sorted(self.data_set.base.glob("*.safetensors"))  # one file, or shards
        base = [self.data_set.base / "config.json", *weights]
        return {
            "options": self.options,
            "seed": self.seed,
            "settings": settings,
            "data": _digest(manifest),
            "base": "+".join(map(_digest, base)),
        }

    def status(self) -> str:
        end = self._end()
        if end is None or self._read("run.json") != self.identity():
            return MISSING
        return DONE if self._is_finished() else FAILED

    def seconds(self) -> float | None:
        """How long it took, once it has ended."""
        end = self._end()
        return end[1] if end else None

    def is_held(self) -> bool:
        """A process writes results there."""
        return is_held(self.folder)

    def is_at_work(self) -> bool:
        """A process writes there, or Slurm has it in its queue."""
        job = self.slurm_job()
        return self.is_held() or (job is not None and in_queue(job))

    def is_unaccounted_for(self) -> bool:
        """Begun by nobody knows whom and not ended: perhaps another machine is at work there."""
        ended = (self.folder / "ended.json").exists()
        begun = any((self.folder / name).exists() for name in ("run.log", "results.h5"))
        return begun and not ended and self.slurm_job() is None

    def slurm_job(self) -> str | None:
        try:
            return text_of(self.folder / "slurm-job", LARGEST_JOB_FILE).strip() or None
        except (OSError, Unreadable):
            return None

    def given_to(self, job: str) -> None:
        write_whole(self.folder / "slurm-job", f"{job}\n".encode())

    def differences(self) -> list[str]:
        """In what a run that is done here, or has checkpoints here, differs from this one."""
        there, here = self._read("run.json"), self.identity()
        has_checkpoints = any(self.folder.glob("checkpoints/*/manifest.json"))
        if there == here or not (self._is_finished() or has_checkpoints):
            return []
        if there.keys() != here.keys() or not isinstance(there["settings"], dict):
            return ["unknown settings (run.json there is damaged or missing)"]
        found = [f"another {name}" for name in here if name != "settings" and there[name] != here[name]]
        old, new = there["settings"], here["settings"]
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                found.append(f"{name} {old.get(name, 'unset')} there, {new.get(name, 'unset')} now")
        return found

    def is_somebody_elses(self) -> bool:
        """Results that no sweep has made: somebody called comigs here."""
        there = {name: os.path.lexists(self.folder / name) for name in _RESULTS + _MARKS}
        return any(there[name] for name in _RESULTS) and not any(there[name] for name in _MARKS)

    def prepare(self) -> None:
        """A folder with run.json, for `--resume auto`. What a run that was stopped or killed has left stays;
        what bad input or another run has left goes, and nothing else. Raises JobError where the folder is in
        use or somebody else's."""
        if self.is_held():
            raise JobError(f"{self.folder}: another process is at work there")
        if self.is_somebody_elses():
            raise JobError(f"{self.folder}: holds results that no sweep has made; move them away")
        end = self._end()
        if (end is None or end[0] not in (0, BAD_INPUT)) and self._read("run.json") == self.identity():
            (self.folder / "ended.json").unlink(missing_ok=True)
            return
        remove_run(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "run.json", self.identity())

    def execute(self, comigs: str, environment: Mapping[str, str], lock: int) -> int:
        """Runs it through mpirun, goes on where it was stopped, and returns the exit code. An interruption
        leaves no ended.json, which otherwise has the seconds since the last start."""
        self.prepare()
        (self.folder / "slurm-job").unlink(missing_ok=True)
        begun = time.monotonic()
        ranks = str(users(self.data_set))
        command = ["mpirun", "-n", ranks, *self.command(comigs), "--resume", "auto"]
        # On SIGTERM mpirun would kill the ranks a second later; SIGUSR1 it hands to them.
        code = run_logged(command, self.folder / "run.log", environment, lock, stop=signal.SIGUSR1)
        seconds = round(time.monotonic() - begun, 1)
        if code == BAD_INPUT and self.is_held():
            raise JobError(f"{self.folder}: another process is at work there")
        if code != INTERRUPTED:
            write_json(self.folder / "ended.json", {"code": code, "seconds": seconds})
        return code

    def _is_finished(self) -> bool:
        end = self._end()
        return end is not None and end[0] == 0 and (self.folder / "results.h5").is_file()

    def _end(self) -> tuple[int, float] | None:
        """Exit code and seconds; None where ended.json does not tell them."""
        ended = self._read("ended.json")
        code: Any = ended.get("code")
        seconds: Any = ended.get("seconds")
        if type(code) is not int or type(seconds) not in (int, float):
            return None
        return (code, seconds) if 0 <= seconds < math.inf else None

    def _read(self, name: str) -> dict[str, Any]:
        """Empty where the file is missing or was being written when the machine went down."""
        try:
            content = json_of(self.folder / name)
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def runs_of(data_set: DataSet) -> Path:
    return FOLDER / data_set.scale / data_set.name


def run_of(case: Case, data_set: DataSet, seed: int) -> Run:
    """Without the options that the job file says for all users alike already."""
    settings = data_set.settings
    by_user = {name.rpartition(".")[2] for name in settings if name.startswith("user.")}
    options = {
        name: value
        for name, value in case.options.items()
        if name == "method" or settings.get(name) != value or name.rpartition(".")[2] in by_user
    }
    return Run(data_set, options, seed)


def users(data_set: DataSet) -> int:
    """As many ranks as the data set has users."""
    manifest = data_set.data / "manifest.json"
    try:
        found = json_of(manifest)["users"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if not found or not isinstance(found, list):
        raise JobError(f"{manifest}: not the manifest of a data set")
    return len(found)


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    write_whole(path, f"{json.dumps(content, indent=1)}\n".encode())


def _slug(options: Mapping[str, str]) -> str:
    """A folder's name in which a reader sees the options; of a long or odd one a digest keeps it unique."""
    method, *others = options.items()
    words = [method[1], *(f"{name.replace('_', '-')}-{value}" for name, value in sorted(others))]
    text = "-".join(words)
    plain = re.sub(r"[^A-Za-z0-9.,+-]", "_", text)
    if plain == text and len(text) <= _LONGEST_NAME:
        return text
    return f"{plain[:_LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _digest(path: Path) -> str:
    try:
        state = path.stat()
    except OSError:
        return "missing"
    return _digest_of(path, state.st_mtime_ns, state.st_size)


@lru_cache
def _digest_of(path: Path, changed: int, size: int) -> str:
    """A base may be large; it is read again only when it has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
