"""Table 3 and Figure 2: how many tokens each user has in each split."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.draw import canvas, formats, style
from analysis.measure.figures import NO_RUN
from analysis.paper import published, writing
from analysis.paper.choice import Request
from analysis.paper.table import Table, frame
from analysis.read.index import data_set_name, data_sets_of
from analysis.read.results import ResultsError
from analysis.read.run import Run

SPLITS = {"train": "Training", "validation": "Validation", "test": "Test"}
# A run with one of these has not trained on the whole training split, or on more than it.
CUT = ("train_tokens", "train_share", "train_on")


def runs_by_data_set(request: Request) -> dict[str, Run]:
    """One finished run a data set, with its splits whole where there is such a run."""
    asked = request.datasets
    entries = [entry for entry in request.index.entries if not asked or entry.dataset in asked]
    entries.sort(key=lambda entry: any(option in entry.options for option in CUT))
    found: dict[str, Run] = {}
    for dataset in data_sets_of(entries):
        for entry in entries:
            if entry.dataset == dataset and dataset not in found:
                runs, problems = request.index.runs([entry])
                for problem in problems:
                    print(f"note: {problem}")
                if runs and runs[0].array("users", "train_tokens") is not None:
                    found[dataset] = runs[0]
    if not found:
        raise ResultsError(
            f"{request.index.path}: no finished run{request.of} (its runs say what each user had)"
        )
    return found


def table3(request: Request, title: str) -> list[Path]:
    """Tokens by user and split."""
    runs = runs_by_data_set(request)
    heads = [f"user {user}" for user in range(max(len(run.users) for run in runs.values()))]
    figures = []
    for dataset, run in runs.items():
        section = f"{data_set_name(dataset)}: {', '.join(run.users)}"
        for split, label in SPLITS.items():
            counts = run.array("users", f"{split}_tokens")
            known = [] if counts is None else counts.values
            for user, head in enumerate(heads):
                count = (
                    {"mean": float(known[user]), "std": math.nan, "seeds": 0} if user < len(known) else NO_RUN
                )
                figures.append({"section": section, "row": label, "column": head, **count})
    tables = [Table(title, request.source, heads, frame(figures), is_whole=True), published.table3(title)]
    print("\n".join(writing.markdown(table) for table in tables))
    return writing.write(tables, request.output, request.item)


def figure2(request: Request, title: str) -> list[Path]:
    """The data splits as bubbles."""
    return request.draw(bubbles(runs_by_data_set(request)), title)


@canvas.styled
def bubbles(runs: dict[str, Run]) -> Figure:
    """A row a data set, a bubble a user; its area is the number of training tokens."""
    users = max(len(run.users) for run in runs.values())
    figure = Figure(figsize=(canvas.WIDTH, 0.5 + 1.75 * len(runs)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    most = max(float(run["users"]["train_tokens"].max()) for run in runs.values())
    for row, (run, colour) in enumerate(zip(runs.values(), style.series_colours(len(runs)))):
        tokens = run["users"]["train_tokens"].values.astype(float)
        axes.scatter(
            np.arange(len(tokens)), [row] * len(tokens), s=4200 * tokens / most, color=colour, alpha=0.8
        )
        for user, (name, count) in enumerate(zip(run.users, tokens)):
            text = f"{canvas.plain(name, 18)}\n{formats.count(count)}"
            axes.annotate(text, (user, row), (0, -46), "data", "offset points", ha="center", va="center")
    axes.set_xlim(-0.5, users - 0.5)
    axes.set_ylim(len(runs) - 0.35, -0.5)
    axes.set_xticks(range(users), [f"user {user}" for user in range(users)])
    axes.set_yticks(range(len(runs)), [canvas.plain(data_set_name(dataset), 18) for dataset in runs])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("area of a bubble: number of training tokens")
    return figure
