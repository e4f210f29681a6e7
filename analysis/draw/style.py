"""Colours and typography shared by all figures, so that a colour means the same thing on every page."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.colors import to_hex, to_rgb

from analysis.measure import costs
from analysis.measure.groups import METHODS
from analysis.read.run import ExpertKind

GENERALIST = "#ff7f0e"
SPECIALIST = "#1f77b4"
NEUTRAL = "#6a51a3"
PARTNER = "#17a2b8"
INK = "#1c2430"
MUTED = "#5d6775"

# Settings of matplotlib for every figure, on top of its own defaults; text becomes outlines, so that it looks the same everywhere.
RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.edgecolor": "#9aa3ae",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "path",
    "svg.hashsalt": "comigs",
    "savefig.dpi": 160,
}

# Families of hues for a second, third, ... expert of the same role: still orange, still blue.
_GENERALISTS = (GENERALIST, "#f5b53f", "#b34700", "#ffcf9e")
_SPECIALISTS = (SPECIALIST, "#6cc3e0", "#123f6d", "#a8c9ec", "#5468c4", "#138c9c", "#8f9fd9")

# One hue a family: grey and brown bounds, green local, purple averaged, pink CoMiGS; paler where a router is
# trained on training data. No two methods of one figure of the paper look alike.
# fmt: off
_COLOURS = (
    "#8a8f98", "#6b4f3a",
    "#2a9d6f", "#8a63c7", "#b58900", "#d9b44a", "#17a2b8", "#5f7dd6",
    "#6b8e23", "#c45ab3", "#a0522d", "#a9c46c", "#e0a3d6", "#f08fa9",
    SPECIALIST, GENERALIST, "#d0225f", "#7a1040", "#3d0a52",
    "#3c4a5c", "#008080",
    "#7cc7a4", "#a48fd0", "#9c8468",
    "#5b3a29", "#4f2f9e", "#1f6f4d", "#d98cb3", "#7b9e1f", "#2b5fae", "#e0662f", "#a3174f",
)
# fmt: on
_METHODS = dict(zip(METHODS, _COLOURS, strict=True))
_OTHER_METHODS = ("#4b6cb7", "#7d7d3a", "#b22222", "#5468c4", "#c77c4e", "#2f6f4f", "#94556f", "#111111")
# Experiments of one method in an order of their own (numbers of experts, learning rates, ...).
_SERIES = ("#2a9d6f", "#e07b39", "#46618c", "#b0307a", "#b58900", "#17a2b8", "#6b4f3a", "#8a8f98")

_PHASES = ("#46618c", "#93a9cc", "#c8577e", "#b9b3a2", "#7a6a58", "#a8896b", "#dfe2e6")
PHASES = dict(zip(costs.PHASES, _PHASES, strict=True))


def method_colours(methods: Sequence[str]) -> list[str]:
    """A colour for each entry: a method's own where it has one, and no colour twice while they last."""
    spare = [*_OTHER_METHODS]
    taken: set[str] = set()
    colours = []
    for method in methods:
        colour = _METHODS.get(method)
        if colour is None or colour in taken:
            colour = spare.pop(0) if spare else _METHODS.get(method, INK)
        taken.add(colour)
        colours.append(colour)
    return colours


def series_colours(count: int) -> list[str]:
    """Colours for experiments that differ in a setting rather than in method."""
    return [_SERIES[index % len(_SERIES)] for index in range(count)]


def expert_colours(experts: Sequence[ExpertKind]) -> list[str]:
    """A colour for each expert, the same for all users: orange for generalists, blue for specialists."""
    families = {"generalist": _GENERALISTS, "specialist": _SPECIALISTS}
    return [families[role][number % len(families[role])] for role, number in experts]


def expert_names(experts: Sequence[ExpertKind]) -> list[str]:
    """`generalist`, `specialist`; with their numbers where there are several of a role."""
    roles = [expert.role for expert in experts]
    return [f"{role} {number}" if roles.count(role) > 1 else role for role, number in experts]


def tint(colour: str) -> str:
    """The colour light enough to read dark text on it."""
    return to_hex([0.45 + 0.55 * part for part in to_rgb(colour)])


def depth_shade(colour: str, layer: int, layers: int) -> str:
    """The colour for a layer: light for the first, dark for the last, as in the paper's Figure 4."""
    depth = layer / (layers - 1) if layers > 1 else 0.7
    towards, share = (
        ((1.0, 1.0, 1.0), 0.62 * (1 - depth / 0.7)) if depth < 0.7 else ((0.0, 0.0, 0.0), 1.3 * (depth - 0.7))
    )
    red, green, blue = ((1 - share) * own + share * other for own, other in zip(to_rgb(colour), towards))
    return to_hex((red, green, blue))
