"""The report's sections: each takes the experiments and gives a piece of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.draw import formats
from analysis.measure.costs import run_seconds, user_costs
from analysis.measure.groups import Group, all_users, is_experimental, rounds_text, seeds_text
from analysis.measure.perplexity import AGGREGATION_SPLITS, SPLITS, Row, aggregation_figures, perplexity_rows
from analysis.page.markup import Markup, join, tag
from analysis.read.run import Run

SPLIT_NAMES = {
    "test": "Test perplexity",
    "validation": "Validation perplexity",
    "train": "Training perplexity",
}
PROVENANCE = {
    "title": "Title",
    "method": "Method",
    "data_set": "Data set",
    "seed": "Seed",
    "N": "Users (N)",
    "base_model": "Base model",
    "base_digest": "Base digest",
    "created": "Created (UTC)",
    "program_version": "Program version",
    "git_commit": "Git commit",
    "hosts": "Hosts",
    "devices": "Devices",
    "library_versions": "Libraries",
    "schema_version": "Results schema",
}


def table(head: Sequence[Markup], rows: Sequence[Markup], *, wide: bool = True) -> Markup:
    """A table that scrolls by itself where it is wider than the page."""
    body = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="wide" if wide else None)
    return tag("div", body, class_="scroll")


def headline(groups: Sequence[Group]) -> tuple[str, Markup]:
    """The page's title and the line below it."""
    runs = [run for group in groups for run in group.runs]
    data_sets = list(dict.fromkeys(run.attribute("data_set") or "unnamed data" for run in runs))
    users = all_users(groups)
    title = groups[0].label if len(groups) == 1 else f"{len(groups)} experiments compared"
    title += " on " + ", ".join(data_sets)
    facts = [f"{len(users)} users: {', '.join(users)}" if len(users) > 1 else f"1 user: {users[0]}"]
    bases = list(dict.fromkeys(run.attribute("base_model") for run in runs if run.attribute("base_model")))
    facts += [f"base model {', '.join(bases)}"] if bases else []
    if len(groups) == 1:
        facts += [
            f"rounds: {rounds_text(groups[0])}",
            f"seed{'s' if len(runs) > 1 else ''} {seeds_text(groups[0])}",
        ]
    else:
        facts += [f"{len(runs)} runs"]
    return title, tag("p", " \N{MIDDLE DOT} ".join(facts), class_="lead")


def tiles(group: Group) -> Markup:
    """The few figures of a single experiment that a reader looks for first."""

    def tile(value: str, *words: str) -> Markup:
        return tag("div", tag("b", value), *[tag("span", line) for line in words], class_="tile")

    found = []
    for split in ("test", "validation"):
        rows = perplexity_rows([group], split)
        initial = next((row.over_users.mean for row in rows if row.is_initial), math.nan)
        before = "" if math.isnan(initial) else f"{formats.perplexity(initial)} before training"
        if not math.isnan(rows[-1].over_users.mean):
            found.append(tile(formats.figure(rows[-1].over_users), f"mean {split} perplexity", before))
    costs = user_costs(group).values()
    seconds = max((cost.seconds_a_round for cost in costs), default=math.nan)
    if not math.isnan(seconds):
        found.append(
            tile(
                formats.seconds(seconds),
                "a round (slowest user)",
                f"{formats.seconds(run_seconds(group))} for the run",
            )
        )
    sent = [cost.bytes_a_round for cost in costs if not math.isnan(cost.bytes_a_round)]
    if sent:
        found.append(
            tile(formats.size(sum(sent) / len(sent)), "sent a round by each user", "mean over users")
        )
    return tag("div", *found, class_="tiles")


def final_perplexities(groups: Sequence[Group]) -> Markup:
    """The table of final perplexities: a block a split, a line an experiment, a column a user."""
    users = all_users(groups)
    several = any(len(group.runs) > 1 for group in groups)
    head = [tag("th", "method"), tag("th", "rounds")]
    head += [tag("th", "seeds")] if several else []
    head += [tag("th", user) for user in users] + [tag("th", "mean over users", class_="mean")]
    body = []
    for split in SPLITS:
        rows = perplexity_rows(groups, split)
        if all(math.isnan(entry.mean) for row in rows for entry in row.by_user.values()):
            continue
        body.append(tag("tr", tag("th", SPLIT_NAMES[split], colspan=len(head)), class_="block"))
        body += [_perplexity_line(row, users, several) for row in rows]
    if not body:
        return tag("p", "No perplexity has been evaluated yet.")
    words = ["Lower is better."]
    if any(row.is_initial for row in perplexity_rows(groups, "test")):
        words += ["\u201cBefore training\u201d is round 0: the pretrained base model."]
    words += ["Brackets: sample standard deviation over seeds."] if several else []
    words += ["Shaded: the best of its block."] if len(groups) > 1 else []
    return join(table(head, body), tag("p", " ".join(words), class_="note"))


def _perplexity_line(row: Row, users: Sequence[str], several: bool) -> Markup:
    cells = [tag("th", tag("span", row.label, class_="label")), tag("td", row.rounds)]
    cells += [tag("td", row.seeds)] if several else []
    for user in users:
        entry = row.by_user.get(user)
        best = "best" if entry is not None and entry.best else None
        cells.append(tag("td", formats.NONE if entry is None else formats.figure(entry), class_=best))
    cells.append(
        tag("td", formats.figure(row.over_users), class_="mean best" if row.over_users.best else "mean")
    )
    return tag("tr", *cells, class_="initial" if row.is_initial else None)


