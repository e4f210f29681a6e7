"""What happens to runs of several ranks: one freezes, files change under them, nodes are unlike, two share a folder."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .commands import (
    ON_ONE_CORE,
    PRETRAIN,
    REPORT,
    ROUNDS,
    ROUTE,
    TRAIN,
    Command,
    Scene,
    Surroundings,
    unlike,
    users,
)
from .damage import damaged_bytes, damaged_ini, overwritten, truncated
from .trial import (
    CLEAN_REFUSAL,
    CORRECT_RUN,
    NAMED_STOP,
    OTHER,
    REFUSALS,
    Ended,
    Verdict,
    beginning,
    judge,
)

from tests.helpers.broken_runs import Running, compiler, mounted, no_flock, without_notes  # isort: skip

RANKS = 2
PATIENCE_SECONDS = 3
OWNER = ".comigs-owner"
# A line of `train` for each round, of `pretrain` for each evaluation.
PROGRESS = re.compile(r"^(?:step)? *\d+(?:/\d| )", re.MULTILINE)


@dataclass(frozen=True)
class Moment:
    """So many lines of progress after a rank's start, and a part of the time until the next one."""

    lines: int
    part: float

    @classmethod
    def of(cls, source: random.Random) -> Moment:
        return cls(source.randrange(ROUNDS + 1), source.random() ** 2)

    def __str__(self) -> str:
        return f"after {self.lines} lines and {self.part:.2f}"

    def wait(self, run: Running, rank: int, seconds_a_line: float) -> None:
        with suppress(AssertionError):  # it makes no progress: its end tells
            run.wait_until(lambda: rank in run.ranks())
            run.wait_until(lambda: len(PROGRESS.findall(run.output())) >= self.lines)
            until = time.monotonic() + self.part * seconds_a_line
            run.wait_until(lambda: time.monotonic() > until)


def judge_run(
    ended: Ended,
    names: Sequence[str],
    others: Sequence[str] = (),
    codes: Mapping[int, str] = REFUSALS,
    module: str = "",
) -> Verdict:
    """`others`: what a run that ended well has otherwise than the undisturbed one."""
    told = Ended(ended.code, without_notes(ended.errors))
    verdict = judge(
        told, names, beginning(module) if module else "comigs", True, codes
    )  # also: comigs rank 1:
    if verdict.kind == CORRECT_RUN and others:
        return Verdict(OTHER, f"other results: {', '.join(others)[:200]}")
    return verdict


# Frozen ranks -----------------------------------------------------------------------------------------------


def frozen_rank(scene: Scene, source: random.Random) -> tuple[str, Verdict]:
    command, ranks, moment = source.choice((TRAIN, PRETRAIN)), source.randint(2, 4), Moment.of(source)
    rank = source.randrange(ranks)
    scene.gather(ranks)
    seconds = scene.undisturbed.seconds(command, ranks)
    with scene.running(command, ranks, "--patience", PATIENCE_SECONDS) as run:
        moment.wait(run, rank, seconds)
        froze = run.signal(rank, signal.SIGSTOP)
        with suppress(AssertionError):
            run.wait_until(lambda: set(run.ranks()) <= {rank})
        run.signal(rank, signal.SIGCONT)  # the others have left: nobody waits for one that froze at its end
        ended = scene.end(run)
    others = unlike(scene.undisturbed.of(command, ranks), scene.place.output) if ended.code == 0 else ()
    if ended.code == 1:  # who was killed leaves the name of who held the folder
        (scene.place.output / OWNER).unlink(missing_ok=True)
    what = f"{command.name}, {ranks} ranks: rank {rank} {'frozen' if froze else 'gone'} {moment}"
    name = f"rank {rank} ("
    ended = Ended(ended.code, first_naming(name, ended.errors))
    return what, judge_run(ended, [name], others, {1: NAMED_STOP} if froze else {})


def first_naming(name: str, errors: str) -> str:
    """The errors with one message where several ranks tell, one of which names it."""
    lines = errors.splitlines(keepends=True)
    told = [line for line in lines if line.startswith("comigs") and name in line]
    return (
        "".join([*told[:1], *(line for line in lines if not line.startswith("comigs"))]) if told else errors
    )


