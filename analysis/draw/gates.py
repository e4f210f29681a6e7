"""Draws what gates make of task categories (figures of a mixture of prompts): heat maps, or the same as bars."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from analysis.draw import canvas, style
from analysis.read.run import ExpertKind

CAPTION_CHARACTERS = 165


@dataclass(frozen=True)
class Panel:
    """Mean gate weights over (category, group), what is shown of them above the panel and what below it."""

    title: str
    weights: np.ndarray
    note: str


@dataclass(frozen=True)
class Axis:
    """What all panels of a figure have in common: their rows with the number of test examples, and their columns."""

    categories: Sequence[str]
    examples: Sequence[int]
    groups: Sequence[ExpertKind]

    @property
    def rows(self) -> list[str]:
        return [
            f"{canvas.plain(name, 24)} ({count:,})" for name, count in zip(self.categories, self.examples)
        ]

    @property
    def columns(self) -> list[str]:
        """G3: generalist 3, S0: specialist 0."""
        return [f"{group.role[0].upper()}{group.number}" for group in self.groups]


@canvas.styled
def heat_maps(panels: Sequence[Panel], axis: Axis, caption: str) -> Figure:
    """A row a category, a column a group, one colour scale for all panels, the value in each cell."""
    figure, places = canvas.panels(len(panels), 0.9 + 0.24 * len(axis.categories))
    top = max(float(np.nanmax(panel.weights)) for panel in panels)
    images = [_heat_map(axes, panel, axis, top) for axes, panel in zip(places, panels)]
    bar = figure.colorbar(images[0], ax=places, shrink=0.6, aspect=30, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_label("mean gate weight")
    return _captioned(figure, caption)


def _heat_map(axes: Axes, panel: Panel, axis: Axis, top: float) -> AxesImage:
    image = axes.imshow(panel.weights, cmap="Blues", aspect="auto", vmin=0.0, vmax=top)
    columns = len(axis.groups)
    for row, column in np.ndindex(panel.weights.shape):
        value = panel.weights[row, column]
        if not np.isnan(value):
            look = {
                "color": "white" if value > 0.55 * top else style.INK,
                "fontsize": 8 if columns < 12 else 6,
            }
            axes.text(column, row, f"{value:.2f}".removeprefix("0"), ha="center", va="center", **look)
    axes.set_xticks(range(columns), axis.columns)
    axes.set_yticks(range(len(axis.categories)), axis.rows if axes.get_subplotspec().is_first_col() else [])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.note)
    return image


@canvas.styled
def bars(panels: Sequence[Panel], axis: Axis, caption: str) -> Figure:
    """The same as bars: a cluster a category, a bar a group."""
    figure, places = canvas.panels(len(panels), 2.6, sharey=True)
    colours = _group_colours(len(axis.groups))
    for axes, panel in zip(places, panels):
        _clusters(axes, panel, axis, colours)
    canvas.legend(figure, [Patch(color=colour) for colour in colours], axis.columns, most=16)
    return _captioned(figure, caption)


def _group_colours(count: int) -> list[str]:
    """Groups of a mixture are many and alike: along one scale, so that none stands out by its hue."""
    scale = matplotlib.colormaps["turbo"]
    return [to_hex(scale(place)) for place in np.linspace(0.06, 0.94, count)]


def _clusters(axes: Axes, panel: Panel, axis: Axis, colours: Sequence[str]) -> None:
    rows, columns = panel.weights.shape
    width = 0.84 / columns
    for column, colour in enumerate(colours):
        places = np.arange(rows) + (column - (columns - 1) / 2) * width
        axes.bar(places, np.nan_to_num(panel.weights[:, column]), width, color=colour)
    axes.set_xticks(
        range(rows), [canvas.plain(name, 14) for name in axis.categories], rotation=25, ha="right"
    )
    axes.grid(False, axis="x")
    axes.set_title(panel.title)
    axes.set_xlabel(panel.note)
    if axes.get_subplotspec().is_first_col():
        axes.set_ylabel("mean gate weight")


def _captioned(figure: Figure, caption: str) -> Figure:
    """Room for the caption is made below the panels."""
    text = textwrap.fill(canvas.plain(caption, len(caption)), CAPTION_CHARACTERS)
    label = figure.supxlabel(text, x=0.01, ha="left", fontsize=8.5, color=style.MUTED)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.15 * (text.count("\n") + 1))
    label.set_linespacing(1.25)
    return figure
