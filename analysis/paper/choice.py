"""From a cell's runs to the experiment that stands for it: the best alternative by validation perplexity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from analysis.draw import canvas
from analysis.measure.groups import Group
from analysis.paper.table import MEASURED
from analysis.read.index import Alternative, Cell, Entry, Index, data_set_name, data_sets_of
from analysis.read.results import ResultsError


class MissingRuns(ResultsError):
    """Nothing of an item is done yet."""


@dataclass(frozen=True)
class Request:
    """What the command line asked for: an item, from an index, into a folder, of some data sets or, with none, of all;
    `bars`, where an item has them, instead of heat maps."""

    item: str
    index: Index
    output: Path
    datasets: tuple[str, ...] = ()
    bars: bool = False

    @property
    def source(self) -> str:
        """What the figures of the item are, beside published ones: of a small scale, or of the paper's."""
        return f"{MEASURED}, scale {self.index.scale}"

    @property
    def of(self) -> str:
        """Of which data sets, for messages."""
        return f" on {', '.join(self.datasets)}" if self.datasets else ""

    def heading(self, title: str) -> str:
        return f"{title} [{self.source}]"

    def draw(self, drawn: Figure | None, title: str, dataset: str = "") -> list[Path]:
        """Writes a figure of the item, or its part of one data set, with a title that says what it is of."""
        if drawn is None:
            raise ResultsError(f"{self.index.path}: the runs of {self.item} hold no test perplexity yet")
        name = f"{self.item}_{dataset}" if dataset else self.item
        return self.write(drawn, name, f"{title}, {data_set_name(dataset)}" if dataset else title)

    def write(self, drawn: Figure, name: str, title: str) -> list[Path]:
        """Writes a figure under a name of its own."""
        return canvas.written(drawn, self.output, name, self.heading(title))

    def cells(self, *items: str) -> list[Cell]:
        """The cells of the first of the items that the index has."""
        for item in items:
            cells = self.index.cells(item, self.datasets)
            if cells:
                return cells
        found = ", ".join(self.index.items) or "none"
        raise MissingRuns(
            f"{self.index.path}: no run of {' or '.join(items)}{self.of} (its items: {found}; "
            f"python -m jobs.sweep {items[0]} makes the runs)"
        )


@dataclass
class Choice:
    """What stands for a cell; no group where nothing is done, or nothing can be chosen among what is."""

    cell: Cell
    group: Group | None
    is_done: bool = False
    remarks: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"{self.cell.row} on {data_set_name(self.cell.dataset)}"


def group_of(index: Index, label: str, entries: Iterable[Entry]) -> tuple[Group | None, list[str]]:
    """The done runs among the entries as one experiment, and why others that say so cannot be read."""
    runs, problems = index.runs(entries)
    return (Group(label, runs) if runs else None), problems


def choose(index: Index, cell: Cell) -> Choice:
    """The cell's only alternative, or the one with the lowest mean validation perplexity."""
    found: dict[Alternative, Group] = {}
    choice = Choice(cell, None)
    for alternative, entries in cell.alternatives.items():
        group, problems = group_of(index, cell.row, entries)
        choice.remarks += problems
        if group is not None:
            found[alternative] = group
    choice.is_done = bool(found)
    if not found:
        return choice
    best = _best(choice, found)
    if best is None:
        return choice
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
        choice.remarks.append(f"{choice.place}: {_words(best)} (best mean validation perplexity of {done}).")
    return choice


def remarks(choices: Sequence[Choice]) -> list[str]:
    """What a reader must know about them: what is not done, by data set, then what each has."""
    missing: list[str] = []
    for dataset in data_sets_of(choice.cell for choice in choices):
        of_it = [choice for choice in choices if choice.cell.dataset == dataset]
        rows = list(dict.fromkeys(choice.cell.row for choice in of_it if not choice.is_done))
        if rows:
            of_all = len(of_it) > 1 and not any(choice.is_done for choice in of_it)
            of_rows = "" if of_all else f" of {', '.join(rows)}"
            missing.append(f"{data_set_name(dataset)}: no finished run{of_rows}.")
    return [*missing, *dict.fromkeys(remark for choice in choices for remark in choice.remarks)]


def _best(choice: Choice, found: dict[Alternative, Group]) -> Alternative | None:
    """The lowest mean over the seeds that all have: easy seeds of one must not meet hard ones of another.

    What has no finite perplexity at all is no rival; None where the rivals have no seed in common.
    """
    if len(found) == 1:
        return next(iter(found))
    scores = {alternative: by_seed(group, "validation") for alternative, group in found.items()}
    rivals = {alternative: seeds for alternative, seeds in scores.items() if seeds}
    for alternative in (one for one in scores if one not in rivals):
        choice.remarks.append(f"{choice.place}: {_words(alternative)} has no finite validation perplexity.")
    shared = sorted(set.intersection(*map(set, rivals.values()))) if rivals else []
    planned = {entry.seed for entries in choice.cell.alternatives.values() for entry in entries}
    if len(shared) < len(planned):
        choice.remarks.append(
            f"{choice.place}: {len(shared)} of {len(planned)} seeds have a finite validation perplexity for "
            f"all {len(rivals)} alternatives compared{'' if shared else ', so none is chosen'}."
        )
    if not shared:
        return None
    return min(rivals, key=lambda alternative: sum(rivals[alternative][seed] for seed in shared))


def by_seed(group: Group, split: str) -> dict[str, float]:
    """Final perplexity by seed, where it is finite."""
    values = zip(group.runs, over_users(group, split))
    return {run.attribute("seed"): value for run, value in values if math.isfinite(value)}


def _words(alternative: Alternative) -> str:
    return ", ".join(f"{option} = {value}" for option, value in alternative)


def _seeds(entries: list[Entry]) -> str:
    missing = [
        str(entry.seed) for entry in sorted(entries, key=lambda entry: entry.seed) if not entry.is_done
    ]
    return "missing: seed " + ", ".join(missing) if missing else "the others cannot be read"


def over_users(group: Group, split: str) -> list[float]:
    """Each run's perplexity after its last round, mean over users; NaN where a user's is missing."""
    arrays = [run.array("perplexity", split) for run in group.runs]
    # The runs are done: an earlier row would show a run that failed in the end as sound.
    return [
        math.nan if array is None else float(array.isel(round=-1).mean("user", skipna=False))
        for array in arrays
    ]
