"""Figure 9: test perplexity by how often the routers are updated (tau) and with how many steps (s)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from analysis.draw import canvas, formats, style
from analysis.measure import figures
from analysis.paper.choice import Request, by_seed, group_of, over_users
from analysis.read.index import Cell, Entry, Index, data_sets_of
from analysis.read.results import ResultsError

TAU, STEPS = "router_every", "router_steps"


def figure9(request: Request, title: str) -> list[Path]:
    """A heat map and lines, for each data set."""
    cells = request.cells(request.item)
    datasets = data_sets_of(cells)
    files: list[Path] = []
    for dataset in datasets:
        grid = grid_of(request.index, [cell for cell in cells if cell.dataset == dataset])
        if grid["mean"].notna().any():
            files += request.draw(draw(grid), title, "" if len(datasets) == 1 else dataset)
    if not files:
        raise ResultsError(f"{request.index.path}: no finished run of {request.item}")
    return files


def grid_of(index: Index, cells: list[Cell]) -> pd.DataFrame:
    """Figures of test perplexity (see measure.figures) by TAU and STEPS, read from the runs' options (not their
    names); `is_best` marks the lowest."""
    found: dict[tuple[int, int], dict[str, object]] = {}
    for cell in cells:
        for alternative, entries in cell.alternatives.items():
            tau, steps = _place(index, {**entries[0].options, **dict(alternative)}, entries[0])
            group, problems = group_of(index, cell.row, entries)
            for problem in problems:
                print(f"note: {problem}")
            measured = figures.figure(over_users(group, "test")) if group else figures.NO_RUN
            names = tuple(sorted(by_seed(group, "test"))) if group else ()
            found[tau, steps] = {TAU: tau, STEPS: steps, **measured, "names": names}
    grid = pd.DataFrame(found.values())
    return grid.assign(is_best=_best(grid))


def _place(index: Index, settings: dict[str, str], entry: Entry) -> tuple[int, int]:
    try:
        return int(settings[TAU]), int(settings[STEPS])
    except (KeyError, ValueError) as error:
        raise ResultsError(
            f"{index.path}: {entry.folder.name} does not say {TAU} and {STEPS} as numbers"
        ) from error


def _best(grid: pd.DataFrame) -> pd.Series:
    """Which mean is the lowest; none where easy seeds of one place would meet hard ones of another."""
    if grid.loc[grid["mean"].notna(), "names"].nunique() > 1:
        print("note: the places of the grid differ in their seeds, so none is marked as the best.")
        return pd.Series(False, index=grid.index)
    return grid["mean"] == grid["mean"].min()


@canvas.styled
def draw(grid: pd.DataFrame) -> Figure:
    """Left: every mean as a number on its colour. Right: the same as lines with their spread over seeds."""
    figure = Figure(figsize=(canvas.WIDTH, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    means, spreads, best = (
        grid.pivot(index=STEPS, columns=TAU, values=name) for name in ("mean", "std", "is_best")
    )
    image = _heat_map(left, means, best.eq(True))
    figure.colorbar(image, ax=left, shrink=0.85).outline.set_visible(False)
    places = range(len(means.columns))
    for (step, line), colour in zip(means.iterrows(), style.series_colours(len(means))):
        look = {"color": colour, "marker": "o", "markersize": 4, "capsize": 3, "label": f"s = {step}"}
        right.errorbar(places, line, spreads.loc[step].fillna(0.0), **look)
    right.set_xticks(places, means.columns)
    right.set_xlabel("update period \N{GREEK SMALL LETTER TAU} (iterations)")
    right.set_ylabel("test perplexity, mean over users")
    right.legend()
    return figure


def _heat_map(axes: Axes, means: pd.DataFrame, best: pd.DataFrame) -> AxesImage:
    """A line a number of steps, a column a period."""
    values = means.to_numpy()
    image = axes.imshow(values, cmap="cividis_r", aspect="auto", origin="lower")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for row, column in np.ndindex(values.shape):
        text = formats.perplexity(values[row, column]) + ("\nbest" if best.iat[row, column] else "")
        colour = "white" if values[row, column] > middle else style.INK
        axes.text(column, row, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(means.columns)), means.columns)
    axes.set_yticks(range(len(means)), means.index)
    axes.grid(False)
    axes.set_title("test perplexity, mean over users")
    axes.set(xlabel="update period \N{GREEK SMALL LETTER TAU} (iterations)", ylabel="update steps s")
    return image