def before_aggregation(groups: Sequence[Group]) -> Markup | None:
    """Perplexities before and after the last aggregation: by user, or the means of several experiments."""
    lines = []
    for group in groups:
        before, after = aggregation_figures(group)
        if not before:
            continue
        if len(groups) == 1:
            lines += [_aggregation_line(user, before[user], after[user]) for user in group.users]
        label = group.label if len(groups) > 1 else "mean over users"
        lines.append(_aggregation_line(label, _over_users(before), _over_users(after)))
    if not lines:
        return None
    head = [tag("th", "mean over users" if len(groups) > 1 else "user")]
    for split in AGGREGATION_SPLITS:
        head += [tag("th", f"{split} before"), tag("th", "after"), tag("th", "change")]
    return table(head, lines, wide=False)


def _over_users(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    return {split: sum(one[split] for one in figures.values()) / len(figures) for split in AGGREGATION_SPLITS}


def _aggregation_line(label: str, before: dict[str, float], after: dict[str, float]) -> Markup:
    cells = [tag("th", tag("span", label, class_="label"))]
    for split in AGGREGATION_SPLITS:
        values = (before[split], after[split])
        cells += [tag("td", text) for text in (*map(formats.perplexity, values), formats.change(*values))]
    return tag("tr", *cells)


def users_table(group: Group) -> Markup:
    """What each user had, and what it cost."""
    run, costs = group.runs[0], user_costs(group)
    columns = [
        column
        for column in ("train_tokens", "validation_tokens", "test_tokens")
        if run.array("users", column) is not None
    ]
    ranks = run.array("users", "lora_rank")
    head = [tag("th", "user"), tag("th", "experts", class_="text")] + (
        [tag("th", "LoRA rank")] if ranks is not None else []
    )
    head += [tag("th", column.replace("train_", "training_").replace("_", " ")) for column in columns]
    head += [tag("th", text) for text in ("time a round", "sent a round", "sent in all", "peak memory")]
    rows = []
    for user in group.users:
        cells = [
            tag("th", tag("span", user, class_="label")),
            tag("td", _experts(run, user), class_="text whole"),
        ]
        cells += [tag("td", int(ranks.sel(user=user)))] if ranks is not None else []
        cells += [tag("td", formats.count(float(run["users"][column].sel(user=user)))) for column in columns]
        cost = costs[user]
        texts = [formats.seconds(cost.seconds_a_round), formats.size(cost.bytes_a_round)]
        texts += [formats.size(cost.bytes_in_all), formats.size(cost.peak_bytes)]
        rows.append(tag("tr", *cells, *[tag("td", text) for text in texts]))
    return table(head, rows)


def _experts(run: Run, user: str) -> str:
    roles = run.expert_roles(user)
    counts = {role: roles.count(role) for role in ("generalist", "specialist")}
    words = [f"{number} {role}{'s' if number > 1 else ''}" for role, number in counts.items() if number]
    return " + ".join(words) or "none"


def costs_table(groups: Sequence[Group]) -> Markup:
    """A line an experiment: time, bytes and memory over its users."""

    def largest(values: list[float]) -> float:
        return max((value for value in values if not math.isnan(value)), default=math.nan)

    def total(values: list[float]) -> float:
        present = [value for value in values if not math.isnan(value)]
        return sum(present) if present else math.nan

    head = [tag("th", text) for text in ("method", "time a round (slowest user)", "time for the run")]
    head += [
        tag("th", text)
        for text in ("sent a round (all users)", "sent in all (all users)", "peak memory (largest user)")
    ]
    rows = []
    for group in groups:
        costs = list(user_costs(group).values())
        texts = [
            formats.seconds(largest([cost.seconds_a_round for cost in costs])),
            formats.seconds(run_seconds(group)),
        ]
        texts += [
            formats.size(total([cost.bytes_a_round for cost in costs])),
            formats.size(total([cost.bytes_in_all for cost in costs])),
        ]
        texts += [formats.size(largest([cost.peak_bytes for cost in costs]))]
        rows.append(
            tag(
                "tr",
                tag("th", tag("span", group.label, class_="label")),
                *[tag("td", text) for text in texts],
            )
        )
    return table(head, rows)


def differing_settings(groups: Sequence[Group]) -> Markup | None:
    """The settings that are not the same in all experiments; None where there is none."""
    settings = [group.runs[0].settings for group in groups]
    found = dict.fromkeys(key for one in settings for key in one if is_experimental(key))
    keys = [key for key in found if len({one.get(key) for one in settings}) > 1]
    if not keys:
        return None
    head = [tag("th", "setting"), *[tag("th", group.label, class_="text") for group in groups]]
    rows = [
        tag("tr", tag("th", key), *[tag("td", one.get(key, formats.NONE), class_="text") for one in settings])
        for key in keys
    ]
    return table(head, rows, wide=False)


def run_details(run: Run, opened: bool) -> Markup:
    """One run's provenance and configuration, folded away unless it is the only one."""
    entries = [tag("dt", "File"), tag("dd", run.path)]
    for name, words in PROVENANCE.items():
        if run.attribute(name):
            entries += [tag("dt", words), tag("dd", run.attribute(name))]
    facts = [
        run.method,
        f"seed {run.attribute('seed') or '?'}",
        "1 round" if run.rounds.max() == 1 else f"{int(run.rounds.max())} rounds",
    ]
    title = tag("summary", f"{run.name} ", tag("span", " \N{MIDDLE DOT} ".join(facts)))
    text = run.attribute("configuration").strip()
    configuration = (
        tag("details", tag("summary", "Configuration"), tag("pre", text))
        if text
        else tag("p", "No configuration recorded.")
    )
    return tag("details", title, tag("dl", *entries), configuration, open="" if opened else None)
