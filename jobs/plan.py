"""Which runs are asked for. All job files are read and checked before anything runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from console import program
from console.mistakes import JobError, check_known, check_seeds
from console.name_lists import names_of

from .index import write_index
from .items import Case, Item, cases, item_files, read_item
from .runs import DONE, Run, run_of
from .scale import FOLDER, PAPER, DataSet, data_set, data_sets


@dataclass(frozen=True)
class Plan:
    """`every_item` and `every_data_set` are those of the scale, for the index."""

    scale: str
    runs: tuple[Run, ...]
    every_item: tuple[Item, ...]
    every_data_set: tuple[DataSet, ...]

    def by_data_set(self) -> list[tuple[DataSet, list[Run]]]:
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.data_set.name, []).append(run)
        return [(runs[0].data_set, runs) for runs in found.values()]

    def write_index(self) -> Path:
        asked = {run.folder for run in self.runs}
        return write_index(self.scale, self.every_item, self.every_data_set, asked)

    def counted(self) -> str:
        return f"{sum(run.status() == DONE for run in self.runs)} of {len(self.runs)} runs are done"


def planned(options: argparse.Namespace) -> Plan:
    """Raises JobError for a mistake in any job file or option."""
    if not FOLDER.is_dir():
        raise JobError(f"no folder {FOLDER} here, expected the repository's root as working directory")
    check_seeds(options.seeds)
    known = data_sets(PAPER)
    files = item_files()
    items = {name: read_item(name, files, known) for name in files}
    names = data_sets(options.scale)
    sources = _sources(options.source, names)
    program.check(options.comigs)
    there = {name: data_set(options.scale, name, sources, options.comigs) for name in names}
    chosen = _chosen(options, items)
    for name in sources:
        users = {one for one, other in there.items() if other.data == there[name].data}
        if not any(users & {*item.datasets} for item in chosen):
            raise JobError(f"--source {name}: no item asked for is about it ({', '.join(options.items)})")
    runs: dict[Path, Run] = {}
    for name, seed, case in _asked(options, chosen, there):
        run = run_of(case, there[name], seed)
        runs.setdefault(run.folder, run)
    if not runs:
        raise JobError("nothing to run: the chosen rows are not for the chosen data sets and this scale")
    return Plan(options.scale, tuple(runs.values()), tuple(items.values()), tuple(there.values()))


def _sources(texts: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    result: dict[str, str] = {}
    for text in texts:
        name, _, place = text.partition("=")
        if not place:
            raise JobError(f"--source {text}: expected NAME=PLACE, a data set and a folder, a file or 'hub'")
        check_known("data set", name, known)
        if name in result:
            raise JobError(f"--source {name}: given twice, '{result[name]}' and '{place}', expected once")
        result[name] = place
    return result


def _chosen(options: argparse.Namespace, items: Mapping[str, Item]) -> list[Item]:
    """The items asked for, with the rows asked for."""
    for name in options.items:
        check_known("item", name, items)
    whole = [items[name] for name in options.items]
    if options.rows is None:
        return whole
    names = {row.name for item in whole for row in item.rows}
    wanted = options.rows.lower()
    exact = {name for name in names if name.lower() == wanted}
    found = exact or {name for name in names if wanted in name.lower()}
    if not found:
        check_known("row", options.rows, names)
    return [replace(item, rows=tuple(row for row in item.rows if row.name in found)) for item in whole]


def _asked(
    options: argparse.Namespace, items: Sequence[Item], there: Mapping[str, DataSet]
) -> Iterator[tuple[str, int, Case]]:
    """Data set, seed and case. Seed by seed, so that an interrupted sweep has whole tables of fewer seeds."""
    if options.dataset is None:
        used = {name for item in items for name in item.datasets}
        wanted = [name for name in there if name in used]
    else:
        wanted = names_of(options.dataset, f"--dataset {options.dataset}")
        _check_data_sets(wanted, items, there)
    for name in wanted:
        for seed in range(options.seeds):
            for item in items:
                for case in cases(item, name):
                    yield name, seed, case


def _check_data_sets(wanted: Sequence[str], items: Sequence[Item], there: Mapping[str, DataSet]) -> None:
    for name in wanted:
        check_known("data set", name, there)
        for item in items:
            if name not in item.datasets:
                raise JobError(f"--dataset {name}: {item.name} is about {', '.join(item.datasets)}")
