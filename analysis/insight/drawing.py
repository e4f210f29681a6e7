"""Draws what experts and routers learnt; each function gives a Figure, None where there is nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from analysis.draw import canvas, style
from analysis.insight import words
from analysis.insight.subspaces import PAIRS, Similarities
from analysis.measure.groups import Group, all_users

MOST_MATRICES = 8
MAP = "cividis"


# Routers ----------------------------------------------------------------------------------------------------


@canvas.styled
def entropy_over_rounds(group: Group) -> Figure | None:
    """A panel a user: mean entropy of the gate over rounds, a line a layer, darker for deeper layers."""
    entropy = group.stacked("routing", "entropy")
    if entropy is None:
        return None
    entropy = entropy.mean("run")
    figure, panels = canvas.panels(len(group.users), 2.4, sharex=True, sharey=True)
    layers = entropy.sizes["layer"]
    for axes, user in zip(panels, group.users):
        own = entropy.sel(user=user).dropna("round", how="all")
        for layer in range(layers):
            shade = style.depth_shade(style.NEUTRAL, layer, layers)
            axes.plot(own["round"], own.isel(layer=layer), color=shade, linewidth=1.4)
        even = _most_entropy(group, user)
        if even > 0:
            axes.axhline(even, color=style.MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.set_title(canvas.plain(user))
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel("gate entropy (nats)")
        canvas.round_axis(axes, canvas.is_bottom(axes))
    # Only now: a limit stops the shared axis from growing with later panels.
    panels[0].set_ylim(bottom=0)
    numbers = entropy["layer"].values
    ends = sorted({0, layers - 1})
    handles = [
        Line2D([], [], color=style.depth_shade(style.NEUTRAL, end, layers), linewidth=2) for end in ends
    ]
    labels = [f"layer {numbers[end]}" for end in ends]
    even = Line2D([], [], color=style.MUTED, linewidth=1, linestyle=(0, (2, 2)))
    canvas.legend(figure, [*handles, even], [*labels, "even gate"])
    return figure


def _most_entropy(group: Group, user: str) -> float:
    """The entropy of an even gate over the user's top-k experts; top-1 gates are of a softmax over all."""
    run = group.runs[0]
    experts, top_k = (run.array("users", name) for name in ("experts", "top_k"))
    if experts is None or top_k is None:
        return 0.0
    held, active = int(experts.sel(user=user)), int(top_k.sel(user=user))
    return math.log(max(1, held if active == 1 else min(held, active)))


# Words ------------------------------------------------------------------------------------------------------


