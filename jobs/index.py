"""runs/<scale>/index.json: which runs there are, how they ended, to which rows of which items they belong."""

from __future__ import annotations

import graphlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from console.mistakes import JobError

from .items import Case, Item, cases
from .runs import FOLDER, MISSING, Run, run_of, runs_of, write_json
from .scale import DataSet

FORMAT, FORMAT_VERSION = "comigs-sweep-index", 1


def write_index(
    scale: str, items: Sequence[Item], data_sets: Iterable[DataSet], asked: Collection[Path]
) -> Path:
    """Lists all runs of the scale that have a folder, and those asked for: so an item finds the runs that
    were made for another one."""
    path = FOLDER / scale / "index.json"
    runs = []
    for data_set in data_sets:
        home = runs_of(data_set)
        folders = {*asked, *(home.iterdir() if home.is_dir() else ())}
        seeds = sorted({seed for folder in folders if (seed := _seed(folder, home)) is not None})
        for places in _merged([cases(item, data_set.name) for item in items], data_set):
            for seed in seeds:
                run = run_of(places[0], data_set, seed)
                if run.folder in folders:
                    runs.append(_entry(run, places, path.parent))
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, "scale": scale, "runs": runs}
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_is_index(path)
    write_json(path, content)
    return path


def _check_is_index(path: Path) -> None:
    """Another file of that name must not be lost."""
    if not os.path.lexists(path):
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != FORMAT:
        raise JobError(f"{path}: found something else, expected the index of a sweep; move it away")


def _merged(columns: Sequence[Sequence[Case]], data_set: DataSet) -> list[list[Case]]:
    """The cases that are one run together, in an order that is every item's file order; where two items want
    opposite orders, in that in which items name the runs first."""
    places: dict[Path, list[Case]] = {}
    order: graphlib.TopologicalSorter[Path] = graphlib.TopologicalSorter()
    for column in columns:
        folders = [run_of(case, data_set, 0).folder for case in column]
        for case, folder in zip(column, folders, strict=True):
            places.setdefault(folder, []).append(case)
            order.add(folder)
        for before, after in pairwise(folders):
            order.add(after, before)
    try:
        return [places[folder] for folder in order.static_order()]
    except graphlib.CycleError:
        return list(places.values())


def _entry(run: Run, places: Iterable[Case], home: Path) -> dict[str, Any]:
    status = run.status()
    return {
        "folder": os.path.relpath(run.folder, home),
        "dataset": run.data_set.name,
        "seed": run.seed,
        "options": run.options,
        "status": status,
        "seconds": None if status == MISSING else run.seconds(),
        "items": [_place(case) for case in places],
    }


def _place(case: Case) -> Mapping[str, Any]:
    return {
        "item": case.item,
        "row": case.row,
        "section": case.section,
        "alternative": case.alternative,
    }


def _seed(folder: Path, home: Path) -> int | None:
    found = re.search(r"-seed(\d+)$", folder.name)
    return int(found[1]) if found and folder.parent == home else None
