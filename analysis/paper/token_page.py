"""The page of token-level routing: the score of every token on hover, a switch for the layer, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from analysis.draw import style
from analysis.page.html import render
from analysis.read.probes import Probe
from analysis.read.run import ExpertKind, Run

NEWLINE = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n"


@dataclass(frozen=True)
class Kind:
    """A kind of expert: its name in the style sheet (g0, s1, ...), in words, its colour behind text."""

    name: str
    words: str
    colour: str


@dataclass(frozen=True)
class Token:
    """What is shown, the first expert at each layer (`first-g0 last-s0`), and the gate's weights on hover."""

    shown: str
    classes: str
    hover: str


@dataclass(frozen=True)
class Text:
    """A text as a user's model routes it; `is_own`: it is the user's own."""

    tokens: list[Token]
    note: str
    is_own: bool


@dataclass(frozen=True)
class Row:
    """Texts beside one another, below their headings where they have any."""

    headings: list[str]
    texts: list[Text]


def token_page(
    title: str,
    lead: Sequence[str],
    run: Run,
    probes: Sequence[Probe],
    layers: Mapping[str, int],
    shown: str,
    is_diagonal: bool = False,
) -> Markup:
    """A line a user's model, a column a text (or each user's own text only); opens at the layer `shown`."""
    if is_diagonal:
        rows = [Row([], [_text(probe, user, run, layers) for user, probe in enumerate(probes)])]
    else:
        rows = [
            Row(
                [_column_title(probe, name) for probe in probes],
                [_text(probe, user, run, layers) for probe in probes],
            )
            for user, name in enumerate(run.users)
        ]
    return render(
        "tokens.html",
        title=title,
        lead=[part for part in lead if part],
        palette=_palette([run.experts(user) for user in run.users]),
        layers=layers,
        shown=shown,
        columns=len(probes) if not is_diagonal else min(len(probes), 2),
        rows=rows,
    )


def _column_title(probe: Probe, model: str) -> str:
    whose = f"text of {probe.owner}" if probe.owner else f"text {probe.name}"
    return f"model of {model}, {whose}"


def _kinds(experts: Sequence[ExpertKind]) -> list[str]:
    """A short name for each expert: g0, g1, ... for generalists, s0, s1, ... for specialists."""
    return [f"{role[0]}{number}" for role, number in experts]


def _palette(experts: Sequence[Sequence[ExpertKind]]) -> list[Kind]:
    """Every kind of expert that any user has."""
    found = sorted({expert for own in experts for expert in own})
    colours = map(style.tint, style.expert_colours(found))
    return [Kind(*entry) for entry in zip(_kinds(found), style.expert_names(found), colours)]


def _text(probe: Probe, user: int, run: Run, layers: Mapping[str, int]) -> Text:
    experts = run.experts(run.users[user])
    tops = {name: probe.top(user, number) for name, number in layers.items()}
    kinds, names = _kinds(experts), style.expert_names(experts)
    tokens = []
    for token, text in enumerate(probe.texts):
        classes = [
            f"{name}-{kinds[top[token]]}" for name, top in tops.items() if 0 <= top[token] < len(kinds)
        ]
        hover = "\n".join(
            f"{name} layer: {_weights(probe.score[user, token, number], names)}"
            for name, number in layers.items()
        )
        tokens.append(Token(text.replace("\n", NEWLINE), " ".join(classes), hover))
    share = ", ".join(f"{_generalist_share(top, experts)} ({name} layer)" for name, top in tops.items())
    note = f"{probe.owner or probe.name}: generalist first for {share}"
    return Text(tokens, note, is_own=probe.owner == run.users[user])


def _weights(score: np.ndarray, names: Sequence[str]) -> str:
    known = [f"{name} {weight:.2f}" for name, weight in zip(names, score) if not np.isnan(weight)]
    return ", ".join(known) or "no gate"


def _generalist_share(top: np.ndarray, experts: Sequence[ExpertKind]) -> str:
    known = top[top >= 0]
    if known.size == 0:
        return "-"
    generalists = [place for place, expert in enumerate(experts) if expert.role == "generalist"]
    return f"{100 * np.mean(np.isin(known, generalists)):.0f} %"
