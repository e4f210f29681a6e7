"""Draws figures from labelled arrays; each function gives a Figure, None where there is nothing to draw."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from analysis import style
from analysis.compare import Group, all_users

WIDTH = 10.5  # inches: 1008 CSS pixels, so that a figure fills the page without being scaled
MOST_MARKERS = 30


def plain(text: object, longest: int = 32) -> str:
    """Text from a file as a label: one line, no mathematics, not too long."""
    line = " ".join(str(text).split())
    line = line if len(line) <= longest else line[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return line.replace("$", r"\$")


def styled(draw: Callable) -> Callable:
    """Draws with the project's typography, whatever the caller's matplotlib settings are."""

    @wraps(draw)
    def drawn(*arguments, **options):
        with matplotlib.rc_context(style.RC):
            return draw(*arguments, **options)

    return drawn


def save(figure: Figure, folder: Path, name: str) -> str:
    """Writes name.svg and name.png into the folder and returns the SVG text."""
    text = io.StringIO()
    with matplotlib.rc_context(style.RC), warnings.catch_warnings():
        # A script that the font lacks shows as boxes; the tables have the name in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(text, format="svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", format="png")
    (folder / f"{name}.svg").write_text(text.getvalue(), encoding="utf-8")
    return text.getvalue()


def _panels(count: int, height: float, **sharing: bool) -> tuple[Figure, list[Axes]]:
    """A grid of panels, two a row up to four, then three, then four; unused ones are removed."""
    columns = min(count, 2 if count <= 4 else 3 if count <= 9 else 4)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(WIDTH if count > 1 else 0.62 * WIDTH, 0.6 + height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    axes = list(figure.subplots(rows, columns, squeeze=False, **sharing).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _legend(figure: Figure, handles: Sequence, labels: Sequence[str], columns: int = 5) -> None:
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=min(len(labels), columns),
        columnspacing=1.6,
        handlelength=2.2,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
    )


def _round_axis(axes: Axes, label: bool) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    if label:
        axes.set_xlabel("communication round")


def _is_bottom(axes: Axes) -> bool:
    return axes.get_subplotspec().is_last_row()


# Perplexity over rounds (Figure 3) --------------------------------------------------------------------------


@styled
def perplexity_curves(groups: Sequence[Group]) -> Figure | None:
    """A panel a user: test solid, validation dashed, a colour an experiment, a band for seeds."""
    arrays = {
        split: [group.stacked("perplexity", split) for group in groups] for split in ("test", "validation")
    }
    present = [array for found in arrays.values() for array in found if array is not None]
    users = all_users(groups)
    if not present:
        return None
    colours = style.method_colours([group.method for group in groups])
    figure, panels = _panels(len(users), 2.75, sharex=True)
    finite = np.concatenate([array.values[np.isfinite(array.values)] for array in present])
    logarithmic = finite.size > 0 and finite.max() > 4 * finite.min() > 0
    for axes, user in zip(panels, users):
        for split in ("validation", "test"):
            for array, colour in zip(arrays[split], colours):
                if array is not None and user in array["user"].values:
                    _curve(axes, array.sel(user=user), colour, split, crowded=len(groups) > 3)
        axes.set_title(plain(user))
        _perplexity_axis(axes, logarithmic)
        _round_axis(axes, _is_bottom(axes))
    handles = [Line2D([], [], color=colour, linewidth=2.4) for colour in colours] if len(groups) > 1 else []
    labels = [plain(group.label, 60) for group in groups] if len(groups) > 1 else []
    lines = [
        Line2D([], [], color=style.INK if len(groups) > 1 else colours[0], linestyle=line)
        for line in ("-", "--")
    ]
    longest = max((len(label) for label in labels), default=0)
    _legend(
        figure,
        handles + lines,
        [*labels, "test", "validation"],
        8 if longest < 16 else 4 if longest < 30 else 2,
    )
    return figure


def _curve(axes: Axes, values: xr.DataArray, colour: str, split: str, *, crowded: bool) -> None:
    """Mean over runs, with a band of one standard deviation; rounds that were not evaluated are bridged."""
    values = values.where(np.isfinite(values)).dropna("round", how="all")
    if values.sizes["round"] == 0:
        return
    rounds, mean = values["round"].values, values.mean("run").values
    look = {"color": colour, "linestyle": "-", "linewidth": 1.7}
    if split != "test":
        look |= {"linestyle": (0, (4, 2)), "linewidth": 1.2, "alpha": 0.6 if crowded else 1.0}
    if len(rounds) == 1:
        axes.axhline(mean[0], **(look | {"linewidth": 1.0}))
    marked = {"marker": "o", "markersize": 3.2} if len(rounds) <= MOST_MARKERS and split == "test" else {}
    axes.plot(rounds, mean, **look, **marked)
    if values.sizes["run"] > 1 and split == "test":
        spread = values.std("run", ddof=1).fillna(0).values
        axes.fill_between(rounds, mean - spread, mean + spread, color=colour, alpha=0.16, linewidth=0)


def _perplexity_axis(axes: Axes, logarithmic: bool) -> None:
    axes.set_ylabel("perplexity")
    if not logarithmic:
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = (1, 1.5, 2, 3, 4, 6) if high < 20 * low else (1, 2, 5) if high < 500 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=30))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


# Routing (Figure 4) -----------------------------------------------------------------------------------------


def _routing(group: Group) -> xr.DataArray | None:
    """Gate weights by (round, user, layer, expert), averaged over the group's runs."""
    score = group.stacked("routing", "score")
    return None if score is None else score.mean("run")


