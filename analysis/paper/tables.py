"""Tables 1, 2, 4, 5 and the one of the validation data's worth, from a sweep's runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from analysis.measure.figures import NO_RUN, figure
from analysis.measure.groups import Group
from analysis.paper import writing
from analysis.paper.choice import Choice, MissingRuns, Request, choose, over_users, remarks
from analysis.paper.published import TABLE_2_COLUMNS, TABLE_5_COLUMNS
from analysis.paper.table import Table, frame
from analysis.read.index import Cell, data_set_name, data_sets_of
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
    placed = {(cell.section, cell.row, data_set_name(cell.dataset)): cell for cell in cells}
    columns = [data_set_name(name) for name in data_sets_of(cells)]
    return _written(request, title, published, Measured(request, cells), placed, columns, ["column"])


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
    found = list(dict.fromkeys(column for _, _, column in placed))
    columns = [name for name in order if name in found]
    columns += [name for name in found if name not in columns]
    cells: dict[tuple[str, str, str], Cell] = {}
    for dataset in data_sets_of(cell for cell, _, _ in placed):
        own = [(cell, label, column) for cell, label, column in placed if cell.dataset == dataset]
        labels = list(dict.fromkeys(label for _, label, _ in own if label)) or ["all"]
        for cell, label, column in own:
            for line in [label] if label else labels:
                cells[data_set_name(dataset), line, column] = cell
    measured = Measured(request, [cell for cell, _, _ in placed])
    return _written(request, title, published, measured, cells, columns, ["section", "row"])


class Measured:
    """Turns cells into figures and collects what a reader must know about them."""

    def __init__(self, request: Request, cells: list[Cell]) -> None:
        self._choices = {id(cell): choose(request.index, cell) for cell in cells}
        self._figures = {id(cell): _figure(self._choices[id(cell)]) for cell in cells}
        self.remarks = remarks(list(self._choices.values()))
        if not any(choice.is_done for choice in self._choices.values()):
            for remark in self.remarks:
                print(f"note: {remark}")
            raise MissingRuns(f"{request.index.path}: no finished run of {request.item}")

    def figure(self, cell: Cell) -> dict[str, float]:
        return self._figures[id(cell)]

    def group(self, cell: Cell) -> Group | None:
        return self._choices[id(cell)].group

    def comparability(self) -> list[str]:
        """What sets the runs of each data set apart."""
        groups: dict[str, list[Group]] = {}
        for choice in self._choices.values():
            if choice.group is not None:
                groups.setdefault(choice.cell.dataset, []).append(choice.group)
        found = []
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


def _figure(choice: Choice) -> dict[str, float]:
    if choice.group is None:
        return NO_RUN
    values = over_users(choice.group, "test")
    found = figure(values)
    if found["seeds"] < len(values):
        choice.remarks.append(
            f"{choice.place}: {found['seeds']} of {len(values)} seeds have a finite test perplexity for all users."
        )
    return found


def _written(
    request: Request,
    title: str,
    published: Callable[[str], Table] | None,
    measured: Measured,
    placed: Mapping[tuple[str, str, str], Cell],
    columns: list[str],
    ranked_within: Sequence[str],
) -> list[Path]:
    """Writes the cells, each at its section, row and column."""
    figures = frame(
        (
            {
                "section": section,
                "row": row,
                "column": column,
                **measured.figure(cell),
                "is_ours": ranked_within == ["column"] and cell.method in OURS,
                "is_reference": ranked_within == ["column"] and cell.method in REFERENCES,
            }
            for (section, row, column), cell in placed.items()
        ),
        ranked_within,
    )
    remarks = [*measured.remarks]
    if figures["has_fewer_seeds"].any():
        most = figures.loc[figures["mean"].notna(), "seeds"].max()
        remarks.append(f"{writing.FEWER} fewer seeds than the {most:.0f} of others.")
    remarks += measured.comparability()
    tables = [Table(title, request.source, columns, figures, remarks)]
    tables += [published(title)] if published else []
    print("\n".join(writing.markdown(one) for one in tables))
    return writing.write(tables, request.output, request.item)
