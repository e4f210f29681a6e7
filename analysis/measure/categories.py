"""Instruction data by category: what gates make of it, and perplexity over a user's own mixture. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from analysis.read.run import Run


@dataclass(frozen=True)
class Stage:
    """A round at which gates are looked at, and what it is: before, while or after they are trained."""

    round: int
    name: str


def gate_weights(run: Run) -> xr.DataArray | None:
    """Mean gate weight by (round, user, category, expert), of the rounds that were evaluated."""
    weight = run.array("prompt", "weight")
    return None if weight is None else weight.dropna("round", how="all")


def warm_up_rounds(run: Run) -> int:
    """How many rounds train the gate alone; 0 where the run does not say."""
    text = run.attribute("gate_warmup_rounds").strip()
    return int(text) if text.isdecimal() else 0


def stages(run: Run, weight: xr.DataArray) -> list[Stage]:
    """Before, during and after training: rounds 0, W (without a warm-up 1), W + (R - W) / 2 and R, or the nearest that were
    evaluated; the start stands for no other."""
    evaluated = weight["round"].values
    later = evaluated[evaluated > 0] if (evaluated > 0).any() else evaluated
    first, last = warm_up_rounds(run), int(evaluated.max())
    wanted = {
        "before training": 0,
        "gate pretrained" if first else "early": first or 1,
        "half-way": first + (last - first) // 2,
        "after training": last,
    }

    def nearest(number: int) -> int:
        there = later if number > 0 else evaluated
        return int(there[np.abs(there - number).argmin()])

    return [Stage(nearest(number), name) for name, number in wanted.items()]


def over_users(weight: xr.DataArray) -> xr.DataArray:
    """Mean over the users who have the category and the group."""
    return weight.mean("user", skipna=True)


def differ_between_users(weight: xr.DataArray) -> bool:
    """Whether users have gates of their own: one that is shared says the same of the same test examples."""
    return bool((weight.max("user") - weight.min("user")).max() > 1e-5)


def entropy(shares: np.ndarray) -> np.ndarray:
    """In nats, over the last axis; 0 log 0 is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * np.log(shares), 0.0)
    return -terms.sum(-1)


def mutual_information(weight: xr.DataArray) -> float:
    """Of category and group, every category as likely as any other: H(mean_c g_c) - mean_c H(g_c), in nats. 0: the gate
    ignores the category; log of the number of groups: a group for each."""
    table = weight.transpose("category", "expert").values.astype(float)
    table = table[~np.isnan(table).all(-1)]
    table = table[:, ~np.isnan(table).any(0)]
    return float(entropy(table.mean(0)) - entropy(table).mean())


def in_domain(run: Run) -> np.ndarray | None:
    """Perplexity by user over its own training mixture: its categories' losses at the last round, weighted by how many
    training examples of each it has. None where the run is not on instruction data."""
    loss, examples = run.array("category", "loss_test"), run.array("users", "train_examples")
    if loss is None or examples is None:
        return None
    last = loss.isel(round=-1).transpose("user", "category")
    return np.exp(last.weighted(examples).mean("category").values)
