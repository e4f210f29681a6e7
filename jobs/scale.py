"""What a scale says about a data set: its job file, and how its text and its base model are made."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from console import program
from console.mistakes import JobError, check_known

from .ini import read_ini

FOLDER = Path("jobs/datasets")
PAPER = "paper"
# How the papers' bases are had, by the folder that job files name.
_HINTS = {
    "gpt2": "the paper's: hf download openai-community/gpt2 --local-dir gpt2",
    "llama-7b": "the paper's: hf download huggyllama/llama-7b --local-dir llama-7b",
}


@dataclass(frozen=True)
class Pruning:
    """Of which base `comigs prune` makes another one, and by what arguments."""

    base: Path
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class DataSet:
    """`settings`: what the job file and those it inherits say, by the name of the option."""

    name: str
    scale: str
    job_file: Path
    settings: dict[str, str]
    data_arguments: tuple[str, ...]  # of `python -m data_prep`
    base_from: (
        Path | str | None
    )  # a file of `comigs pretrain`, a name that `data_prep base` knows; None: neither
    pruning: Pruning | None = None

    @property
    def data(self) -> Path:
        return Path(self.settings["data"])

    @property
    def base(self) -> Path:
        return Path(self.settings["model"])

    @property
    def dense(self) -> Path:
        """The base before it is pruned."""
        return self.base if self.pruning is None else self.pruning.base

    def preparation(self, python: str, comigs: str, replace: bool = False) -> list[tuple[str, list[str]]]:
        """What makes "data" and "base", in order: a base from elsewhere first, as its tokeniser makes the data. Then
        "pruned", of the base; with `replace` also where another one was pruned there. Each finds for itself what is
        there already, and refuses what was made otherwise."""
        steps = self._dense_preparation(python, comigs)
        if self.pruning is not None:
            folders = ["--model", str(self.dense), "--data", str(self.data), "--output", str(self.base)]
            words = [*folders, *self.pruning.arguments, *(["--replace"] if replace else [])]
            steps.append(("pruned", [comigs, "prune", *words]))
        return steps

    def _dense_preparation(self, python: str, comigs: str) -> list[tuple[str, list[str]]]:
        data = ("data", [python, "-m", "data_prep", *self.data_arguments, "--output", str(self.data)])
        if isinstance(self.base_from, str):
            words = [python, "-m", "data_prep", "base", self.base_from, "--output", str(self.dense)]
            return [("base", words), data]
        if self.base_from is None:
            return [data]
        # Two ranks where there are two cores: the same weights to rounding, in less time.
        ranks = str(min(2, len(os.sched_getaffinity(0))))
        folders = ["--data", str(self.data), "--output", str(self.dense)]
        return [data, ("base", ["mpirun", "-n", ranks, comigs, "pretrain", str(self.base_from), *folders])]

    def check_base(self) -> None:
        """A base that is not made here must be there before anything else begins."""
        if self.base_from is None and not _is_base(self.dense):
            raise JobError(
                f"{self.dense}: no base model there, expected a Hugging Face folder (config.json,"
                f" model.safetensors, tokenizer.json); {_HINTS.get(self.dense.name, _HINTS['gpt2'])}"
            )


def _is_base(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def folder_of(scale: str) -> Path:
    """Raises JobError for an unknown scale."""
    scales = [PAPER, *(path.name for path in FOLDER.iterdir() if (path / "prepare.ini").is_file())]
    check_known("scale", scale, scales)
    return FOLDER if scale == PAPER else FOLDER / scale


def data_sets(scale: str) -> list[str]:
    """The names of its data sets, in file order."""
    return list(read_ini(folder_of(scale) / "prepare.ini"))


def data_set(scale: str, name: str, sources: dict[str, str], comigs: str) -> DataSet:
    """`sources`: for some data sets, the folder or file that takes the place of what --source says. `comigs`: the
    program, which reads the job file."""
    folder = folder_of(scale)
    check_known(f"data set of scale '{scale}'", name, data_sets(scale))
    prepare_file = folder / "prepare.ini"
    preparation = read_ini(prepare_file)[name]
    if "of" in preparation:
        return _pruned(prepare_file, name, preparation, lambda other: data_set(scale, other, sources, comigs))
    if not preparation.get("data") or not set(preparation) <= {"data", "base"}:
        found = ", ".join(preparation) or "nothing"
        raise JobError(f"{prepare_file}: [{name}] has {found}; expected data, and perhaps base")
    job_file = folder / f"{name}.ini"
    settings = program.settings(comigs, job_file)
    for section in ("data", "model"):
        if not settings.get(section):
            raise JobError(f"{job_file}: no 'folder' in [{section}], neither there nor in what it inherits")
    arguments = _words(prepare_file, name, "data", preparation["data"])
    if name in sources:
        arguments = _with_source(arguments, sources[name])
    base = preparation.get("base")
    base_from = folder / base if base is not None and base.endswith(".ini") else base
    return DataSet(name, scale, job_file, settings, tuple(arguments), base_from)


def _words(file: Path, name: str, key: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        reason = str(error).lower()
        raise JobError(f"{file}: [{name}] {key}: {reason}, expected words as in a shell") from None


def _pruned(file: Path, name: str, preparation: dict[str, str], other: Callable[[str], DataSet]) -> DataSet:
    """Another data set with its base pruned: the same data, job file and settings."""
    if set(preparation) != {"of", "prune"}:
        raise JobError(f"{file}: [{name}] has {', '.join(preparation)}; expected of and prune, or data")
    with_data = [other_name for other_name, keys in read_ini(file).items() if "data" in keys]
    check_known(f"data set of its own, for [{name}] of {file},", preparation["of"], with_data)
    dense = other(preparation["of"])
    base = dense.data.parent / f"{name}-base"
    arguments = _words(file, name, "prune", preparation["prune"])
    return replace(
        dense,
        name=name,
        settings={**dense.settings, "model": str(base)},
        pruning=Pruning(dense.base, tuple(arguments)),
    )


def _with_source(arguments: list[str], source: str) -> list[str]:
    """The arguments with another value after --source, however many it had."""
    begin = arguments.index("--source") if "--source" in arguments else len(arguments)
    end = begin + 1
    while end < len(arguments) and not arguments[end].startswith("--"):
        end += 1
    return [*arguments[:begin], "--source", source, *arguments[end:]]
