"""Reads a sweep's index.json: which runs there are, and at which place of which paper item each belongs."""

from __future__ import annotations

import graphlib
import os
import re
import reprlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from analysis.read.results import ResultsError, open_run
from analysis.read.run import FILE_NAME, Run
from console.small_files import Unreadable, json_of

FORMAT, VERSION = "comigs-sweep-index", 1
# The paper's order and names; other data sets follow under their own names.
DATA_SETS = {"ag_news": "AG News", "multilingual": "Multilingual", "slimpajama": "SlimPajama"}

# Instruction data on bases of which this is zero (jobs/mop): never "3:4", which some read as zeros and others as kept.
BASES = {
    "instructions": "dense",
    "instructions-75": "75 % zeros",
    "instructions-85": "85 % zeros",
    "instructions-90": "90 % zeros",
    "instructions-2of4": "2 zeros of 4",
    "instructions-4of8": "4 zeros of 8",
    "instructions-3of4": "3 zeros of 4",
    "instructions-7of8": "7 zeros of 8",
}
_NAMES = DATA_SETS | BASES

# Data sets and scales are parts of files' names.
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

# What distinguishes a row's alternatives: (option, value) pairs, empty where it has none.
Alternative = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Place:
    """Where a run belongs: one of a paper item's rows, and which of the row's alternatives it is."""

    item: str
    row: str
    section: str
    alternative: Alternative


@dataclass(frozen=True)
class Entry:
    """One run of the sweep, done or not."""

    folder: Path
    dataset: str
    seed: int
    options: Mapping[str, str]
    is_done: bool
    places: tuple[Place, ...]

    @property
    def method(self) -> str:
        return self.options.get("method", "")


@dataclass
class Cell:
    """The runs of one row on one data set, by alternative."""

    section: str
    row: str
    dataset: str
    alternatives: dict[Alternative, list[Entry]] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return next(iter(self.alternatives.values()))[0].method


class Index:
    """A sweep's runs; opens each results file once."""

    def __init__(self, path: Path, scale: str, entries: list[Entry]) -> None:
        self.path, self.scale, self.entries = path, scale, entries
        self._opened: dict[Path, Run | str] = {}

    @cached_property
    def items(self) -> list[str]:
        return list(dict.fromkeys(place.item for entry in self.entries for place in entry.places))

    def cells(self, item: str, datasets: Collection[str] = ()) -> list[Cell]:
        """The item's cells in the index's order, of these data sets or, with none, of all.

        Sections are kept together; rows without one come first, where no other section's heading has them.
        """
        cells: dict[tuple[str, str, str], Cell] = {}
        for entry in self.entries:
            for place in entry.places:
                if place.item != item or (datasets and entry.dataset not in datasets):
                    continue
                key = (place.section, place.row, entry.dataset)
                cell = cells.setdefault(key, Cell(*key))
                cell.alternatives.setdefault(place.alternative, []).append(entry)
        order = _merged(list(cells))
        sections = sorted(dict.fromkeys(section for section, _ in order), key=bool)
        return sorted(
            cells.values(), key=lambda cell: (sections.index(cell.section), order[cell.section, cell.row])
        )

    def runs(self, entries: Iterable[Entry]) -> tuple[list[Run], list[str]]:
        """The done runs among the entries, in order of seeds, and why others that say so cannot be read."""
        runs, problems = [], []
        for entry in sorted(entries, key=lambda entry: entry.seed):
            if entry.is_done:
                found = self._open(entry.folder)
                problems += [found] if isinstance(found, str) else []
                runs += [found] if isinstance(found, Run) else []
        return runs, problems

    def _open(self, folder: Path) -> Run | str:
        if folder not in self._opened:
            try:
                self._opened[folder] = open_run(folder / FILE_NAME)
            except ResultsError as error:
                self._opened[folder] = f"{error} though the index calls the run done"
        return self._opened[folder]


def _merged(keys: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str], int]:
    """Places of (section, row) in an order that is every data set's own, where there is one."""
    by_dataset: dict[str, list[tuple[str, str]]] = {}
    for section, row, dataset in keys:
        by_dataset.setdefault(dataset, []).append((section, row))
    order: graphlib.TopologicalSorter[tuple[str, str]] = graphlib.TopologicalSorter()
    for rows in by_dataset.values():
        for place, here in enumerate(rows):
            order.add(here, *rows[max(0, place - 1) : place])
    try:
        found = list(order.static_order())
    except graphlib.CycleError:
        found = list(dict.fromkeys(row for rows in by_dataset.values() for row in rows))
    return {row: place for place, row in enumerate(found)}


def data_set_name(dataset: str) -> str:
    return _NAMES.get(dataset, dataset)


