"""Figures: means over runs, a line each in one tidy frame, whatever table or grid shows them.

The first columns of a frame say where its figures stand; then `mean`, `std` (sample standard deviation, NaN for a single
run), `seeds` (runs with a finite value, NaN where there is no run) and `rank` (1 the lowest, NaN where it has none).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

NO_RUN = {"mean": math.nan, "std": math.nan, "seeds": math.nan}


def figure(values: Iterable[float]) -> dict[str, float]:
    """Mean and standard deviation of the values that are there, and how many are finite."""
    present = np.array([value for value in values if not math.isnan(value)])
    if present.size == 0:
        return {**NO_RUN, "seeds": 0}
    finite = np.isfinite(present)
    std = float(np.std(present, ddof=1)) if present.size > 1 and finite.all() else math.nan
    return {"mean": float(np.mean(present)), "std": std, "seeds": int(finite.sum())}


def ranks(figures: pd.DataFrame, within: Sequence[str]) -> pd.Series:
    """Ranks 1, 2, 2, 4 of the means that agree in the columns `within`: equal as printed is equal.

    One value alone has no rank.
    """
    shown = figures["mean"].map(lambda mean: round(mean, 2)).groupby([figures[name] for name in within])
    return shown.rank(method="min").where(shown.transform("count") > 1)
