"""The page of token-level routing: the score of every token on hover, a switch for the layer, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.draw import style
from analysis.page import document
from analysis.page.markup import Markup, tag
from analysis.read.probes import Probe
from analysis.read.run import ExpertKind, Run

NEWLINE = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n"
SHEET = """
main.tokens { max-width: none; }
.switch { display: inline-block; margin: 8px 18px 12px 0; cursor: pointer; font-weight: 500; }
.chip { display: inline-block; border-radius: 4px; padding: 1px 8px; margin-right: 8px; font-size: 13.5px; }
.grid { display: grid; gap: 10px; overflow-x: auto; padding-bottom: 10px; }
.grid > b { align-self: end; font-size: 14px; overflow-wrap: anywhere; }
.text { border: 1px solid var(--line); border-radius: 6px; padding: 8px 10px; font-size: 13px; }
.text p { line-height: 1.65; }
.own { border: 2px solid var(--ink); }
.text p { white-space: pre-wrap; margin: 0 0 6px; max-width: none; }
.text small { color: var(--muted); }
.text span { border-radius: 3px; box-shadow: inset 0 0 0 0.5px #fff; }
"""


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
    experts = [run.experts(user) for user in run.users]
    columns = len(probes) if not is_diagonal else min(len(probes), 2)
    cells = []
    if is_diagonal:
        cells = [_text(probe, user, run, experts[user], layers) for user, probe in enumerate(probes)]
    else:
        for user, name in enumerate(run.users):
            cells += [tag("b", _column_title(probe, name)) for probe in probes]
            cells += [_text(probe, user, run, experts[user], layers) for probe in probes]
    widths = f"grid-template-columns: repeat({columns}, minmax(230px, 1fr))"
    grid = tag("div", *cells, class_="grid", style=widths)
    body = tag(
        "main",
        tag(
            "header",
            tag("h1", title),
            tag("p", " \N{MIDDLE DOT} ".join(part for part in lead if part), class_="lead"),
        ),
        tag(
            "p",
            *_legend(experts),
            " Each token has the colour of its first expert; its gate weights on hover.",
        ),
        *_switches(layers, shown),
        grid,
        class_="tokens",
    )
    return document.document(title, body, Markup(SHEET + _colours(experts, layers)))


def _column_title(probe: Probe, model: str) -> str:
    whose = f"text of {probe.owner}" if probe.owner else f"text {probe.name}"
    return f"model of {model}, {whose}"


def _switches(layers: Mapping[str, int], shown: str) -> list[Markup]:
    """Radio buttons that the style sheet looks at: they must lie beside the grid."""
    parts = []
    for name, number in layers.items():
        checked = "" if name == shown else None
        place = f"layer-{name}"
        parts.append(tag("input", type="radio", name="layer", id=place, checked=checked))
        parts.append(tag("label", f" {name} layer ({number})", for_=place, class_="switch"))
    return parts


def _kinds(experts: Sequence[ExpertKind]) -> list[str]:
    """A short name for each expert: g0, g1, ... for generalists, s0, s1, ... for specialists."""
    return [f"{role[0]}{number}" for role, number in experts]


def _palette(experts: Sequence[Sequence[ExpertKind]]) -> dict[str, tuple[str, str]]:
    """Name and colour of every kind of expert that any user has."""
    found = sorted({expert for own in experts for expert in own})
    return dict(zip(_kinds(found), zip(style.expert_names(found), style.expert_colours(found))))


def _legend(experts: Sequence[Sequence[ExpertKind]]) -> list[Markup]:
    return [
        tag("span", name, class_="chip", style=f"background: {style.tint(colour)}")
        for name, colour in _palette(experts).values()
    ]


def _colours(experts: Sequence[Sequence[ExpertKind]], layers: Mapping[str, int]) -> str:
    return "\n".join(
        f"#layer-{layer}:checked ~ .grid .{layer}-{kind} {{ background: {style.tint(colour)}; }}"
        for layer in layers
        for kind, (_, colour) in _palette(experts).items()
    )


def _text(
    probe: Probe, user: int, run: Run, experts: Sequence[ExpertKind], layers: Mapping[str, int]
) -> Markup:
    tops = {name: probe.top(user, number) for name, number in layers.items()}
    kinds, names = _kinds(experts), style.expert_names(experts)
    spans = []
    for token, text in enumerate(probe.texts):
        classes = [
            f"{name}-{kinds[top[token]]}" for name, top in tops.items() if 0 <= top[token] < len(kinds)
        ]
        hover = "\n".join(
            f"{name} layer: {_weights(probe.score[user, token, number], names)}"
            for name, number in layers.items()
        )
        shown = text.replace("\n", NEWLINE)
        spans.append(tag("span", shown, class_=" ".join(classes) or None, title=hover))
    share = ", ".join(f"{_generalist_share(top, experts)} ({name} layer)" for name, top in tops.items())
    owner = probe.owner == run.users[user]
    return tag(
        "div",
        tag("p", *spans),
        tag("small", f"{probe.owner or probe.name}: generalist first for {share}"),
        class_="text own" if owner else "text",
    )


def _weights(score: np.ndarray, names: Sequence[str]) -> str:
    known = [f"{name} {weight:.2f}" for name, weight in zip(names, score) if not np.isnan(weight)]
    return ", ".join(known) or "no gate"


def _generalist_share(top: np.ndarray, experts: Sequence[ExpertKind]) -> str:
    known = top[top >= 0]
    if known.size == 0:
        return "-"
    generalists = [place for place, expert in enumerate(experts) if expert.role == "generalist"]
    return f"{100 * np.mean(np.isin(known, generalists)):.0f} %"