# Files that change while they are in use --------------------------------------------------------------------

ACTS = ("truncated", "overwritten", "appended", "replaced", "removed", "touched")


def changed_file(scene: Scene, source: random.Random) -> tuple[str, Verdict]:
    """While a run reads it, or between its stop and its resumption."""
    scene.gather(RANKS)
    command = source.choice((TRAIN, TRAIN, PRETRAIN))
    held = ("manifest.json", "tokenizer.json", "base/train.bin", "base/validation.bin")
    files = [users(scene.place) / name for name in held]
    if command is TRAIN:
        files += [
            users(scene.place) / f"user{user}/{split}.bin" for user in (0, 1) for split in ("train", "test")
        ]
        files += [
            scene.place.base / name for name in 3 * ("model.safetensors",) + ("config.json", "tokenizer.json")
        ]
    file, act, moment = source.choice(files), source.choice(ACTS), Moment.of(source)
    is_stopped = source.random() < 0.3
    resuming = ("--resume", "auto") if command is TRAIN else ()
    with scene.running(command, RANKS, *resuming) as run:
        moment.wait(run, 0, scene.undisturbed.seconds(command, RANKS))
        if is_stopped:
            run.signal(0, signal.SIGUSR1)
            ended = scene.end(run)
            change(file, act, source)
        else:
            change(file, act, source)
            ended = scene.end(run)
    what = f"{command.name}: {file.parent.name}/{file.name} {act} {moment}"
    if is_stopped:
        if ended.code not in (0, 3):
            return what, Verdict(OTHER, f"not stopped, exit code {ended.code}: {ended.errors.strip()[-300:]}")
        what += ", stopped and resumed"
        with scene.running(command, RANKS, *resuming) as run:
            ended = scene.end(run)
    return what, judge_run(
        ended, (str(scene.place.folder),), changed(scene, command) if ended.code == 0 else ()
    )


def change(file: Path, act: str, source: random.Random) -> None:
    data = file.read_bytes()
    if act == "truncated":
        os.truncate(file, len(truncated(data, source)))
    elif act == "overwritten":
        with file.open("r+b") as stream:
            stream.write(overwritten(data, source))
    elif act == "appended":
        with file.open("ab") as stream:
            stream.write(source.choice((b"\0", b"\n", data[:64])))
    elif act == "replaced":
        other = file.with_name("other")
        other.write_bytes(damaged_bytes(data, source)[1])
        other.rename(file)
    elif act == "removed":
        file.unlink()
    else:
        os.utime(file)


def changed(scene: Scene, command: Command) -> list[str]:
    """What the run has otherwise than one before the change and one after it: it is wholly of one of them."""
    others = unlike(scene.undisturbed.of(command, RANKS), scene.place.output)
    if not others:
        return []
    disturbed = scene.place.output.rename(scene.place.folder / "disturbed")
    with scene.running(command, RANKS) as run:
        after = scene.end(run)
    return unlike(scene.place.output, disturbed) if after.code == 0 else others


# Unlike nodes -----------------------------------------------------------------------------------------------


def unlike_node(scene: Scene, source: random.Random) -> tuple[str, Verdict]:
    """One rank sees another file where the others see theirs, or the same content in another file."""
    scene.gather(RANKS)
    rank, is_same = source.randrange(RANKS), source.random() < 0.3
    data = [
        users(scene.place) / name for name in ("manifest.json", "tokenizer.json", f"user{rank}/train.bin")
    ]
    base = [scene.place.base / name for name in ("model.safetensors", "config.json", "tokenizer.json")]
    file = source.choice([*data, *base, scene.place.job, scene.executable])
    stale = scene.place.folder / f"stale-{file.name}"
    shutil.copy(file, stale)
    if not is_same:
        stale.write_bytes(another(file, scene, source))
    command = TRAIN
    with scene.running(command, RANKS, of_rank={rank: mounted(stale, file)}) as run:
        ended = scene.end(run)
    others = unlike(scene.undisturbed.of(command, RANKS), scene.place.output) if ended.code == 0 else ()
    names = (str(file), str(file.parent), "config.json", "[", "--")
    verdict = judge_run(ended, names, others)
    if verdict.kind == CLEAN_REFUSAL and f"rank {rank} (" not in ended.errors:
        verdict = Verdict(OTHER, f"does not name the rank: {ended.errors[:300]!r}")
    return f"rank {rank} has {'the same' if is_same else 'another'} {file.name} at its place", verdict


