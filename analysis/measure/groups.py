"""Which runs are seeds of one experiment, what each experiment is called, and what to know before comparing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analysis.read.run import Run

# The order of the paper's tables, as `comigs methods` has it (results are also read where the program is not); what is
# not in it follows in the order given.
METHODS = (
    "pretrained centralized local fedavg ffa-lora fedsa-lora pcl fdlora local-moe fedavg-moe pfedmoe "
    "local-moe-tr fedavg-moe-tr comigs-1g1s-tr comigs-2s comigs-2g comigs-1g1s comigs-1gxs comigs-mgxs hetlora flexlora "
    "prompt-local fedprompt prompt-centralized mop-centralized mop mop-local mop-equal mop-own-gate mop-1g1s mop-1gxs "
    "mop-mgxs"
).split()
# Settings that say where and how a run ran, or which seed it had, not what was computed: digests say more
# about the data and the base model than the folders that they lay in.
NOT_THE_EXPERIMENT = frozenset(
    "run.seed run.output run.device run.threads run.reproducible run.evaluate_every run.weights_every "
    "data.folder model.folder".split()
)


@dataclass
class Group:
    """Runs of one experiment that differ in their seed only."""

    label: str
    runs: list[Run]

    @property
    def method(self) -> str:
        return self.runs[0].method

    @property
    def users(self) -> list[str]:
        return self.runs[0].users

    @property
    def comparable(self) -> tuple:
        """Perplexities may be compared where data, base model and users are the same."""
        run = self.runs[0]
        return (
            run.attribute("data_digest") or run.attribute("data_set"),
            run.attribute("base_digest") or run.attribute("base_model"),
            tuple(run.users),
        )

    def stacked(self, group: str, name: str) -> xr.DataArray | None:
        """The array of all runs that have it, along a new first dimension `run`; None where none has."""
        arrays = [array for run in self.runs if (array := run.array(group, name)) is not None]
        return xr.concat(arrays, dim="run", join="outer") if arrays else None


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs that agree in all but seed and place belong together; methods in the paper's order."""
    together: dict[tuple, list[Run]] = {}
    for run in runs:
        together.setdefault(_experiment(run), []).append(run)
    groups = [Group(members[0].method, members) for members in together.values()]
    groups.sort(key=lambda group: METHODS.index(group.method) if group.method in METHODS else len(METHODS))
    for method in {group.label for group in groups}:
        namesakes = [group for group in groups if group.label == method]
        if len(namesakes) > 1:
            _tell_apart(namesakes)
    return groups


def _experiment(run: Run) -> tuple:
    def listed(name: str) -> tuple:
        array = run.array("users", name)
        return () if array is None else tuple(array.values.tolist())

    return (
        run.method,
        *Group("", [run]).comparable,
        listed("experts"),
        listed("lora_rank"),
        *sorted(_relevant(run).items()),
    )


def is_experimental(key: str) -> bool:
    """Whether a setting (`section.key`) is part of what was computed."""
    return key not in NOT_THE_EXPERIMENT


def _relevant(run: Run) -> dict[str, str]:
    return {key: value for key, value in run.settings.items() if is_experimental(key)}


def _tell_apart(groups: list[Group]) -> None:
    """Adds to each label what sets the experiment apart from others of the same method."""
    runs = [group.runs[0] for group in groups]
    traits = [{"data": data_label(run, runs), **_relevant(run)} for run in runs]
    keys = [
        key for key in dict.fromkeys(k for t in traits for k in t) if len({t.get(key) for t in traits}) > 1
    ]
    short = [f"{key.rpartition('.')[2]} {{}}" for key in keys[:3]]
    for group, trait in zip(groups, traits):
        group.label += (
            " (" + ", ".join(text.format(trait.get(key, "-")) for key, text in zip(keys, short)) + ")"
        )
    if len({group.label for group in groups}) < len(groups) or not keys:
        for group in groups:
            group.label = f"{group.method} ({group.runs[0].name})"
    if len({group.label for group in groups}) < len(groups):
        for number, group in enumerate(groups, start=1):
            group.label = f"{group.method} ({number}: {group.runs[0].path})"


def data_label(run: Run, among: Sequence[Run]) -> str:
    """The data set's name, with its digest's first digits where `among` holds other data of that name."""
    name = run.attribute("data_set")
    digests = {other.attribute("data_digest") for other in among if other.attribute("data_set") == name}
    return name if len(digests) < 2 else f"{name} {run.attribute('data_digest')[:8] or '?'}"


def all_users(groups: Sequence[Group]) -> list[str]:
    """Every user of any experiment, in order of first appearance."""
    return list(dict.fromkeys(user for group in groups for user in group.users))


def evaluated_rounds(groups: Sequence[Group]) -> str:
    """In words, after which rounds test perplexity is known: each one, every n-th, or some."""
    steps: set[int] = set()
    for run in (run for group in groups for run in group.runs):
        array = run.array("perplexity", "test")
        if array is not None:
            known = array["round"].values[array.notnull().any("user").values]
            # The last round is always evaluated, so its step may be shorter than the others.
            steps |= {int(step) for step in (np.diff(known)[:-1] if len(known) > 2 else np.diff(known))}
    if steps <= {1}:
        return "each communication round"
    return f"every {min(steps)} communication rounds" if len(steps) == 1 else "the rounds marked"


def rounds_text(group: Group) -> str:
    """The rounds behind the figures: '20', '12 of 20', or '12-20' where runs differ."""
    lasts = sorted({int(run.rounds.max()) for run in group.runs})
    text = str(lasts[0]) if len(lasts) == 1 else f"{lasts[0]}\N{EN DASH}{lasts[-1]}"
    planned = {run.planned_rounds or 0 for run in group.runs if run.is_unfinished}
    return f"{text} of {max(planned)}" if planned else text


def seeds_text(group: Group) -> str:
    """The runs' seeds, comma-separated."""
    return ", ".join(run.attribute("seed") or "?" for run in group.runs)


def remarks(groups: Sequence[Group]) -> list[str]:
    """What a reader must know before comparing: one sentence each."""
    found = []
    if len({group.comparable for group in groups}) > 1:
        found.append(
            "These runs differ in data set, base model or users: perplexities of one kind cannot be compared "
            "with those of another, and the best is marked within each kind."
        )
    runs = [run for group in groups for run in group.runs]
    for run in runs:
        if run.is_unfinished:
            found.append(
                f"{run.name} ({run.method}, seed {run.attribute('seed') or '?'}) holds "
                f"{int(run.rounds.max())} of {run.planned_rounds} rounds: still running, or stopped. "
                "Its figures are those of its last round."
            )
    lasts = {int(run.rounds.max()) for run in runs if not run.is_untrained}
    if len(lasts) > 1:
        found.append("These runs have trained for different numbers of rounds (column \u201crounds\u201d).")
    for group in groups:
        seeds = [run.attribute("seed") for run in group.runs]
        if len(set(seeds)) < len(seeds):
            found.append(
                f"{group.label}: several runs have the same seed, so their spread is not that over seeds."
            )
    return found
