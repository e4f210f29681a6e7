"""What a reader sees first: the title, what the runs are of, and the few figures of a single experiment."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.draw import formats
from analysis.measure.costs import run_seconds, user_costs
from analysis.measure.groups import Group, all_users, rounds_text, seeds_text
from analysis.measure.perplexity import perplexities

# A figure, and the lines of words below it.
Tile = tuple[str, list[str]]


def headline(groups: Sequence[Group]) -> tuple[str, list[str]]:
    """The page's title, and the facts of the line below it."""
    runs = [run for group in groups for run in group.runs]
    data_sets = list(dict.fromkeys(run.attribute("data_set") or "unnamed data" for run in runs))
    users = all_users(groups)
    title = groups[0].label if len(groups) == 1 else f"{len(groups)} experiments compared"
    title += " on " + ", ".join(data_sets)
    facts = [f"{len(users)} users: {', '.join(users)}" if len(users) > 1 else f"1 user: {users[0]}"]
    bases = list(dict.fromkeys(run.attribute("base_model") for run in runs if run.attribute("base_model")))
    facts += [f"base model {', '.join(bases)}"] if bases else []
    if len(groups) == 1:
        seeds = f"seed{'s' if len(runs) > 1 else ''} {seeds_text(groups[0])}"
        return title, [*facts, f"rounds: {rounds_text(groups[0])}", seeds]
    return title, [*facts, f"{len(runs)} runs"]


def tiles(group: Group) -> list[Tile]:
    """Perplexity, time and bytes, as far as the runs record them."""
    found = [tile for split in ("test", "validation") if (tile := _perplexity(group, split))]
    costs = user_costs(group).values()
    seconds = max((cost.seconds_a_round for cost in costs), default=math.nan)
    if not math.isnan(seconds):
        whole = f"{formats.seconds(run_seconds(group))} for the run"
        found.append((formats.seconds(seconds), ["a round (slowest user)", whole]))
    sent = [cost.bytes_a_round for cost in costs if not math.isnan(cost.bytes_a_round)]
    if sent:
        words = ["sent a round by each user", "mean over users"]
        found.append((formats.size(sum(sent) / len(sent)), words))
    return found


def _perplexity(group: Group, split: str) -> Tile | None:
    figures = perplexities([group], split)
    over_users = figures[figures["is_mean"]]
    final = over_users.iloc[-1]
    if math.isnan(final["mean"]):
        return None
    before = [f"{formats.perplexity(mean)} before training" for mean in over_users["mean"].iloc[:-1].dropna()]
    return formats.figure(final["mean"], final["std"]), [f"mean {split} perplexity", *(before or [""])]
