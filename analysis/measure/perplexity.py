"""What each experiment ended with: perplexities by user and over users. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from analysis.measure.groups import Group, data_label, rounds_text, seeds_text
from analysis.read.run import Run

SPLITS = ("test", "validation", "train")
AGGREGATION_SPLITS = ("test", "validation")


@dataclass
class Figure:
    """A mean over runs with its sample standard deviation (None for a single run)."""

    mean: float = math.nan
    std: float | None = None
    best: bool = False


@dataclass
class Row:
    """One line of the table of perplexities: an experiment's figures by user and over all users."""

    label: str
    rounds: str
    seeds: str
    comparable: tuple
    by_user: dict[str, Figure] = field(default_factory=dict)
    over_users: Figure = field(default_factory=Figure)
    is_initial: bool = False

    def of(self, user: str) -> Figure:
        """The user's figure; without a mean where the experiment has no such user."""
        return self.by_user.get(user, Figure())


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


def perplexity_rows(groups: Sequence[Group], split: str) -> list[Row]:
    """The table of one split: round 0 of each comparable set of experiments, then the experiments."""
    rows: list[Row] = []
    kinds = dict.fromkeys(group.comparable for group in groups)
    for key in kinds:
        members = [group for group in groups if group.comparable == key]
        untrained = any(run.is_untrained for group in members for run in group.runs)
        initial = None if untrained else _initial_figures(members, split)
        if initial and len(kinds) > 1:
            run = members[0].runs[0]
            data = data_label(run, [group.runs[0] for group in groups])
            initial.label += f" ({data}, {run.attribute('base_model')})"
        final = [_row(group, split) for group in members]
        _mark_best(final)
        rows += ([initial] if initial else []) + final
    return rows


def _row(group: Group, split: str) -> Row:
    row = Row(group.label, rounds_text(group), seeds_text(group), group.comparable)
    _fill(row, group.runs, lambda run: final_row(run, split))
    return row


def _initial_figures(groups: list[Group], split: str) -> Row | None:
    # No expert says anything before its first step, so all runs agree here and any of them would do.
    for run in (run for group in groups for run in group.runs):
        if initial_row(run, split) is not None:
            row = Row("before training", "0", "", groups[0].comparable, is_initial=True)
            _fill(row, [run], lambda one: initial_row(one, split))
            return row
    return None


def _fill(row: Row, runs: list[Run], values_of: Callable[[Run], xr.DataArray | None]) -> None:
    found = [values for run in runs if (values := values_of(run)) is not None]
    if not found:
        return
    for user in runs[0].users:
        row.by_user[user] = figure([float(values.sel(user=user)) for values in found])
    row.over_users = figure([float(values.mean("user", skipna=False)) for values in found])


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
            before[user][split] = figure([pair[0] for pair in pairs]).mean
            after[user][split] = figure([pair[1] for pair in pairs]).mean
    return before, after


def _around_aggregation(run: Run, name: str, split: str, user: str) -> tuple[float, float]:
    before, after = run.array(name, split), run.array("perplexity", split)
    if before is None or after is None:
        return math.nan, math.nan
    # It is the last row's aggregation, evaluated or not: never pair it with an older row.
    return float(before.sel(user=user)), float(after.sel(user=user).isel(round=-1))


def figure(values: Sequence[float]) -> Figure:
    """Mean and sample standard deviation of the values that are there."""
    present = [value for value in values if not math.isnan(value)]
    if not present:
        return Figure()
    std = float(np.std(present, ddof=1)) if len(present) > 1 and np.isfinite(present).all() else None
    return Figure(float(np.mean(present)), std)


def _mark_best(rows: list[Row]) -> None:
    if len(rows) < 2:
        return
    columns = [[row.over_users for row in rows]]
    columns += [[row.by_user[user] for row in rows if user in row.by_user] for user in rows[0].by_user]
    for column in columns:
        present = [entry.mean for entry in column if not math.isnan(entry.mean)]
        if len(present) < 2:
            continue
        # Equal as printed is equal: no winner by the fifth digit.
        best = round(min(present), 2)
        for entry in column:
            entry.best = not math.isnan(entry.mean) and round(entry.mean, 2) <= best