@canvas.styled
def generalist_by_words(
    by_frequency: Mapping[str, np.ndarray], by_word: Mapping[str, np.ndarray], layers: Sequence[int]
) -> Figure:
    """The generalist's gate weight by user: over classes of frequency, classes of words, and layers.

    Both mappings hold, by user, means over (class, layer).
    """
    figure = Figure(figsize=(canvas.WIDTH, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=[1.25, 1, 1])
    colours = dict(zip(by_frequency, style.series_colours(len(by_frequency))))
    for axes, means, names in (
        (left, by_frequency, words.frequency_names()),
        (middle, by_word, words.WORD_CLASSES),
    ):
        for user, values in means.items():
            over_layers = values.mean(axis=1)
            axes.plot(
                range(len(names)), over_layers, color=colours[user], marker="o", markersize=4, linewidth=1.5
            )
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.4, len(names) - 0.6)
    left.set_xlabel("rank of the token's frequency")
    left.set_ylabel("generalist's gate weight")
    compared = {"function word": "-", "content word": (0, (4, 2))}
    places = [words.WORD_CLASSES.index(name) for name in compared]
    # Only users with words of both classes: else the lines would differ in whom they are about.
    both = [values for values in by_word.values() if not np.isnan(values[places]).any()]
    for (name, line), place in zip(compared.items(), places if both else []):
        look = {"color": style.INK, "linestyle": line, "linewidth": 1.8, "label": f"{name}s"}
        right.plot(layers, np.mean(both, axis=0)[place], marker="o", markersize=4, **look)
        right.legend(handlelength=3.2)
    right.set_xlabel("layer (mean over users)")
    right.set_xticks(list(layers)[:: math.ceil(len(layers) / 12)])
    for axes in (left, middle, right):
        axes.axhline(0.5, color=style.MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    handles = [Line2D([], [], color=colour, linewidth=2.4) for colour in colours.values()]
    canvas.legend(figure, handles, [canvas.plain(user) for user in colours])
    return figure


# Experts ----------------------------------------------------------------------------------------------------


@canvas.styled
def expert_overlaps(found: Similarities, side: str) -> Figure:
    """A heat map a layer of the last recorded round: how much of two experts' directions is the same."""
    figure, panels = _square_panels(len(found.layers))
    names = [canvas.plain(expert.name, 14) for expert in found.experts]
    off = ~np.eye(len(names), dtype=bool)
    highest = np.nanmax(found.overlap[side][-1][:, off], initial=0.0)
    top = min(1.0, max(0.05, 1.15 * float(highest)))
    for panel, (axes, layer) in enumerate(zip(panels, found.layers)):
        table = np.where(off, found.overlap[side][-1, panel], np.nan)
        image = _heat_map(axes, table, names, top)
        axes.set_title(f"layer {layer}")
    figure.colorbar(image, ax=panels, shrink=0.6, label="overlap").outline.set_visible(False)
    return figure


@canvas.styled
def overlaps_by_layer(found: Similarities) -> Figure:
    """Mean overlaps by layer, a line a round (darker: later); left what B A writes, right what it reads."""
    figure = Figure(figsize=(canvas.WIDTH, 3.3), layout="constrained")
    FigureCanvasAgg(figure)
    means = found.between()
    colours = dict(zip(PAIRS, (style.GENERALIST, style.SPECIALIST, style.PARTNER, style.NEUTRAL)))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, side in zip(panels, ("output", "input")):
        for kind, by_side in means.items():
            for index in range(len(found.rounds)):
                shade = style.depth_shade(colours[kind], index, len(found.rounds))
                axes.plot(
                    found.layers, by_side[side][index], color=shade, marker="o", markersize=3.5, linewidth=1.5
                )
        axes.axhline(found.chance[side], color=style.MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.set_title("what updates write (columns of B A)" if side == "output" else "what they read (rows)")
        axes.set_xlabel("layer")
        axes.set_xticks(found.layers[:: math.ceil(len(found.layers) / 12)])
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("mean overlap")
    handles = [Line2D([], [], color=colours[kind], linewidth=2.4) for kind in means]
    handles.append(Line2D([], [], color=style.MUTED, linewidth=1, linestyle=(0, (2, 2))))
    canvas.legend(figure, handles, [*means, "random directions"])
    return figure


def _square_panels(count: int) -> tuple[Figure, list[Axes]]:
    """Panels about as high as they are wide."""
    return canvas.panels(count, 2.25 if count > 9 else 2.7 if count > 4 else 3.4)


def _heat_map(axes: Axes, table: np.ndarray, names: Sequence[str], top: float) -> AxesImage:
    """A square table as colours, with its numbers where they fit; NaN stays white."""
    image = axes.imshow(table, cmap=MAP, vmin=0, vmax=top)
    size = min(8.0, 110 / len(names))
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(table.shape) if len(names) <= 8 else ():
        value = table[row, column]
        if not math.isnan(value):
            colour = "white" if value < 0.55 * top else style.INK
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    return image


# Aggregation ------------------------------------------------------------------------------------------------


def weights_that_vary(group: Group) -> xr.DataArray | None:
    """The aggregation's weights by trained round where they are not the same in all of them."""
    weights = group.stacked("aggregation", "weight")
    if weights is None or weights.sizes["round"] < 3:
        return None
    weights = weights.mean("run").sel(round=slice(1, None)).dropna("round", how="all")
    varies = weights.sizes["round"] > 1 and float(np.ptp(weights.values, axis=0).max()) > 1e-6
    return weights if varies else None


@canvas.styled
def aggregation_weights(weights: xr.DataArray) -> Figure:
    """A heat map a round: row, who receives; column, whose model it is. Only rounds at which it changed."""
    steps = np.abs(np.diff(weights.values, axis=0)).max(axis=(1, 2)) > 1e-6
    changed = [0, *(int(index) + 1 for index in np.flatnonzero(steps))]
    if len(changed) > MOST_MATRICES:
        places = np.linspace(0, len(changed) - 1, MOST_MATRICES).round().astype(int)
        changed = [changed[place] for place in places]
    figure, panels = _square_panels(len(changed))
    names = [canvas.plain(user, 14) for user in weights["user"].values]
    for axes, index in zip(panels, changed):
        image = _heat_map(axes, weights.values[index], names, 1.0)
        axes.set_title(f"round {int(weights['round'][index])}")
    figure.colorbar(image, ax=panels, shrink=0.6, label="weight").outline.set_visible(False)
    return figure


# Overfitting ------------------------------------------------------------------------------------------------


@canvas.styled
def gaps_over_rounds(groups: Sequence[Group]) -> Figure | None:
    """A panel a user: test loss minus validation (solid) and minus training loss (dashed), since round 0."""
    users = all_users(groups)
    colours = style.method_colours([group.method for group in groups])
    figure, panels = canvas.panels(len(users), 2.5, sharex=True)
    lines = {"validation": "-", "train": (0, (4, 2))}
    shown = set()
    for axes, user in zip(panels, users):
        for group, colour in zip(groups, colours):
            for split, line in lines.items():
                gap = gap_since_start(group, user, split)
                if gap is not None:
                    shown.add(split)
                    axes.plot(
                        gap["round"],
                        gap,
                        color=colour,
                        linestyle=line,
                        linewidth=1.5,
                        marker="o",
                        markersize=3,
                    )
        axes.axhline(0, color=style.MUTED, linewidth=0.8)
        axes.set_title(canvas.plain(user))
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel("gap in loss (nats)")
        canvas.round_axis(axes, canvas.is_bottom(axes))
    if not shown:
        return None
    several = len(groups) > 1
    handles = [Line2D([], [], color=colour, linewidth=2.4) for colour in colours] if several else []
    labels = [canvas.plain(group.label, 120) for group in groups] if several else []
    names = {"validation": "test minus validation", "train": "test minus training"}
    for split in (split for split in lines if split in shown):
        handles.append(Line2D([], [], color=style.INK if several else colours[0], linestyle=lines[split]))
        labels.append(names[split])
    canvas.legend(figure, handles, labels)
    return figure


def gap_since_start(group: Group, user: str, split: str) -> xr.DataArray | None:
    """log(test / split perplexity) by round, mean over runs, minus its first value: zero at the start."""
    test, other = (group.stacked("perplexity", name) for name in ("test", split))
    if test is None or other is None or user not in group.users:
        return None
    gap = np.log(test.sel(user=user) / other.sel(user=user)).mean("run").dropna("round")
    # What has no start, as the losses of training steps, is of other moments than the test loss.
    begins = gap.sizes["round"] > 0 and int(gap["round"][0]) == int(test["round"][0])
    return gap - gap[0] if begins else None
