"""The table of a mixture of prompts: response perplexity by method and base, over all categories and in domain, and what
the mixture changes against as many prompts without a gate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from analysis.measure import categories
from analysis.measure.figures import NO_RUN, figure
from analysis.measure.groups import Group
from analysis.paper import writing
from analysis.paper.choice import Request, by_seed
from analysis.paper.table import Table, frame
from analysis.paper.tables import Measured
from analysis.read.index import Cell, data_set_name, data_sets_of
from analysis.read.run import Run

OURS = ("mop-centralized", "mop")
REFERENCES = ("pretrained",)
# The mixture, and prompt tuning with as many prompts.
PAIRS = {"mop-centralized": "prompt-centralized", "mop": "fedprompt", "mop-local": "prompt-local"}
PUBLISHED_RANGES = (
    "Published, and not by base or method: lower perplexity by 9 to 70 % federated on non-iid data and by 3 to 30 %"
    " centralised (abstract of arXiv 2310.02842, Llama-7B); the values of its tables are not known here."
)


def make(request: Request, title: str) -> list[Path]:
    """Three tables: rows are methods in a centralised and a federated half, columns bases."""
    cells = request.cells(request.item)
    measured = Measured(request, cells)
    columns = [data_set_name(name) for name in data_sets_of(cells)]
    everything = _table(request, title, cells, columns, measured.figure)
    everything.remarks += [*measured.remarks, *measured.comparability()]
    in_domain = f"{title}, in domain: each user's own mixture of categories"
    own = _table(request, in_domain, cells, columns, lambda cell: _in_domain(measured.group(cell)))
    tables = [everything, own, _changes(request, title, cells, columns, measured)]
    tables = [table for table in tables if table.figures["mean"].notna().any()]
    tables[-1].remarks.append(PUBLISHED_RANGES)
    print("\n".join(map(writing.markdown, tables)))
    return writing.write(tables, request.output, request.item)


def _table(
    request: Request,
    title: str,
    cells: list[Cell],
    columns: list[str],
    value: Callable[[Cell], Mapping[str, float]],
) -> Table:
    figures = (
        {
            "section": cell.section,
            "row": cell.row,
            "column": data_set_name(cell.dataset),
            **value(cell),
            "is_ours": cell.method in OURS,
            "is_reference": cell.method in REFERENCES,
        }
        for cell in cells
    )
    return Table(title, request.source, columns, frame(figures, ["section", "column"]))


def _in_domain(group: Group | None) -> Mapping[str, float]:
    """Mean over users of their own mixture's perplexity."""
    found = [categories.in_domain(run) for run in group.runs] if group else []
    values = [float(by_user.mean()) for by_user in found if by_user is not None]
    return figure(values) if values else NO_RUN


def _changes(
    request: Request, title: str, cells: list[Cell], columns: list[str], measured: Measured
) -> Table:
    """By how many per cent the mixture's perplexity is another, seed by seed."""
    there = {(cell.method, cell.dataset): cell for cell in cells}
    figures, remarks = [], []
    for cell in cells:
        other = there.get((PAIRS.get(cell.method, ""), cell.dataset))
        if other is not None:
            mixture, plain = measured.group(cell), measured.group(other)
            place = {
                "section": cell.section,
                "row": f"{cell.row} / {other.row}",
                "column": data_set_name(cell.dataset),
            }
            figures.append({**place, **_change(mixture, plain), "is_ours": cell.method in OURS})
            remarks += _unequal(cell, mixture, plain)
    nothing = {"section": "", "row": "", "column": columns[0], **NO_RUN}
    heading = f"{title}: change against as many prompts without a gate, in % (below 0: the mixture is better)"
    return Table(heading, request.source, columns, frame(figures or [nothing]), remarks)


def _change(mixture: Group | None, plain: Group | None) -> Mapping[str, float]:
    if mixture is None or plain is None:
        return NO_RUN
    ours, theirs = by_seed(mixture, "test"), by_seed(plain, "test")
    return figure(100 * (ours[seed] / theirs[seed] - 1) for seed in ours if seed in theirs)


def _unequal(cell: Cell, mixture: Group | None, plain: Group | None) -> list[str]:
    """Only equal numbers of prompts can be compared."""
    counts = [prompts(group.runs[0]) for group in (mixture, plain) if group is not None]
    if len(counts) < 2 or counts[0] == counts[1] or any(map(math.isnan, counts)):
        return []
    return [
        f"{cell.row} on {data_set_name(cell.dataset)}: {counts[0]:g} prompts a user, compared with {counts[1]:g}."
    ]


def prompts(run: Run) -> float:
    """How many a user has in all its groups, at most; NaN where the run has none."""
    groups, tokens = run.array("users", "experts"), run.array("users", "prompt_tokens")
    return math.nan if groups is None or tokens is None else float((groups * tokens).max())
