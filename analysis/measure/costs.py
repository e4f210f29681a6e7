"""What runs cost: seconds by phase, bytes sent, memory. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import xarray as xr

from analysis.measure.groups import Group

# In the order in which bars show them; `other` is what the round's own clock has beyond them.
PHASES = ("experts", "routers", "aggregation", "evaluation", "checkpoint", "writing", "other")


@dataclass(frozen=True)
class UserCost:
    """One user's means over trained rounds (and runs); NaN where a run does not record it."""

    seconds_a_round: float
    bytes_a_round: float
    bytes_in_all: float
    peak_bytes: float


def _trained(array: xr.DataArray) -> xr.DataArray:
    """The rounds with training in them; round 0 alone where there is none."""
    later = array.where(array["round"] > 0, drop=True)
    return later if later.sizes["round"] > 0 else array


def phase_seconds(group: Group) -> dict[str, dict[str, float]]:
    """Mean seconds a round by user and phase; `other` is what the round's own clock has beyond them."""
    found = {phase: group.stacked("time", phase) for phase in [*PHASES, "total"]}
    means = {
        phase: _trained(array).mean(["run", "round"]) for phase, array in found.items() if array is not None
    }
    total = means.pop("total", None)
    bars: dict[str, dict[str, float]] = {}
    for user in group.users if means or total is not None else []:
        bar = {phase: value for phase, mean in means.items() if (value := float(mean.sel(user=user))) > 0}
        if total is not None:
            rest = float(total.sel(user=user)) - sum(bar.values())
            # Less than a hundredth is the clocks' own rounding.
            if rest > 0.01 * float(total.sel(user=user)):
                bar["other"] = rest
        bars[user] = bar
    return bars if any(bars.values()) else {}


def mean_phase_seconds(group: Group) -> dict[str, float]:
    """Mean over users of their seconds a round, by phase."""
    bars = phase_seconds(group)
    found = [phase for phase in PHASES if any(phase in bar for bar in bars.values())]
    return {phase: sum(bar.get(phase, 0.0) for bar in bars.values()) / len(bars) for phase in found}


def user_costs(group: Group) -> dict[str, UserCost]:
    """Costs by user: time and bytes are means over runs, memory is the largest seen."""
    seconds, sent, memory = (
        group.stacked(*name) for name in (("time", "total"), ("communication", "bytes"), ("memory", "peak"))
    )

    def by_user(
        array: xr.DataArray | None, reduce: Callable[[xr.DataArray], xr.DataArray]
    ) -> dict[str, float]:
        if array is None:
            return dict.fromkeys(group.users, math.nan)
        values = reduce(array)
        return {user: float(values.sel(user=user)) for user in group.users}

    means = by_user(seconds, lambda array: _trained(array).mean(["run", "round"]))
    a_round = by_user(sent, lambda array: _trained(array).mean(["run", "round"]))
    in_all = by_user(sent, lambda array: array.sum("round").mean("run"))
    peak = by_user(memory, lambda array: array.max(["run", "round"]))
    return {user: UserCost(means[user], a_round[user], in_all[user], peak[user]) for user in group.users}


def run_seconds(group: Group) -> float:
    """Wall-clock of a run, its slowest user counted each round; mean over runs."""
    seconds = group.stacked("time", "total")
    return math.nan if seconds is None else float(seconds.max("user").sum("round").mean())