def data_sets_of(cells: Iterable[Cell | Entry]) -> list[str]:
    """The data sets of cells or runs: the papers' in their order, then others."""
    found = list(dict.fromkeys(cell.dataset for cell in cells))
    return [name for name in _NAMES if name in found] + [name for name in found if name not in _NAMES]


def read_index(path: Path) -> Index:
    """Reads an index whole. Raises ResultsError where it is not one."""
    if not path.is_file():
        raise ResultsError(f"{path}: no such file (expected the index that python -m jobs.sweep writes)")
    try:
        content = json_of(path)
    except Unreadable as error:
        raise ResultsError(f"{path}: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ResultsError(f'{path}: not an index of a sweep (expected "format": "{FORMAT}")')
    version = content.get("format_version")
    if version != VERSION:
        raise ResultsError(f"{path}: index version {reprlib.repr(version)} found, version {VERSION} expected")
    whole = _Record(str(path), content)
    entries = [_entry(path.parent, run) for run in whole.records("runs")]
    _refuse_twice(path, entries)
    return Index(path, whole.name("scale"), entries)


def _entry(folder: Path, run: _Record) -> Entry:
    options = {name.lstrip("-").replace("-", "_"): value for name, value in run.settings("options").items()}
    places = [
        Place(
            place.text("item"),
            place.text("row"),
            place.text("section", ""),
            tuple(place.settings("alternative", {}).items()),
        )
        for place in run.records("items")
    ]
    return Entry(
        folder / run.path("folder"),
        run.name("dataset"),
        run.whole_number("seed"),
        options,
        run.text("status") == "done",
        tuple(dict.fromkeys(places)),
    )


class _Record:
    """An object of the index whose fields must have their types; `where` is its place, for messages."""

    def __init__(self, where: str, content: object) -> None:
        self._where = where
        if not isinstance(content, dict):
            raise self._wrong(content, "an object")
        self._content = content

    def text(self, name: str, default: str | None = None) -> str:
        value = self._get(name, default)
        if isinstance(value, str) and _is_text(value) and (value.strip() or value == default):
            return value
        raise self._wrong(value, "printable text", name)

    def name(self, name: str) -> str:
        value = self._get(name)
        if isinstance(value, str) and NAME.fullmatch(value):
            return value
        raise self._wrong(value, "at most 64 letters, digits or any of _ . -", name)

    def path(self, name: str) -> str:
        """A path below the folder of the index: one from elsewhere must not lead us to other files."""
        value = self.text(name)
        if os.path.normpath(value).startswith(("/", "..")):
            raise self._wrong(value, "a folder below the index", name)
        return value

    def whole_number(self, name: str) -> int:
        value = self._get(name)
        if type(value) is int:
            return value
        raise self._wrong(value, "a whole number", name)

    def settings(self, name: str, default: dict | None = None) -> dict[str, str]:
        """Options and their values, which are text or numbers."""
        value = self._get(name, default)
        if not isinstance(value, dict):
            raise self._wrong(value, "an object", name)
        for option, setting in value.items():
            if not _is_text(option) or not (_is_text(setting) or type(setting) in (int, float)):
                raise self._wrong({option: setting}, "options with text or numbers", name)
        return {option: str(setting) for option, setting in value.items()}

    def records(self, name: str) -> list[_Record]:
        value = self._get(name)
        if not isinstance(value, list):
            raise self._wrong(value, "a list", name)
        return [_Record(f"{self._where}: {name}[{number}]", one) for number, one in enumerate(value)]

    def _get(self, name: str, default: object = None) -> object:
        """The field as it is; without a default it must be there."""
        if name not in self._content and default is None:
            raise ResultsError(f"{self._where} lacks '{name}'")
        return self._content.get(name, default)

    def _wrong(self, found: object, expected: str, name: str = "") -> ResultsError:
        place = f"{self._where}, '{name}'" if name else self._where
        return ResultsError(f"{place}: {reprlib.repr(found)} found, {expected} expected")


def _is_text(value: object) -> bool:
    """Whether every output can hold it in one line: no control characters, no lone surrogates."""
    return isinstance(value, str) and value.isprintable()


def _refuse_twice(path: Path, entries: list[Entry]) -> None:
    """A run that is listed twice would count as two seeds, as would two runs of a seed at one place."""
    folders: dict[str, int] = {}
    seeds: dict[tuple[Place, str, int], int] = {}
    for number, entry in enumerate(entries):
        first = folders.setdefault(os.path.realpath(entry.folder), number)
        if first != number:
            raise ResultsError(f"{path}: runs[{number}] has the folder of runs[{first}] (expected one a run)")
        for place in entry.places:
            first = seeds.setdefault((place, entry.dataset, entry.seed), number)
            if first != number:
                raise ResultsError(
                    f"{path}: runs[{number}] is of seed {entry.seed} for {place.item}'s row '{place.row}' on "
                    f"{entry.dataset}, as runs[{first}] is (expected one run a seed)"
                )
