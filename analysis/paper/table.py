"""What a table of the paper holds, measured or published, before it is written in any form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from analysis.measure.figures import NO_RUN, ranks

MEASURED, PUBLISHED = "measured", "published (GPT-2 124M)"


class Value(NamedTuple):
    """What is written of a figure; `seeds` is NaN where nothing was run."""

    mean: float
    std: float
    seeds: float
    rank: float
    has_fewer_seeds: bool


@dataclass(frozen=True)
class Line:
    """A value a column; `is_ours`: of the paper's own method."""

    section: str
    label: str
    values: list[Value]
    is_ours: bool


@dataclass
class Table:
    """A table of one source; measured and published figures never share one.

    `figures` (see measure.figures) stand at a section, row and column, in the order of the table's lines.
    """

    title: str
    source: str
    columns: list[str]
    figures: pd.DataFrame
    remarks: list[str] = field(default_factory=list)
    is_whole: bool = False  # whole numbers (tokens), not perplexities

    def lines(self) -> Iterator[Line]:
        for (section, row), line in self.figures.groupby(["section", "row"], sort=False):
            values = line.set_index("column").reindex(self.columns)[[*Value._fields]]
            yield Line(
                section,
                row,
                [Value(*value) for value in values.itertuples(index=False)],
                line["is_ours"].any(),
            )


def frame(figures: Iterable[Mapping[str, object]], ranked_within: Sequence[str] = ()) -> pd.DataFrame:
    """Figures with ranks among those that agree in `ranked_within`; what `is_reference` has none."""
    found = pd.DataFrame({"is_ours": False, "is_reference": False, **one} for one in figures)
    found = found.astype(dict.fromkeys(NO_RUN, float))  # None is NaN
    found["rank"] = ranks(found[~found["is_reference"]], ranked_within) if ranked_within else math.nan
    seeds = found["seeds"].where(found["mean"].notna())
    return found.assign(has_fewer_seeds=seeds < seeds.max())
