"""What each experiment ended with: perplexities by user and over users. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from analysis.measure.figures import figure, ranks
from analysis.measure.groups import Group
from analysis.read.run import Run

SPLITS = ("test", "validation", "train")
AGGREGATION_SPLITS = ("test", "validation")


def final_row(run: Run, split: str) -> xr.DataArray | None:
    """Perplexity by user at the last round with most users evaluated (the last, in a sound file)."""
    array = run.array("perplexity", split)
    if array is None:
        return None
    evaluated = array.notnull().sum("user").values
    return array.isel(round=int(np.flatnonzero(evaluated == evaluated.max())[-1]))


def initial_row(run: Run, split: str) -> xr.DataArray | None:
    """Perplexity by user before any training (round 0); None where it was not evaluated."""
    array = run.array("perplexity", split)
    if array is None or 0 not in array["round"].values:
        return None
    row = array.sel(round=0)
    return None if bool(row.isnull().all()) else row


def perplexities(groups: Sequence[Group], split: str) -> pd.DataFrame:
    """Figures (see measure.figures) of one split by `line` and `user`, and of the mean over users (`is_mean`).

    Lines are round 0 of each kind of comparable experiments (`is_initial`; `group`: the first of its kind, by its
    place), then those experiments, which are ranked within their kind.
    """
    lines = []
    for kind in dict.fromkeys(group.comparable for group in groups):
        members = [place for place, group in enumerate(groups) if group.comparable == kind]
        initial = _initial([groups[place] for place in members], split)
        if initial is not None:
            lines.append(({"kind": members[0], "group": members[0], "is_initial": True}, [initial]))
        for place in members:
            rows = [row for run in groups[place].runs if (row := final_row(run, split)) is not None]
            lines.append(({"kind": members[0], "group": place, "is_initial": False}, rows))
    found = pd.DataFrame(
        {"line": number, **place, **one}
        for number, (place, rows) in enumerate(lines)
        for one in _figures(groups[place["group"]].users, rows)
    )
    return found.assign(rank=ranks(found[~found["is_initial"]], ["kind", "is_mean", "user"]))


def _initial(groups: Sequence[Group], split: str) -> xr.DataArray | None:
    """Round 0, before which no expert says anything, so that all runs agree; none beside the base itself."""
    runs = [run for group in groups for run in group.runs]
    if any(run.is_untrained for run in runs):
        return None
    return next((row for run in runs if (row := initial_row(run, split)) is not None), None)


def _figures(users: Sequence[str], rows: Sequence[xr.DataArray]) -> Iterator[dict[str, object]]:
    """A figure a user, then that of the mean over users; `rows` has perplexities by user, a run each."""
    for user in users:
        yield {"user": user, "is_mean": False, **figure(float(row.sel(user=user)) for row in rows)}
    over_users = (float(row.mean("user", skipna=False)) for row in rows)
    yield {"user": "", "is_mean": True, **figure(over_users)}


def aggregation_figures(group: Group) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Perplexity before and after the last aggregation, by user and split; empty where unrecorded."""
    name = "before_aggregation/perplexity"
    runs = [
        run for run in group.runs if any(run.array(name, split) is not None for split in AGGREGATION_SPLITS)
    ]
    before: dict[str, dict[str, float]] = {user: {} for user in group.users} if runs else {}
    after: dict[str, dict[str, float]] = {user: {} for user in before}
    for user in before:
        for split in AGGREGATION_SPLITS:
            pairs = [_around_aggregation(run, name, split, user) for run in runs]
            before[user][split] = figure(pair[0] for pair in pairs)["mean"]
            after[user][split] = figure(pair[1] for pair in pairs)["mean"]
    return before, after


def _around_aggregation(run: Run, name: str, split: str, user: str) -> tuple[float, float]:
    before, after = run.array(name, split), run.array("perplexity", split)
    if before is None or after is None:
        return math.nan, math.nan
    # It is the last row's aggregation, evaluated or not: never pair it with an older row.
    return float(before.sel(user=user)), float(after.sel(user=user).isel(round=-1))
