"""Figure 9: test perplexity by how often the routers are updated (tau) and with how many steps (s)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.draw import canvas, formats, style
from analysis.measure import perplexity
from analysis.paper.choice import Request, by_seed, group_of, over_users
from analysis.read.index import Cell, Index, data_sets_of
from analysis.read.results import ResultsError

TAU, STEPS = "router_every", "router_steps"

# (tau, s) -> figure of the mean over users, over seeds.
Grid = dict[tuple[int, int], perplexity.Figure]


def figure9(request: Request, title: str) -> list[Path]:
    """A heat map and lines, for each data set."""
    cells = request.cells(request.item)
    datasets = data_sets_of(cells)
    files: list[Path] = []
    for dataset in datasets:
        grid = grid_of(request.index, [cell for cell in cells if cell.dataset == dataset])
        if any(not math.isnan(entry.mean) for entry in grid.values()):
            files += request.draw(draw(grid), title, "" if len(datasets) == 1 else dataset)
    if not files:
        raise ResultsError(f"{request.index.path}: no finished run of {request.item}")
    return files


def grid_of(index: Index, cells: list[Cell]) -> Grid:
    """Test perplexity by tau and s, read from the runs' options (not their names); NaN where none is done."""
    grid: Grid = {}
    seeds: dict[tuple[int, int], frozenset[str]] = {}
    for cell in cells:
        for alternative, entries in cell.alternatives.items():
            settings = {**entries[0].options, **dict(alternative)}
            try:
                place = (int(settings[TAU]), int(settings[STEPS]))
            except (KeyError, ValueError) as error:
                raise ResultsError(
                    f"{index.path}: {entries[0].folder.name} does not say {TAU} and {STEPS} as numbers"
                ) from error
            group, problems = group_of(index, cell.row, entries)
            for problem in problems:
                print(f"note: {problem}")
            grid[place] = perplexity.figure(over_users(group, "test")) if group else perplexity.Figure()
            seeds[place] = frozenset(by_seed(group, "test") if group else ())
    _mark_best(grid, seeds)
    return grid


def _mark_best(grid: Grid, seeds: dict[tuple[int, int], frozenset[str]]) -> None:
    """Marks the lowest mean, unless easy seeds of one place would meet hard ones of another."""
    shown = {place: entry for place, entry in grid.items() if not math.isnan(entry.mean)}
    if len({seeds[place] for place in shown}) > 1:
        print("note: the places of the grid differ in their seeds, so none is marked as the best.")
        return
    low = min((entry.mean for entry in shown.values()), default=math.nan)
    for entry in shown.values():
        entry.best = entry.mean == low


@canvas.styled
def draw(grid: Grid) -> Figure:
    """Left: every mean as a number on its colour. Right: the same as lines with their spread over seeds."""
    taus, steps = (sorted({place[axis] for place in grid}) for axis in (0, 1))
    means = np.array([[grid.get((tau, step), perplexity.Figure()).mean for tau in taus] for step in steps])
    figure = Figure(figsize=(canvas.WIDTH, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    image = left.imshow(means, cmap="cividis_r", aspect="auto", origin="lower")
    low, high = np.nanmin(means), np.nanmax(means)
    for row, column in np.ndindex(means.shape):
        value = means[row, column]
        dark = not math.isnan(value) and value > (low + high) / 2
        entry = grid.get((taus[column], steps[row]), perplexity.Figure())
        text = formats.perplexity(value) + ("\nbest" if entry.best else "")
        left.text(column, row, text, ha="center", va="center", color="white" if dark else style.INK)
    left.set_xticks(range(len(taus)), taus)
    left.set_yticks(range(len(steps)), steps)
    left.grid(False)
    left.set_title("test perplexity, mean over users")
    left.set(xlabel="update period \N{GREEK SMALL LETTER TAU} (iterations)", ylabel="update steps s")
    figure.colorbar(image, ax=left, shrink=0.85).outline.set_visible(False)
    for step, colour in zip(steps, style.series_colours(len(steps))):
        entries = [grid.get((tau, step), perplexity.Figure()) for tau in taus]
        spread = [entry.std or 0.0 for entry in entries]
        right.errorbar(
            range(len(taus)),
            [entry.mean for entry in entries],
            spread,
            color=colour,
            marker="o",
            markersize=4,
            capsize=3,
            label=f"s = {step}",
        )
    right.set_xticks(range(len(taus)), taus)
    right.set_xlabel("update period \N{GREEK SMALL LETTER TAU} (iterations)")
    right.set_ylabel("test perplexity, mean over users")
    right.legend()
    return figure