def another(file: Path, scene: Scene, source: random.Random) -> bytes:
    """Content that such a file may have on a node that was not brought up to date."""
    data = file.read_bytes()
    if file == scene.executable:
        printed = scene.run(["--version"]).printed
        commit = re.search(r"\((.*)\)", printed)[1].encode()
        return data.replace(commit, b"0" * len(commit))
    if file == scene.place.job:
        return damaged_ini(data.decode(), source)[1]
    return damaged_bytes(data, source)[1]


# Two at once ------------------------------------------------------------------------------------------------

PAIRS = ((TRAIN, TRAIN), (PRETRAIN, PRETRAIN), (TRAIN, ROUTE), (TRAIN, REPORT))
LOCKS = ("locks work", "locks work", "locks fail", "locks pretend")
TAKEN = ("another run is writing", "taken the folder over")


def two_at_once(scene: Scene, source: random.Random) -> tuple[str, Verdict]:
    """On one folder, the second some time after the first: one writes at a time, and what it writes is whole."""
    scene.gather(RANKS)
    (first, second), locks = source.choice(PAIRS), source.choice(LOCKS)
    resuming = ("--resume", "auto") if first is TRAIN and source.random() < 0.5 else ()
    moment, before = Moment.of(source), locked(scene, locks)
    with scene.running(first, RANKS, *resuming, prefix=before) as run:
        moment.wait(run, 0, scene.undisturbed.seconds(first, RANKS))
        if second in (ROUTE, REPORT):
            ended = [scene.run(reading(second, scene), second.module, before)]
        else:
            with scene.running(second, RANKS, *resuming, prefix=before) as other:
                ended = [scene.end(other)]
        ended.insert(0, scene.end(run))
    others = unlike(scene.undisturbed.of(first, RANKS), scene.place.output)
    if second is ROUTE:
        others = [name for name in others if not name.startswith("tokens/")]
    what = f"{first.name}, {moment} {second.name}, {locks}{', resuming' if resuming else ''}"
    return what, judge_two(ended, scene, others, second.module)


def reading(command: Command, scene: Scene) -> list[object]:
    """The command on the run that goes on."""
    place = scene.place
    if command is REPORT:
        return ["report", place.output, "--output", place.folder / "page.html"]
    return ["route", place.output, "--tokens", 24, *ON_ONE_CORE]


def locked(scene: Scene, locks: str) -> list[str]:
    """Words in front of a command whose locks fail or do nothing."""
    if locks == "locks work":
        return []
    library = no_flock(scene.place.folder)
    return ["env", f"LD_PRELOAD={library}", *(["LOCKS_PRETEND=1"] if locks == "locks pretend" else [])]


def judge_two(ended: list[Ended], scene: Scene, others: Sequence[str], module: str) -> Verdict:
    """The worse one of both; one has to reach the end."""
    names = (str(scene.place.folder),)
    verdicts = [
        judge_run(one, TAKEN if one.code == 1 else names, others, REFUSALS | {1: NAMED_STOP}, of)
        for one, of in zip(ended, ("", module), strict=True)
    ]
    kinds = [verdict.kind for verdict in verdicts]
    if OTHER not in kinds and CORRECT_RUN not in kinds:
        return Verdict(OTHER, f"none of both reached its end: {ended[0].errors[:200]!r}")
    return max(
        verdicts, key=lambda verdict: (CORRECT_RUN, CLEAN_REFUSAL, NAMED_STOP, OTHER).index(verdict.kind)
    )


def needs_compiler() -> str:
    return "" if compiler() else "a C compiler is needed for locks that fail"


def needs_root() -> str:
    return "" if os.geteuid() == 0 else "a file system of one rank's own needs root"


CLASSES = (
    Surroundings("frozen ranks", frozen_rank, cores=2),
    Surroundings("files that change", changed_file, cores=2),
    Surroundings("unlike nodes", unlike_node, cores=2, needs=needs_root),
    Surroundings("two at once", two_at_once, cores=2, needs=needs_compiler),
)
