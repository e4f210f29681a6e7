"""The page about what experts and routers learnt: one section a question, all from results files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from analysis.draw import routing
from analysis.insight import drawing, words
from analysis.insight.subspaces import Similarities, similarities
from analysis.measure.groups import Group, group_runs
from analysis.page.drawings import Drawing, FigureFolder
from analysis.page.headline import headline
from analysis.page.html import render, write_page
from analysis.read.probes import Probe, read_probes
from analysis.read.run import Run


@dataclass
class Drawn:
    """What a section shows of an experiment: figures, then remarks."""

    drawings: list[Drawing]
    remarks: list[str] = field(default_factory=list)


# Draws an experiment's figures, whose names end as told; a text where there is nothing to draw.
Section = Callable[[Group, FigureFolder, str], Drawn | str]


@dataclass
class Found:
    """A section of all experiments: what is drawn by label, and the labels of what is missing by its text."""

    drawn: list[tuple[str, Drawn]] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)


def write_insight(runs: Sequence[Run], output: Path) -> FigureFolder:
    """Writes the page to `output` and its figures to `<output>_figures`."""
    groups = group_runs(runs)
    folder = FigureFolder.beside(output)
    title, lead = headline(groups)
    page = render(
        "insight.html",
        title=f"Insight: {title}",
        lead=lead,
        headings={name: heading for name, (heading, _) in SECTIONS.items()} | {"overfitting": "Overfitting"},
        several=len(groups) > 1,
        sections={name: _each(groups, folder, section) for name, (_, section) in SECTIONS.items()},
        gaps=_gaps(groups, folder),
    )
    write_page(page, output)
    return folder


def _each(groups: Sequence[Group], folder: FigureFolder, section: Section) -> Found:
    found = Found()
    for number, group in enumerate(groups, start=1):
        one = section(group, folder, f"_{number}" if len(groups) > 1 else "")
        if isinstance(one, Drawn):
            found.drawn.append((group.label, one))
        else:
            found.missing.setdefault(one, []).append(group.label)
    return found


def _routers(group: Group, folder: FigureFolder, ending: str) -> Drawn | str:
    entropy = drawing.entropy_over_rounds(group)
    if entropy is None:
        return "no routing entropy recorded (a method without a router has none)."
    caption = "Mean entropy of the gate over the evaluated tokens: low where each token has one clear expert."
    drawings = [folder.add(entropy, f"entropy{ending}", "Entropy of the gate over rounds", caption)]
    top_k, experts = (group.runs[0].array("users", name) for name in ("top_k", "experts"))
    has_choice = top_k is not None and experts is not None and bool((experts > top_k).any())
    load = routing.routing_over_rounds(group, "load") if has_choice else None
    if load is None:
        remark = "Every user's top-k takes all of its experts: each has every token, no load to show."
        return Drawn(drawings, [remark])
    caption = f"Share of tokens that have the expert among their top-k. {routing.routing_key(group)}"
    return Drawn([*drawings, folder.add(load, f"load{ending}", "Load over rounds", caption)])


def _words(group: Group, folder: FigureFolder, ending: str) -> Drawn | str:
    run, probes = next(
        ((run, probes) for run in group.runs if (probes := read_probes(run))), (group.runs[0], [])
    )
    routed = [
        user
        for user in run.users
        if "generalist" in run.expert_roles(user) and len(run.expert_roles(user)) > 1
    ]
    if not probes or not routed:
        return "no tokens of a user with a generalist and a specialist (comigs route writes them)."
    counts = words.training_counts(run)
    own_counts = [words.probe_counts(probes)] * len(run.users)
    by_frequency, by_word = {}, {}
    for user in routed:
        index = run.users.index(user)
        by_frequency[user], by_word[user] = _user_words(run, index, probes, (counts or own_counts)[index])
    drawn = drawing.generalist_by_words(by_frequency, by_word, range(probes[0].score.shape[2]))
    count = sum(len(probe.texts) for probe in probes)
    source = (
        "its user's training tokens" if counts else "these texts themselves (the data folder is not there)"
    )
    caption = (
        f"Mean gate weight of the generalist in {run.name}, each user's model on its own texts (all texts "
        f"where it has none); left and middle: mean over layers. Ranks: frequency of the token in {source}. "
        f"Function words: a small list by language. {count:,} tokens in {len(probes)} texts."
    )
    return Drawn(
        [folder.add(drawn, f"words{ending}", "Gate weight of the generalist by kind of token", caption)]
    )


def _user_words(
    run: Run, user: int, probes: Sequence[Probe], counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Means over (class, layer) of the generalist's weight: by frequency and by class of word."""
    name = run.users[user]
    read = [probe for probe in probes if probe.owner == name] or list(probes)
    share = np.concatenate([words.generalist_share(probe, user, run.expert_roles(name)) for probe in read])
    by_rank = np.concatenate([words.frequency_classes(probe.ids, counts) for probe in read])
    by_class = np.concatenate([words.word_classes(probe.texts, probe.owner) for probe in read])
    return (
        words.mean_by_class(share, by_rank, len(words.frequency_names())),
        words.mean_by_class(share, by_class, len(words.WORD_CLASSES)),
    )


