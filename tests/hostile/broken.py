"""A broken input, and a class of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import trial
from .commands import Scene
from .material import Place


@dataclass
class Broken:
    """What was done, the command that meets it, and what a message about it must name (one of these)."""

    what: str
    command: list[object]  # after the program's name
    names: Sequence[str]
    may_run: bool = True  # False: where running at all would be wrong


@dataclass(frozen=True)
class InputClass:
    name: str
    make: Callable[[Place, random.Random], Broken]
    module: str = ""  # of Python, where it is not the program itself that reads the input
    cores = 1
    needs = str  # nothing

    @staticmethod
    def count(wanted: int) -> int:
        return wanted

    def meet(self, scene: Scene, source: random.Random) -> tuple[str, trial.Verdict]:
        """Breaks an input and runs the command on it; returns what was broken, and how that ended."""
        broken = self.make(scene.place, source)
        ended = scene.run(broken.command, self.module)
        beginning = trial.beginning(self.module)
        return broken.what, trial.judge(ended, broken.names, beginning, broken.may_run)
