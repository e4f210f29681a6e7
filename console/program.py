"""Asks comigs: what a job file says, what a run takes, which methods there are. So nothing of it is written down twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .mistakes import JobError

_BUILT = "build/release/comigs"


@dataclass(frozen=True)
class Answer:
    """`content`: what was printed as JSON, None where nothing was; `errors`: what was said beside it."""

    code: int
    content: Any
    errors: str


def default() -> str:
    """The program where none is named: built here, else installed, else the one that is to be built."""
    return _BUILT if Path(_BUILT).exists() else shutil.which("comigs") or _BUILT


def check(comigs: str) -> None:
    """Raises JobError where the name is no program's."""
    if not Path(comigs).exists():
        how = "cmake --preset release && cmake --build --preset release"
        raise JobError(f"--comigs {comigs}: no such program; '{how}' builds {_BUILT}")
    if not Path(comigs).is_file() or not os.access(comigs, os.X_OK):
        found = "folder" if Path(comigs).is_dir() else "file that cannot be run"
        raise JobError(f"--comigs {comigs}: found a {found}, expected the program")


def ask(comigs: str, *words: str) -> Answer:
    """Raises JobError where the program cannot be run."""
    try:
        done = subprocess.run(
            [comigs, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except OSError as error:
        raise JobError(f"--comigs {comigs}: {error.strerror}, expected the program") from None
    try:
        content = json.loads(done.stdout)
    except ValueError:
        content = None
    return Answer(done.returncode, content, done.stderr.strip().removeprefix("comigs: "))


def plan(comigs: str, arguments: Sequence[str]) -> dict[str, Any]:
    """`comigs plan --json`, also of what does not fit, as its `problems` say. Raises JobError with what comigs says
    where the job is wrong."""
    return _object("plan", ask(comigs, "plan", *arguments, "--json"), may_not_fit=True)


def settings(comigs: str, job_file: Path) -> dict[str, str]:
    """What a job file and those it inherits say, by the options' names: {"data": "texts", "user.1.experts": "3"}.
    Raises JobError with all that is wrong with them."""
    return _object("plan", ask(comigs, "plan", str(job_file), "--settings"))


@lru_cache
def methods(comigs: str) -> dict[str, dict[str, Any]]:
    """The rows of the table of methods by name, in its order (docs/programs.md)."""
    return {row["name"]: row for row in _object("methods", ask(comigs, "methods", "--json"))["methods"]}


def _object(command: str, answer: Answer, may_not_fit: bool = False) -> dict[str, Any]:
    is_object = isinstance(answer.content, dict)
    fits_not = may_not_fit and is_object and bool(answer.content.get("problems"))
    if not is_object or (answer.code != 0 and not fits_not):
        raise JobError(f"comigs {command}: {answer.errors or f'exit code {answer.code}, no JSON'}")
    return answer.content
