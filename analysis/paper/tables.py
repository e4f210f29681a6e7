"""Tables 1, 2, 4, 5 and the one of the validation data's worth, from a sweep's runs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

from analysis.measure import perplexity
from analysis.measure.groups import Group
from analysis.paper import writing
from analysis.paper.choice import Choice, Request, choose, over_users
from analysis.paper.published import TABLE_2_COLUMNS, TABLE_5_COLUMNS
from analysis.paper.table import Line, Table, Value, rank_columns, rank_lines
from analysis.read.index import Cell, data_set_name, data_sets_of
from analysis.read.results import ResultsError
from analysis.read.run import Run

# Bounds that no user could have alone: shown, not ranked.
REFERENCES = ("pretrained", "centralized")
OURS = ("comigs-1g1s", "comigs-1gxs")
# The number of experts by user, as rows of Table 2 have it in their name.
PATTERN = re.compile(r"\(\s*\d+(\s*,\s*\d+)*\s*\)")
LOAD_BALANCING = "load_balancing"


def by_data_set(request: Request, title: str, published: Callable[[str], Table] | None) -> list[Path]:
    """A line a row, a column a data set, ranks down the columns (Tables 1 and 4)."""
    cells = request.cells(request.item)
    datasets = data_sets_of(cells)
    measured = Measured(request, cells)
    lines: dict[tuple[str, str], Line] = {}
    for cell in cells:
        line = lines.setdefault((cell.section, cell.row), _line(cell.section, cell.row, cell, len(datasets)))
        line.values[datasets.index(cell.dataset)] = measured.value(cell)
    table = Table(title, request.source, [data_set_name(name) for name in datasets], list(lines.values()))
    rank_columns(table)
    return _written(request, table, measured, published)


def by_pattern(request: Request, title: str, published: Callable[[str], Table] | None) -> list[Path]:
    """A block a data set, a line a pattern of experts, a column a method (Table 2).

    A row without a pattern belongs to every line of its data set.
    """
    cells = request.cells(request.item)
    return _blocks(
        request, title, published, [(cell, *split_pattern(cell)) for cell in cells], TABLE_2_COLUMNS
    )


def by_load_balancing(request: Request, title: str, published: Callable[[str], Table] | None) -> list[Path]:
    """A block a data set, a line a pattern of experts, a column a load-balancing term (Table 5)."""
    placed = []
    for cell in request.cells(request.item):
        for alternative, entries in cell.alternatives.items():
            term = dict(alternative).get(LOAD_BALANCING) or entries[0].options.get(LOAD_BALANCING, "")
            column = TABLE_5_COLUMNS.get(term, term or cell.row)
            single = replace(cell, row=f"{cell.row}, {column}", alternatives={alternative: entries})
            placed.append((single, cell.row, column))
    return _blocks(request, title, published, placed, TABLE_5_COLUMNS.values())


def split_pattern(cell: Cell) -> tuple[str, str]:
    """A row's pattern of experts, from its name or section, and what the row is without it."""
    found = PATTERN.search(cell.row) or PATTERN.search(cell.section)
    pattern = found.group().replace(" ", "") if found else cell.section
    return pattern, " ".join(PATTERN.sub(" ", cell.row).split()) or cell.row


def _blocks(
    request: Request,
    title: str,
    published: Callable[[str], Table] | None,
    placed: Sequence[tuple[Cell, str, str]],
    order: Iterable[str],
) -> list[Path]:
    """Writes cells, each with its line and column, in blocks by data set; ranks run along the lines."""
    measured = Measured(request, [cell for cell, _, _ in placed])
    found = list(dict.fromkeys(column for _, _, column in placed))
    columns = [name for name in order if name in found]
    columns += [name for name in found if name not in columns]
    lines = []
    for dataset in data_sets_of(cell for cell, _, _ in placed):
        own = [
            (cell, label, columns.index(column)) for cell, label, column in placed if cell.dataset == dataset
        ]
        block = {
            label: Line(data_set_name(dataset), label, [None] * len(columns)) for _, label, _ in own if label
        }
        block = block or {"": Line(data_set_name(dataset), "all", [None] * len(columns))}
        for cell, label, column in own:
            for line in [block[label]] if label else block.values():
                line.values[column] = copy(measured.value(cell))
        lines += block.values()
    table = Table(title, request.source, columns, lines)
    rank_lines(table)
    return _written(request, table, measured, published)


class Measured:
    """Turns cells into values and collects what a reader must know about them."""

    def __init__(self, request: Request, cells: list[Cell]) -> None:
        self._choices = {id(cell): choose(request.index, cell) for cell in cells}
        self._values = {id(cell): _value(self._choices[id(cell)]) for cell in cells}
        self.remarks = list(
            dict.fromkeys(text for choice in self._choices.values() for text in choice.remarks)
        )
        if not any(choice.is_done for choice in self._choices.values()):
            for remark in self.remarks:
                print(f"note: {remark}")
            raise ResultsError(f"{request.index.path}: no finished run of {request.item}")
        self._mark_fewer_seeds()

    def value(self, cell: Cell) -> Value | None:
        return self._values[id(cell)]

    def _mark_fewer_seeds(self) -> None:
        present = [
            value for value in self._values.values() if value is not None and not math.isnan(value.mean)
        ]
        most = max((value.seeds for value in present), default=0)
        for value in present:
            value.has_fewer_seeds = value.seeds < most
        if any(value.has_fewer_seeds for value in present):
            self.remarks.append(f"{writing.FEWER} fewer seeds than the {most} of others.")

    @property
    def notes(self) -> list[str]:
        """Remarks on the choices, then what sets the runs of each data set apart."""
        groups: dict[str, list[Group]] = {}
        for choice in self._choices.values():
            if choice.group is not None:
                groups.setdefault(choice.cell.dataset, []).append(choice.group)
        found = [*self.remarks]
        for dataset, members in groups.items():
            name = data_set_name(dataset)
            if len({group.comparable for group in members}) > 1:
                found.append(
                    f"{name}: the runs differ in data, base model or users, so they cannot be compared."
                )
            programs = sorted({_program(run) for group in members for run in group.runs})
            if len(programs) > 1:
                found.append(f"{name}: the runs were made by different programs ({'; '.join(programs)}).")
        return found


def _program(run: Run) -> str:
    version, commit = (run.attribute(name) or "unknown" for name in ("program_version", "git_commit"))
    return f"version {version}, commit {commit}"


def _value(choice: Choice) -> Value | None:
    if choice.group is None:
        return None
    values = over_users(choice.group, "test")
    figure = perplexity.figure(values)
    seeds = sum(map(math.isfinite, values))
    if seeds < len(values):
        choice.remarks.append(
            f"{choice.place}: {seeds} of {len(values)} seeds have a finite test perplexity for all users."
        )
    return Value(figure.mean, figure.std, seeds=seeds)


def _line(section: str, row: str, cell: Cell, columns: int) -> Line:
    return Line(section, row, [None] * columns, cell.method in OURS, cell.method not in REFERENCES)


def _written(
    request: Request, table: Table, measured: Measured, published: Callable[[str], Table] | None
) -> list[Path]:
    table.remarks = measured.notes
    tables = [table, *([published(table.title)] if published else [])]
    print("\n".join(writing.markdown(one) for one in tables))
    return writing.write(tables, request.output, request.item)
