"""What a table of the paper holds, measured or published, before it is written in any form."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

MEASURED, PUBLISHED = "measured", "published (GPT-2 124M)"


@dataclass
class Value:
    """One figure of a table: a mean with its standard deviation over `seeds` runs."""

    mean: float
    std: float | None = None
    seeds: int = 0
    rank: int | None = None
    is_best: bool = False
    has_fewer_seeds: bool = False


@dataclass
class Line:
    """One line: a value a column, None where nothing was measured."""

    section: str
    label: str
    values: list[Value | None]
    is_ours: bool = False
    is_ranked: bool = True


@dataclass
class Table:
    """A table of one source; measured and published figures never share one."""

    title: str
    source: str
    columns: list[str]
    lines: list[Line]
    remarks: list[str] = field(default_factory=list)
    is_whole: bool = False  # whole numbers (tokens), not perplexities


def rank_columns(table: Table) -> None:
    """Marks each column's ranks, the lowest first, among the lines that are ranked."""
    for column in range(len(table.columns)):
        rank(line.values[column] for line in table.lines if line.is_ranked)


def rank_lines(table: Table) -> None:
    """Marks the ranks within each line."""
    for line in table.lines:
        rank(line.values)


def rank(values: Iterable[Value | None]) -> None:
    """Ranks 1, 2, 2, 4: equal as printed is equal. One value alone has no rank."""
    present = [value for value in values if value is not None and not math.isnan(value.mean)]
    if len(present) < 2:
        return
    for value in present:
        value.rank = 1 + sum(round(other.mean, 2) < round(value.mean, 2) for other in present)
        value.is_best = value.rank == 1
