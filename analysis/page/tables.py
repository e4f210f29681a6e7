"""The report's tables: each takes the experiments and gives what its cells say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.draw import formats
from analysis.measure.costs import run_seconds, user_costs
from analysis.measure.groups import Group, all_users, data_label, rounds_text, seeds_text
from analysis.measure.perplexity import AGGREGATION_SPLITS, SPLITS, aggregation_figures, perplexities
from analysis.read.run import Run

SPLIT_NAMES = {
    "test": "Test perplexity",
    "validation": "Validation perplexity",
    "train": "Training perplexity",
}
COSTS = ("time a round", "sent a round", "sent in all", "peak memory")
TOTALS = (
    "time a round (slowest user)",
    "time for the run",
    "sent a round (all users)",
    "sent in all (all users)",
    "peak memory (largest user)",
)


@dataclass(frozen=True)
class Cell:
    """A figure as it is shown."""

    text: str = formats.NONE
    is_best: bool = False


@dataclass(frozen=True)
class Line:
    """An experiment, or round 0: a cell a user, and of the mean over users."""

    label: str
    rounds: str
    seeds: str
    is_initial: bool
    cells: list[Cell]
    mean: Cell


@dataclass(frozen=True)
class FinalPerplexities:
    """By split, a line an experiment, a column a user; `seeds`: whether the lines tell theirs."""

    users: list[str]
    seeds: bool
    blocks: dict[str, list[Line]]
    key: str


@dataclass(frozen=True)
class Texts:
    """Lines of a label, then what its other cells say; `columns` are the heads of all."""

    columns: list[str]
    rows: list[tuple]


def final_perplexities(groups: Sequence[Group]) -> FinalPerplexities:
    """Only splits of which something has been evaluated."""
    several, users = any(len(group.runs) > 1 for group in groups), all_users(groups)
    figures = {split: perplexities(groups, split) for split in SPLITS}
    blocks = {
        SPLIT_NAMES[split]: [_line(line, groups, users) for _, line in found.groupby("line")]
        for split, found in figures.items()
        if found.loc[~found["is_mean"], "mean"].notna().any()
    }
    words = ["Lower is better."]
    if figures["test"]["is_initial"].any():
        words += ["\u201cBefore training\u201d is round 0: the pretrained base model."]
    words += ["Brackets: sample standard deviation over seeds."] if several else []
    words += ["Shaded: the best of its block."] if len(groups) > 1 else []
    return FinalPerplexities(users, several, blocks, " ".join(words))


def _line(figures: pd.DataFrame, groups: Sequence[Group], users: Sequence[str]) -> Line:
    *by_user, mean = [
        Cell(formats.figure(one.mean, one.std), one.rank == 1)
        for one in figures[["mean", "std", "rank"]].itertuples(index=False)
    ]
    cells = dict(zip(figures["user"], by_user))
    shown = [cells.get(user, Cell()) for user in users]
    group = groups[figures["group"].iloc[0]]
    if figures["is_initial"].iloc[0]:
        return Line(_initial_label(group, groups), "0", "", True, shown, mean)
    return Line(group.label, rounds_text(group), seeds_text(group), False, shown, mean)


def _initial_label(group: Group, among: Sequence[Group]) -> str:
    """Of which data and base, where there are several."""
    if len({other.comparable for other in among}) == 1:
        return "before training"
    run = group.runs[0]
    data = data_label(run, [other.runs[0] for other in among])
    return f"before training ({data}, {run.attribute('base_model')})"


def aggregation(groups: Sequence[Group]) -> Texts:
    """Perplexities before and after the last aggregation: by user, or the means of several experiments."""
    rows = []
    for group in groups:
        before, after = aggregation_figures(group)
        if not before:
            continue
        if len(groups) == 1:
            rows += [(user, _changes(before[user], after[user])) for user in group.users]
        label = group.label if len(groups) > 1 else "mean over users"
        rows.append((label, _changes(_over_users(before), _over_users(after))))
    heads = [words for split in AGGREGATION_SPLITS for words in (f"{split} before", "after", "change")]
    return Texts(["mean over users" if len(groups) > 1 else "user", *heads], rows)


def _over_users(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    return {split: sum(one[split] for one in figures.values()) / len(figures) for split in AGGREGATION_SPLITS}


def _changes(before: dict[str, float], after: dict[str, float]) -> list[str]:
    texts = []
    for split in AGGREGATION_SPLITS:
        values = (before[split], after[split])
        texts += [*map(formats.perplexity, values), formats.change(*values)]
    return texts


def users(group: Group) -> Texts:
    """What each user had, and what it cost: (user, experts, other texts)."""
    run, costs = group.runs[0], user_costs(group)
    names = ("lora_rank", "train_tokens", "validation_tokens", "test_tokens")
    recorded = {name: array for name in names if (array := run.array("users", name)) is not None}
    rows = []
    for user in group.users:
        cost = costs[user]
        texts = [formats.count(float(array.sel(user=user))) for array in recorded.values()]
        texts += [formats.seconds(cost.seconds_a_round), formats.size(cost.bytes_a_round)]
        texts += [formats.size(cost.bytes_in_all), formats.size(cost.peak_bytes)]
        rows.append((user, _experts(run, user), texts))
    heads = [
        name.replace("lora_rank", "LoRA rank").replace("train_", "training_").replace("_", " ")
        for name in recorded
    ]
    return Texts(["user", "experts", *heads, *COSTS], rows)


def _experts(run: Run, user: str) -> str:
    roles = run.expert_roles(user)
    counts = {role: roles.count(role) for role in ("generalist", "specialist")}
    words = [f"{number} {role}{'s' if number > 1 else ''}" for role, number in counts.items() if number]
    return " + ".join(words) or "none"


def costs(groups: Sequence[Group]) -> Texts:
    """A line an experiment: time, bytes and memory over its users."""

    def known(values: Iterable[float]) -> list[float]:
        return [value for value in values if not math.isnan(value)]

    def largest(values: Iterable[float]) -> float:
        return max(known(values), default=math.nan)

    def total(values: Iterable[float]) -> float:
        present = known(values)
        return sum(present) if present else math.nan

    rows = []
    for group in groups:
        by_user = user_costs(group).values()
        texts = [
            formats.seconds(largest(cost.seconds_a_round for cost in by_user)),
            formats.seconds(run_seconds(group)),
            formats.size(total(cost.bytes_a_round for cost in by_user)),
            formats.size(total(cost.bytes_in_all for cost in by_user)),
            formats.size(largest(cost.peak_bytes for cost in by_user)),
        ]
        rows.append((group.label, texts))
    return Texts(["method", *TOTALS], rows)
