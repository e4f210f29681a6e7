"""The commands that odd surroundings meet, what each makes when nothing disturbs it, and where it is run."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import tiny

from . import trial
from .material import Place
from .trial import Ended, Verdict

from tests.helpers.broken_runs import Running, differing  # isort: skip

ROUNDS = 3
RUNS_OF_SEVERAL = ("--rounds", ROUNDS, "--local-steps", 6, "--checkpoint-every", 1)
SHAPE = ("--layers", 2, "--width", 32, "--heads", 2, "--context-tokens", 12, "--batch-sequences", 4)
ON_ONE_CORE = ("--device", "cpu", "--threads", 1)


@dataclass(frozen=True)
class Command:
    """`words` come after the program's name; they put what the command makes into a folder."""

    name: str
    words: Callable[[Place, Path], list[object]]
    module: str = ""
    makes: bool = True  # files; else it only prints


def users(place: Place) -> Path:
    """The data set of the runs of several ranks."""
    return place.folder / "users"


def _train(place: Place, output: Path) -> list[object]:
    return ["train", place.job, "--output", output]


def _train_several(place: Place, output: Path) -> list[object]:
    return [*_train(place, output), "--data", users(place), *RUNS_OF_SEVERAL]


def _pretrain(place: Place, output: Path) -> list[object]:
    data = users(place) if users(place).exists() else place.data
    steps = ("--steps", 2 * ROUNDS, "--evaluate-every", 2)
    return ["pretrain", "--data", data, *SHAPE, *steps, *ON_ONE_CORE, "--output", output]


def _prune(place: Place, output: Path) -> list[object]:
    given = ("--pattern", "zeros=2,of=4", "--calibration-sequences", 4, "--context-tokens", 12)
    return ["prune", "--model", place.base, "--data", place.data, *given, *ON_ONE_CORE, "--output", output]


def _route(place: Place, output: Path) -> list[object]:
    """Writes into a run: a copy of the finished one, unless there is one."""
    if not output.exists():
        shutil.copytree(place.results.parent, output)
    where = ("--model", place.base, "--data", place.data)
    return ["route", output, "--tokens", 24, *where, *ON_ONE_CORE]


def _evaluate(place: Place, _: Path) -> list[object]:
    return ["evaluate", place.results, "--model", place.base, "--data", place.data, *ON_ONE_CORE]


def _prepare_text(place: Place, output: Path) -> list[object]:
    words = []
    for user in ("Alice", "Bob"):
        file = place.folder / f"{user}.jsonl"
        lines = (json.dumps({"text": f"{user} wrote {i} letters in {i * i} days."}) for i in range(60))
        file.write_text("\n".join(lines), encoding="utf-8")
        words += ["--user", f"{user}={file}"]
    return ["text", *words, "--vocabulary", 300, "--output", output]


def _report(place: Place, output: Path) -> list[object]:
    return ["report", place.origin_or_self.results.parent, "--output", output / "page.html"]


TRAIN = Command("train", _train_several)
PRETRAIN = Command("pretrain", _pretrain)
ROUTE = Command("route", _route)
REPORT = Command("analysis report", _report, "analysis")
OF_ONE_PROCESS = (
    Command("train alone", _train),
    PRETRAIN,
    Command("plan", lambda place, output: ["plan", place.job, "--output", output], makes=False),
    Command("prune", _prune),
    ROUTE,
    Command("evaluate", _evaluate, makes=False),
    Command("inspect", lambda place, _: ["inspect", place.results], makes=False),
    Command("methods", lambda *_: ["methods"], makes=False),
    Command("data_prep text", _prepare_text, "data_prep"),
    REPORT,
)


def unlike(one: Path, other: Path) -> list[str]:
    """Names of the files in two folders that are not the same in both; in results, of the arrays."""
    files = {path.relative_to(top) for top in (one, other) for path in top.rglob("*") if path.is_file()}
    return [name for file in sorted(files) for name in _unlike(one / file, other / file)]


def _unlike(one: Path, other: Path) -> list[str]:
    if not (one.exists() and other.exists()):
        return [f"{one.name}: in one only"]
    if one.suffix == ".h5":
        return [name for name in differing(one, other) if name != "/base_model"]  # where the base lies
    return [] if one.read_bytes() == other.read_bytes() else [one.name]


class Undisturbed:
    """What commands make when nothing disturbs them; each is run once."""

    def __init__(self, good: Place, executable: Path, seconds: float) -> None:
        self._good, self._executable, self._seconds = good, executable, seconds
        self._lock = threading.Lock()
        self._made: dict[tuple[str, int], tuple[Path, float]] = {}

    def of(self, command: Command, ranks: int = 1) -> Path:
        return self._of(command, ranks)[0]

    def seconds(self, command: Command, ranks: int) -> float:
        """Of one of the rounds that it tells of."""
        return self._of(command, ranks)[1] / (ROUNDS + 2)

    def _of(self, command: Command, ranks: int) -> tuple[Path, float]:
        with self._lock:
            if (command.name, ranks) not in self._made:
                self._made[command.name, ranks] = self._make(command, ranks)
            return self._made[command.name, ranks]

    def _make(self, command: Command, ranks: int) -> tuple[Path, float]:
        folder = self._good.folder.with_name(f"undisturbed {command.name} {ranks}")
        scene = Scene(self._good.copy(folder), self._executable, self._seconds, self)
        output, begun = scene.place.output, time.monotonic()
        if ranks == 1:
            ended = scene.run(command.words(scene.place, output), command.module)
        else:
            scene.gather(ranks)
            with scene.running(command, ranks) as run:
                ended = scene.end(run)
        if ended.code != 0:
            raise SystemExit(f"{command.name} does not run (exit code {ended.code}):\n{ended.errors}")
        output.mkdir(exist_ok=True)
        return output, time.monotonic() - begun


@dataclass(frozen=True)
class Scene:
    """A copy of the good inputs, and what runs commands on it."""

    place: Place
    executable: Path
    seconds: float  # after which a command hangs
    undisturbed: Undisturbed

    def gather(self, ranks: int) -> None:
        """Makes a data set for so many ranks."""
        data = tiny.data_set(users(self.place), tiny.USERS[:ranks])
        shutil.copy(self.place.data / "tokenizer.json", data)
        tiny.know_tokeniser(data)

    def line(self, words: Sequence[object], module: str = "") -> list[object]:
        return [*([sys.executable, "-m", module] if module else [self.executable]), *words]

    def run(self, words: Sequence[object], module: str = "", before: Sequence[object] = ()) -> Ended:
        """One process, without mpirun. `before`: words in front of the command."""
        limited = not module and not trial.is_sanitized(self.executable)
        return trial.run([*before, *self.line(words, module)], self.place.folder, self.seconds, limited)

    def running(self, command: Command, ranks: int, *more: object, **how: object) -> Running:
        """Several ranks, on their way."""
        return Running(*command.words(self.place, self.place.output), *more, ranks=ranks, **how)

    @staticmethod
    def end(run: Running) -> Ended:
        try:
            done = run.end()
        except subprocess.TimeoutExpired:
            return Ended(None, "", run.output())
        return Ended(done.code, done.errors, done.output)


@dataclass(frozen=True)
class Surroundings:
    """A class of disturbances around a run; `meet` runs a command in one, and says in which and how it ended."""

    name: str
    meet: Callable[[Scene, random.Random], tuple[str, Verdict]]
    cores: int = 1
    needs: Callable[[], str] = str  # what this machine lacks for it

    @staticmethod
    def count(wanted: int) -> int:
        """Fewer than of inputs: each takes seconds."""
        return max(4, wanted // 4)
