"""Draws routing (Figure 4); each function gives a Figure, None where there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.draw import canvas, style
from analysis.measure.groups import Group
from analysis.read.run import ExpertKind

AXES = {"score": "mean gate weight", "load": "share of tokens"}


def _routing(group: Group, name: str = "score") -> xr.DataArray | None:
    """Gate weights (or load) by (round, user, layer, expert), averaged over the group's runs."""
    score = group.stacked("routing", name)
    return None if score is None else score.mean("run")


def _routed(score: xr.DataArray, group: Group, user: str) -> tuple[xr.DataArray, list[ExpertKind]]:
    """A user's evaluated rows and its experts; no row where the user has no choice of expert."""
    experts = group.runs[0].experts(user)
    own = score.sel(user=user)
    if not experts:
        # A file that does not say what its experts are: count those that have figures, call them specialists.
        count = int((~own.isnull().all(["round", "layer"])).sum())
        experts = [ExpertKind("specialist", number) for number in range(count)]
    own = own.isel(expert=slice(0, len(experts))).dropna("round", how="all")
    return (own if len(experts) > 1 else own.isel(round=slice(0, 0))), experts


def _nothing(axes: Axes, experts: Sequence[ExpertKind]) -> None:
    text = "one expert: nothing to route" if len(experts) < 2 else "no routing recorded"
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=style.MUTED)
    axes.grid(False)
    axes.spines[:].set_color(style.RC["grid.color"])


@canvas.styled
def routing_over_rounds(group: Group, name: str = "score") -> Figure | None:
    """A panel a user: mean gate weight (or load) over rounds by layer and expert, darker for deeper layers.

    Where users have more than two experts, lines for every layer would hide one another: then
    a thick line is an expert's mean over layers, and the layers are faint.
    """
    score = _routing(group, name)
    if score is None:
        return None
    figure, panels = canvas.panels(len(group.users), 2.55, sharex=True, sharey=True)
    drawn = [_routed(score, group, user) for user in group.users]
    shown = _shown(drawn)
    draw = _layer_lines if len(shown) <= 2 else _mean_lines
    for axes, user, (own, experts) in zip(panels, group.users, drawn):
        _routing_axes(axes, user, own, experts, AXES[name])
        canvas.round_axis(axes, canvas.is_bottom(axes))
        for place, colour in enumerate(style.expert_colours(experts) if own.sizes["round"] > 0 else []):
            draw(axes, own.isel(expert=place), colour, "--" if experts[place].number % 2 else "-")
    if shown:
        canvas.legend(figure, *_routing_legend(shown, score["layer"].values), most=6)
    return figure


def _shown(drawn: Sequence[tuple[xr.DataArray, list[ExpertKind]]]) -> list[ExpertKind]:
    """Every expert that any user's panel has."""
    return sorted({expert for own, experts in drawn if own.sizes["round"] > 0 for expert in experts})


def routing_key(group: Group) -> str:
    """How to read routing_over_rounds of this experiment."""
    score = _routing(group)
    if score is not None and len(_shown([_routed(score, group, user) for user in group.users])) > 2:
        return "Thick: an expert\u2019s mean over layers; thin: single layers."
    return "One line a layer, darker for deeper layers."


def _routing_legend(experts: Sequence[ExpertKind], layers: np.ndarray) -> tuple[list, list[str]]:
    colours, names = style.expert_colours(experts), style.expert_names(experts)
    if len(experts) > 2:
        handles = [Line2D([], [], color=colour, linewidth=2.6) for colour in colours]
        faint = Line2D([], [], color=style.MUTED, linewidth=0.8, alpha=0.5)
        return [*handles, faint], [*names, "single layers"]
    steps = sorted({round(step) for step in np.linspace(0, len(layers) - 1, 5)})
    shades = [
        tuple(Patch(color=style.depth_shade(colour, step, len(layers))) for step in steps)
        for colour in (*colours, "#8a8f98")
    ]
    return shades, [*names, f"layer {layers[0]} to layer {layers[-1]}"]


def _routing_axes(
    axes: Axes, user: str, own: xr.DataArray, experts: Sequence[ExpertKind], label: str
) -> None:
    """What all routing figures share: title, scale, and a sentence where there is nothing to draw."""
    axes.set_title(canvas.plain(user))
    axes.set_ylim(0, 1)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel(label)
    if own.sizes["round"] == 0:
        _nothing(axes, experts)


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


@canvas.styled
def routing_by_layer(group: Group) -> Figure | None:
    """A panel a user: each layer's gate weights at the last evaluated round, stacked to one."""
    score = _routing(group)
    if score is None:
        return None
    layers = score["layer"].values
    figure, panels = canvas.panels(len(group.users), 2.35, sharex=True, sharey=True)
    drawn = [_routed(score, group, user) for user in group.users]
    for axes, user, (own, experts) in zip(panels, group.users, drawn):
        _routing_axes(axes, user, own, experts, AXES["score"])
        axes.set_xticks(layers[:: math.ceil(len(layers) / 16)])
        if canvas.is_bottom(axes):
            axes.set_xlabel("layer")
        if own.sizes["round"] > 0:
            weights = own.isel(round=-1).transpose("layer", "expert").values
            _stacked_layers(axes, layers, weights, experts)
    if shown := _shown(drawn):
        colours = style.expert_colours(shown)
        canvas.legend(figure, [Patch(color=colour) for colour in colours], style.expert_names(shown), 6)
    return figure


def _stacked_layers(
    axes: Axes, layers: np.ndarray, weights: np.ndarray, experts: Sequence[ExpertKind]
) -> None:
    bottom = np.zeros(len(layers))
    weights = np.nan_to_num(weights)
    for place, colour in enumerate(style.expert_colours(experts)):
        axes.bar(
            layers,
            weights[:, place],
            bottom=bottom,
            color=colour,
            width=0.78,
            edgecolor="white",
            linewidth=0.5,
        )
        bottom += weights[:, place]
    axes.grid(False, axis="x")
    axes.axhline(0.5, color="white", linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(layers.min() - 0.6, layers.max() + 0.6)
