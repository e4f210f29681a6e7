"""From a cell's runs to the experiment that stands for it: the best alternative by validation perplexity."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from analysis import compare
from analysis.compare import Group
from analysis.paper.index import Alternative, Cell, Entry, Index, data_set_name
from analysis.results import ResultsError


@dataclass(frozen=True)
class Request:
    """What the command line asked for: an item, from an index, into a folder, of one data set or of all."""

    item: str
    index: Index
    output: Path
    dataset: str | None = None

    def cells(self, *items: str) -> list[Cell]:
        """The cells of the first of the items that the index has."""
        for item in items:
            cells = self.index.cells(item, self.dataset)
            if cells:
                return cells
        of = f" on {self.dataset}" if self.dataset else ""
        found = ", ".join(self.index.items) or "none"
        raise ResultsError(
            f"{self.index.path}: no run of {' or '.join(items)}{of} (its items: {found}; "
            f"python -m jobs.sweep {items[0]} makes the runs)"
        )


@dataclass
class Choice:
    """What stands for a cell; no group where nothing is done."""

    cell: Cell
    group: Group | None
    remarks: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"{self.cell.row} on {data_set_name(self.cell.dataset)}"


def choose(index: Index, cell: Cell) -> Choice:
    """The cell's only alternative, or the one with the lowest mean validation perplexity."""
    found: dict[Alternative, Group] = {}
    choice = Choice(cell, None)
    for alternative, entries in cell.alternatives.items():
        group, problems = index.group(cell.row, entries)
        choice.remarks += problems
        if group is not None:
            found[alternative] = group
    if not found:
        choice.remarks.append(f"{choice.place}: no finished run.")
        return choice
    scores = {alternative: _validation(group) for alternative, group in found.items()}
    best = min(scores, key=lambda alternative: scores[alternative])
    choice.group = found[best]
    planned = cell.alternatives[best]
    if len(choice.group.runs) < len(planned):
        choice.remarks.append(
            f"{choice.place}: {len(choice.group.runs)} of {len(planned)} seeds are done ({_seeds(planned)})."
        )
    if len(cell.alternatives) > 1:
        done = (
            f"{len(found)} alternatives"
            if len(found) == len(cell.alternatives)
            else (f"{len(found)} of {len(cell.alternatives)} alternatives, the others are not done")
        )
        chosen = ", ".join(f"{option} = {value}" for option, value in best)
        choice.remarks.append(f"{choice.place}: {chosen} (best mean validation perplexity of {done}).")
    return choice


def _validation(group: Group) -> float:
    mean = compare.figure(over_users(group, "validation")).mean
    return math.inf if math.isnan(mean) else mean


def _seeds(entries: list[Entry]) -> str:
    missing = [
        str(entry.seed) for entry in sorted(entries, key=lambda entry: entry.seed) if not entry.is_done
    ]
    return "missing: seed " + ", ".join(missing) if missing else "the others cannot be read"


def over_users(group: Group, split: str) -> list[float]:
    """Each run's final perplexity, mean over users; NaN where a user's is missing."""
    rows = [compare.final_row(run, split) for run in group.runs]
    return [math.nan if row is None else float(row.mean("user", skipna=False)) for row in rows]