def _routed(score: xr.DataArray, group: Group, user: str) -> tuple[xr.DataArray, list[str]]:
    """A user's evaluated rows and the roles of its experts; no row where the user has no choice of expert."""
    roles = group.runs[0].expert_roles(user)
    own = score.sel(user=user)
    if not roles:
        # A file that does not say what its experts are: count those that have figures, call them specialists.
        roles = ["specialist"] * int((~own.isnull().all(["round", "layer"])).sum())
    own = own.isel(expert=slice(0, len(roles))).dropna("round", how="all")
    return (own if len(roles) > 1 else own.isel(round=slice(0, 0))), roles


def _nothing(axes: Axes, roles: Sequence[str]) -> None:
    text = "one expert: nothing to route" if len(roles) < 2 else "no routing recorded"
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=style.MUTED)
    axes.grid(False)
    axes.spines[:].set_color(style.RC["grid.color"])


@styled
def routing_over_rounds(group: Group) -> Figure | None:
    """A panel a user: mean gate weight over rounds by layer and expert, darker for deeper layers.

    Where a user has more than two experts, lines for every layer would hide one another: then
    a thick line is an expert's mean over layers, and the layers are faint.
    """
    score = _routing(group)
    if score is None:
        return None
    figure, panels = _panels(len(group.users), 2.55, sharex=True, sharey=True)
    drawn = [_routed(score, group, user) for user in group.users]
    widest = max((roles for own, roles in drawn if own.sizes["round"] > 0), key=len, default=[])
    draw = _layer_lines if len(widest) <= 2 else _mean_lines
    for axes, user, (own, roles) in zip(panels, group.users, drawn):
        _routing_axes(axes, user, own, roles)
        _round_axis(axes, _is_bottom(axes))
        for expert, colour in enumerate(style.expert_colours(roles) if own.sizes["round"] > 0 else []):
            draw(
                axes,
                own.isel(expert=expert),
                colour,
                "--" if roles[:expert].count(roles[expert]) % 2 else "-",
            )
    if widest:
        _legend(figure, *_routing_legend(widest, score["layer"].values), columns=6)
    return figure


def routing_key(group: Group) -> str:
    """How to read routing_over_rounds of this experiment."""
    if max(len(group.runs[0].expert_roles(user)) for user in group.users) > 2:
        return "Thick: an expert\u2019s mean over layers; thin: single layers."
    return "One line a layer, darker for deeper layers."


def _routing_legend(roles: Sequence[str], layers: np.ndarray) -> tuple[list, list[str]]:
    colours, names = style.expert_colours(roles), style.expert_names(roles)
    if len(roles) > 2:
        handles = [Line2D([], [], color=colour, linewidth=2.6) for colour in colours]
        faint = Line2D([], [], color=style.MUTED, linewidth=0.8, alpha=0.5)
        return [*handles, faint], [*names, "single layers"]
    steps = sorted({round(step) for step in np.linspace(0, len(layers) - 1, 5)})
    shades = [
        tuple(Patch(color=style.depth_shade(colour, step, len(layers))) for step in steps)
        for colour in (*colours, "#8a8f98")
    ]
    return shades, [*names, f"layer {layers[0]} to layer {layers[-1]}"]


