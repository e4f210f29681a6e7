"""An item is a table or figure: which rows it has, and which options of `comigs train` make each of them."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from console.mistakes import JobError, check_known, in_natural_order
from console.name_lists import names_of

from .ini import check_one_line, read_ini

FOLDER = Path("jobs")
_ITEM_KEYS = ("title", "datasets", "use", "rows")  # the title is for readers of the file
_GIVEN_BY_SWEEP = ("output", "seed", "data", "model")


@dataclass(frozen=True)
class Row:
    """A line of the table or a curve of the figure; an option with several values makes a run for each."""

    name: str
    section: str
    datasets: tuple[str, ...]
    options: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Item:
    name: str
    datasets: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Case:
    """A row with one value for each of its options; `alternative` are those of which the row has several."""

    item: str
    row: str
    section: str
    alternative: dict[str, str]
    options: dict[str, str]


def item_files() -> dict[str, Path]:
    """All items by name, which begins with their folder's below `jobs`. Other job files may lie beside them; they have
    no section [item]."""
    paths = [path for inside in ("", "as-published/", "mop/") for path in FOLDER.glob(f"{inside}*.ini")]
    files = {
        "-".join(path.relative_to(FOLDER).with_suffix("").parts): path
        for path in paths
        if "item" in read_ini(path)
    }
    return {name: files[name] for name in in_natural_order(files)}


def read_item(name: str, files: dict[str, Path], data_sets: Collection[str]) -> Item:
    """Raises JobError where the file is not an item that can be run."""
    check_known("item", name, files)
    path = files[name]
    sections = read_ini(path)
    head = sections.pop("item")
    for key, text in head.items():
        if key not in _ITEM_KEYS:
            raise JobError(f"{path}: unknown '{key}' in [item], which knows {', '.join(_ITEM_KEYS)}")
        if key != "rows":
            check_one_line(f"{path}: [item] {key}", text)
    datasets = _names(path, "item", head.get("datasets", ""), data_sets)
    rows = _used_rows(path, head, datasets, files, data_sets)
    rows += [_row(path, section, settings, datasets) for section, settings in sections.items()]
    item = Item(name, datasets, tuple(rows))
    _check_rows(path, item)
    return item


def cases(item: Item, data_set: str) -> list[Case]:
    """All that the item runs on a data set, in file order."""
    result = []
    for row in item.rows:
        if data_set not in row.datasets:
            continue
        for values in itertools.product(*row.options.values()):
            options = dict(zip(row.options, values, strict=True))
            alternative = {option: value for option, value in options.items() if len(row.options[option]) > 1}
            result.append(Case(item.name, row.name, row.section, alternative, options))
    return result


def _check_known(place: str, what: str, name: str, known: Collection[str]) -> None:
    try:
        check_known(what, name, known)
    except JobError as error:
        raise JobError(f"{place}: {error}") from None


def _names(path: Path, section: str, text: str, known: Collection[str]) -> tuple[str, ...]:
    names = names_of(text, f"{path}: [{section}] datasets = {text}")
    for name in names:
        _check_known(f"{path}: [{section}] datasets", "data set", name, known)
    return tuple(names)


def _used_rows(
    path: Path,
    head: dict[str, str],
    datasets: tuple[str, ...],
    files: dict[str, Path],
    known: Collection[str],
) -> list[Row]:
    """The rows taken from another item, without its headings."""
    wanted = [line.strip() for line in head.get("rows", "").splitlines() if line.strip()]
    if bool(wanted) != ("use" in head):
        raise JobError(f"{path}: [item] 'use' (an item) and 'rows' (its rows, one a line) go together")
    if not wanted:
        return []
    other, place = head["use"], f"{path}: [item] use = {head['use']}"
    _check_known(place, "item", other, files)
    if "use" in read_ini(files[other])["item"]:
        raise JobError(f"{place}: expected an item that has all its rows itself")
    there = {row.name: row for row in read_item(other, files, known).rows}
    for name in wanted:
        _check_known(place, "row", name, there)
    used = [there[name] for name in wanted]
    return [
        replace(row, section="", datasets=tuple(name for name in datasets if name in row.datasets))
        for row in used
    ]


def _row(path: Path, section: str, settings: dict[str, str], datasets: tuple[str, ...]) -> Row:
    name = section.removeprefix("row.").strip()
    if not section.startswith("row.") or not name:
        raise JobError(f"{path}: unknown section [{section}], expected [item] or [row.NAME]")
    for key, text in settings.items():
        check_one_line(f"{path}: [{section}] {key}", text)
    heading = settings.pop("section", "")
    if "datasets" in settings:
        datasets = _names(path, section, settings.pop("datasets"), datasets)
    if not settings.get("method"):
        raise JobError(f"{path}: [{section}] has no 'method', expected one that 'comigs methods' lists")
    options: dict[str, tuple[str, ...]] = {}
    for key, text in settings.items():
        option = "method" if key == "name" else key.replace("-", "_")
        if option in options:
            raise JobError(f"{path}: [{section}] option '{option}' stands there twice, once as '{key}'")
        if key in _GIVEN_BY_SWEEP:
            raise JobError(f"{path}: [{section}] '{key}' is what jobs.sweep gives to every run; leave it out")
        values = tuple(value.strip() for value in text.split("|"))
        if "" in values or len(set(values)) < len(values):
            raise JobError(
                f"{path}: [{section}] {key}: found '{text}', expected a value, or different ones between '|'"
            )
        options[option] = values
    return Row(name, heading, datasets, options)


def _check_rows(path: Path, item: Item) -> None:
    if not item.rows:
        raise JobError(f"{path}: no row, expected [row.NAME] sections or 'use' and 'rows' in [item]")
    names = [row.name for row in item.rows]
    for name in names:
        if names.count(name) > 1:
            raise JobError(f"{path}: row '{name}' stands there twice")
    for data_set in item.datasets:
        seen: dict[frozenset[tuple[str, str]], str] = {}
        for case in cases(item, data_set):
            first = seen.setdefault(frozenset(case.options.items()), case.row)
            if first != case.row:
                raise JobError(f"{path}: rows '{first}' and '{case.row}' are the same run on {data_set}")