def _experts(group: Group, folder: FigureFolder, ending: str) -> Drawn | str:
    run = group.runs[0]
    found = similarities(run)
    if found is None:
        return "no weights of two different experts recorded (--weights-every)."
    later = " Darker: later rounds." if len(found.rounds) > 1 else ""
    rounds = " and ".join(map(str, found.rounds))
    by_layer = (
        f"Overlap of the experts' updates B A in {run.name} by layer, after round {rounds}: the mean squared "
        f"cosine of the principal angles, 1 for the same directions.{later}"
    )
    pairs = (
        f"Overlap of what two experts write (columns of B A), after round {found.rounds[-1]}; mean of up and "
        f"down projection. Random directions would have {found.chance['output']:.3f}.{_held(run, found)}"
    )
    layers, table = drawing.overlaps_by_layer(found), drawing.expert_overlaps(found, "output")
    return Drawn(
        [
            folder.add(layers, f"overlap{ending}", "Overlap by layer", by_layer),
            folder.add(table, f"overlap_pairs{ending}", "Overlap of every two experts", pairs),
        ]
    )


def _held(run: Run, found: Similarities) -> str:
    """Who holds each generalist that is not the same for all users."""
    partial = [
        f"{expert.name} by {', '.join(expert.holders)}"
        for expert in found.experts
        if expert.role == "generalist" and len(expert.holders) < len(run.users)
    ]
    return f" Generalists are held by some users: {'; '.join(partial)}." if partial else ""


def _aggregation(group: Group, folder: FigureFolder, ending: str) -> Drawn | str:
    weights = drawing.weights_that_vary(group)
    if weights is None:
        return "the aggregation's weights were the same in every round."
    caption = (
        "Weights of the aggregation at rounds where they changed: row, who receives; column, whose model."
    )
    drawn = drawing.aggregation_weights(weights)
    return Drawn([folder.add(drawn, f"aggregation{ending}", "Weights of the aggregation", caption)])


def _gaps(groups: Sequence[Group], folder: FigureFolder) -> Drawing | None:
    drawn = drawing.gaps_over_rounds(groups)
    if drawn is None:
        return None
    caption = (
        "How far test loss has moved away from validation and training loss since the first evaluation: "
        "above zero, a user's model has fitted what it saw better than what it did not see."
    )
    return folder.add(drawn, "gaps", "Gap between test and other splits over rounds", caption)


# By their names in the page: the question, and who answers it.
SECTIONS: dict[str, tuple[str, Section]] = {
    "routers": ("Routers over rounds", _routers),
    "words": ("Which tokens go to the generalist", _words),
    "experts": ("How alike the experts are", _experts),
    "aggregation": ("Who learnt from whom", _aggregation),
}
