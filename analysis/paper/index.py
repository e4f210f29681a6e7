"""Reads a sweep's index.json: which runs there are, and at which place of which paper item each belongs."""

from __future__ import annotations

import graphlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from analysis.compare import Group
from analysis.results import FILE_NAME, ResultsError, Run, open_run

FORMAT, VERSION = "comigs-sweep-index", 1
# The paper's order and names; other data sets follow under their own names.
DATA_SETS = {"ag_news": "AG News", "multilingual": "Multilingual", "slimpajama": "SlimPajama"}

# What distinguishes a row's alternatives: (option, value) pairs, empty where it has none.
Alternative = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Entry:
    """One run of the sweep, done or not."""

    folder: Path
    dataset: str
    seed: int
    options: Mapping[str, str]
    is_done: bool
    places: tuple[Mapping, ...]

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
        return list(dict.fromkeys(place["item"] for entry in self.entries for place in entry.places))

    def cells(self, item: str, dataset: str | None = None) -> list[Cell]:
        """The item's cells in the index's order, sections kept together; those of one data set if named."""
        cells: dict[tuple[str, str, str], Cell] = {}
        for entry in self.entries:
            for place in entry.places:
                if place["item"] != item or dataset not in (None, entry.dataset):
                    continue
                key = (place.get("section") or "", place["row"], entry.dataset)
                cell = cells.setdefault(key, Cell(*key))
                alternative = tuple((place.get("alternative") or {}).items())
                cell.alternatives.setdefault(alternative, []).append(entry)
        order = _merged(list(cells))
        sections = list(dict.fromkeys(section for section, _ in order))
        return sorted(
            cells.values(), key=lambda cell: (sections.index(cell.section), order[cell.section, cell.row])
        )

    def group(self, label: str, entries: Iterable[Entry]) -> tuple[Group | None, list[str]]:
        """The done runs among the entries, in order of seeds, and why others that say so cannot be read."""
        runs, problems = [], []
        for entry in sorted(entries, key=lambda entry: entry.seed):
            if entry.is_done:
                found = self._open(entry.folder)
                problems += [found] if isinstance(found, str) else []
                runs += [found] if isinstance(found, Run) else []
        return (Group(label, runs) if runs else None), problems

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
        for place, row in enumerate(rows):
            order.add(row, *rows[max(0, place - 1) : place])
    try:
        found = list(order.static_order())
    except graphlib.CycleError:
        found = list(dict.fromkeys(row for rows in by_dataset.values() for row in rows))
    return {row: place for place, row in enumerate(found)}


def data_set_name(dataset: str) -> str:
    return DATA_SETS.get(dataset, dataset)


def data_sets_of(cells: Iterable[Cell | Entry]) -> list[str]:
    """The data sets of cells or runs: the paper's in its order, then others."""
    found = list(dict.fromkeys(cell.dataset for cell in cells))
    return [name for name in DATA_SETS if name in found] + [name for name in found if name not in DATA_SETS]


def read_index(path: Path) -> Index:
    """Reads an index whole. Raises ResultsError where it is not one."""
    if not path.is_file():
        raise ResultsError(f"{path}: no such file (expected the index that python -m jobs.sweep writes)")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultsError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ResultsError(f'{path}: not an index of a sweep (expected "format": "{FORMAT}")')
    if content.get("format_version") != VERSION:
        found = content.get("format_version")
        raise ResultsError(f"{path}: index version {found} found, version {VERSION} expected")
    try:
        entries = [_entry(path.parent, run) for run in content["runs"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(f"{path}: a run lacks what every run has ({error!r})") from error
    return Index(path, str(content.get("scale", "")), entries)


def _entry(folder: Path, run: Mapping) -> Entry:
    options = {str(name).lstrip("-").replace("-", "_"): str(value) for name, value in run["options"].items()}
    places = tuple(run["items"])
    for place in places:
        place["item"], place["row"]
    return Entry(
        folder / run["folder"], run["dataset"], int(run["seed"]), options, run["status"] == "done", places
    )