def _routing_axes(axes: Axes, user: str, own: xr.DataArray, roles: Sequence[str]) -> None:
    """What both routing figures share: title, scale, and a sentence where there is nothing to draw."""
    axes.set_title(plain(user))
    axes.set_ylim(0, 1)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel("mean gate weight")
    if own.sizes["round"] == 0:
        _nothing(axes, roles)


def _layer_lines(axes: Axes, weights: xr.DataArray, colour: str, line: str) -> None:
    layers = weights.sizes["layer"]
    marker = "o" if weights.sizes["round"] == 1 else None
    for layer in range(layers):
        shade = style.depth_shade(colour, layer, layers)
        look = {"linewidth": 1.5 if layers <= 12 else 1.0, "marker": marker, "markersize": 3}
        axes.plot(weights["round"], weights.isel(layer=layer), color=shade, linestyle=line, **look)


def _mean_lines(axes: Axes, weights: xr.DataArray, colour: str, _line: str) -> None:
    marker = "o" if weights.sizes["round"] == 1 else None
    for layer in range(weights.sizes["layer"]):
        axes.plot(weights["round"], weights.isel(layer=layer), color=colour, linewidth=0.7, alpha=0.35)
    axes.plot(weights["round"], weights.mean("layer"), color=colour, linewidth=2.6, marker=marker, zorder=3)


@styled
def routing_by_layer(group: Group) -> Figure | None:
    """A panel a user: each layer's gate weights at the last evaluated round, stacked to one."""
    score = _routing(group)
    if score is None:
        return None
    layers = score["layer"].values
    figure, panels = _panels(len(group.users), 2.35, sharex=True, sharey=True)
    widest: list[str] = []
    for axes, user in zip(panels, group.users):
        own, roles = _routed(score, group, user)
        _routing_axes(axes, user, own, roles)
        axes.set_xticks(layers[:: math.ceil(len(layers) / 16)])
        if _is_bottom(axes):
            axes.set_xlabel("layer")
        if own.sizes["round"] == 0:
            continue
        widest = max(widest, roles, key=len)
        _stacked_layers(axes, layers, own.isel(round=-1).transpose("layer", "expert").values, roles)
    if widest:
        colours = style.expert_colours(widest)
        _legend(figure, [Patch(color=colour) for colour in colours], style.expert_names(widest), 6)
    return figure


def _stacked_layers(axes: Axes, layers: np.ndarray, weights: np.ndarray, roles: Sequence[str]) -> None:
    bottom = np.zeros(len(layers))
    weights = np.nan_to_num(weights)
    for expert, colour in enumerate(style.expert_colours(roles)):
        axes.bar(
            layers,
            weights[:, expert],
            bottom=bottom,
            color=colour,
            width=0.78,
            edgecolor="white",
            linewidth=0.5,
        )
        bottom += weights[:, expert]
    axes.grid(False, axis="x")
    axes.axhline(0.5, color="white", linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(layers.min() - 0.6, layers.max() + 0.6)


# Phase times ------------------------------------------------------------------------------------------------


@styled
def phase_times(bars: dict[str, dict[str, float]]) -> Figure | None:
    """Mean seconds a round: a stacked bar an entry (a user, or an experiment), a colour a phase."""
    if not any(bars.values()):
        return None
    figure = Figure(figsize=(WIDTH, 1.05 + 0.34 * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shown = [phase for phase in style.PHASES if any(phase in bar for bar in bars.values())]
    longest = max(sum(bar.values()) for bar in bars.values())
    look = {"height": 0.68, "edgecolor": "white", "linewidth": 0.5}
    for position, bar in enumerate(bars.values()):
        left = 0.0
        for phase in (phase for phase in shown if phase in bar):
            axes.barh(position, bar[phase], left=left, color=style.PHASES[phase], **look)
            left += bar[phase]
        axes.text(left + 0.008 * longest, position, f"{left:.3g} s", va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), [plain(label, 40) for label in bars])
    axes.set_ylim(len(bars) - 0.45, -0.55)
    axes.set_xlim(0, 1.1 * longest)
    axes.set_xlabel("mean seconds a round")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    _legend(figure, [Patch(color=style.PHASES[phase]) for phase in shown], shown, 6)
    return figure
