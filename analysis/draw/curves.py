"""Draws perplexity over rounds (Figure 3 and its like): a panel a user, or a panel a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.draw import canvas, style
from analysis.measure.groups import Group, all_users

MOST_MARKERS = 30
DASHES = {"test": "-", "validation": (0, (4, 2))}


@dataclass(frozen=True)
class Curve:
    """One experiment's perplexity on one split, over (run, round)."""

    label: str
    colour: str
    split: str
    values: xr.DataArray


def by_user(
    groups: Sequence[Group],
    splits: Sequence[str] = ("validation", "test"),
    colours: Sequence[str] | None = None,
) -> Figure | None:
    """A panel a user: test solid, validation dashed, a colour an experiment, a band for seeds."""
    panels: dict[str, list[Curve]] = {user: [] for user in all_users(groups)}
    colours = colours or style.method_colours([group.method for group in groups])
    for split in splits:
        for group, colour in zip(groups, colours):
            array = group.stacked("perplexity", split)
            if array is None:
                continue
            for user in group.users:
                panels[user].append(Curve(group.label, colour, split, array.sel(user=user)))
    return panels_of(panels)


def by_data_set(data_sets: Mapping[str, Sequence[Group]]) -> Figure | None:
    """A panel a data set: test perplexity, mean over users; an experiment has one colour in all panels."""
    methods = {group.label: group.method for groups in data_sets.values() for group in groups}
    colours = dict(zip(methods, style.method_colours(list(methods.values()))))
    panels: dict[str, list[Curve]] = {}
    for name, groups in data_sets.items():
        arrays = {group.label: group.stacked("perplexity", "test") for group in groups}
        panels[name] = [
            Curve(label, colours[label], "test", array.mean("user", skipna=False))
            for label, array in arrays.items()
            if array is not None
        ]
    return panels_of(panels)


@canvas.styled
def panels_of(panels: Mapping[str, Sequence[Curve]]) -> Figure | None:
    """A panel an entry, each with its own perplexity axis; one legend for all."""
    curves = [curve for found in panels.values() for curve in found]
    if not curves:
        return None
    colours = {curve.label: curve.colour for curve in curves}
    splits = {curve.split for curve in curves}
    label = "perplexity" if len(splits) > 1 else f"{curves[0].split} perplexity"
    figure, axes_of = canvas.panels(len(panels), 2.75, sharex=len({_last(curve) for curve in curves}) == 1)
    for axes, (title, found) in zip(axes_of, panels.items()):
        for curve in found:
            _draw(axes, curve, crowded=len(colours) > 3)
        axes.set_title(canvas.plain(title))
        canvas.perplexity_axis(axes, label, _is_wide([curve.values for curve in found]))
        canvas.round_axis(axes, canvas.is_bottom(axes))
    canvas.legend(figure, *_legend(colours, splits))
    return figure


def _legend(colours: Mapping[str, str], splits: set[str]) -> tuple[list[Line2D], list[str]]:
    """A line an experiment, and one a kind of line where there are several."""
    handles, labels = [], []
    if len(colours) > 1 or len(splits) == 1:
        handles += [Line2D([], [], color=colour, linewidth=2.4) for colour in colours.values()]
        labels += [canvas.plain(label, 120) for label in colours]
    if len(splits) > 1:
        ink = style.INK if len(colours) > 1 else next(iter(colours.values()))
        handles += [Line2D([], [], color=ink, linestyle=DASHES[split]) for split in DASHES]
        labels += list(DASHES)
    return handles, labels


def _last(curve: Curve) -> int:
    return int(curve.values["round"].max())


def _is_wide(arrays: Sequence[xr.DataArray]) -> bool:
    """Whether the figures span so much that only a logarithmic axis shows their differences."""
    finite = np.concatenate([array.values[np.isfinite(array.values)] for array in arrays] or [np.array([])])
    return finite.size > 0 and finite.max() > 4 * finite.min() > 0


def _draw(axes: Axes, curve: Curve, *, crowded: bool) -> None:
    """Mean over runs, with a band of one standard deviation; rounds that were not evaluated are bridged."""
    values = curve.values.where(np.isfinite(curve.values)).dropna("round", how="all")
    if values.sizes["round"] == 0:
        return
    rounds, mean = values["round"].values, values.mean("run").values
    look = {"color": curve.colour, "linestyle": DASHES[curve.split], "linewidth": 1.7}
    if curve.split != "test":
        look |= {"linewidth": 1.2, "alpha": 0.6 if crowded else 1.0}
    if len(rounds) == 1:
        axes.axhline(mean[0], **(look | {"linewidth": 1.0}))
    is_test = curve.split == "test"
    marked = {"marker": "o", "markersize": 3.2} if len(rounds) <= MOST_MARKERS and is_test else {}
    axes.plot(rounds, mean, **look, **marked)
    if values.sizes["run"] > 1 and is_test:
        spread = values.std("run", ddof=1).fillna(0).values
        axes.fill_between(rounds, mean - spread, mean + spread, color=curve.colour, alpha=0.16, linewidth=0)
