"""Curves as a table and as a picture in the project's style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.draw.canvas import styled
from analysis.draw.style import NEUTRAL, SPECIALIST

COLOURS = {"comigs": SPECIALIST, "plain PyTorch": NEUTRAL}


@dataclass(frozen=True)
class Curves:
    """Numbers at common places. `places` are numbers along an axis, or names of bars."""

    title: str
    x: str
    y: str
    places: Sequence[float] | Sequence[str]
    values: dict[str, list[float]]
    notes: Sequence[str] = ()  # what the table says beside each place

    def as_markdown(self) -> str:
        names = [place if isinstance(place, str) else f"{place:.4g}" for place in self.places]
        if self.notes:
            names = [f"{name} ({note})" for name, note in zip(names, self.notes, strict=True)]
        rows = [
            [name, *(f"{numbers[index]:.3g}" for numbers in self.values.values())]
            for index, name in enumerate(names)
        ]
        lines = [[self.x, *self.values], ["---", *("---:" for _ in self.values)], *rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{self.title}: {self.y}\n\n{table}\n"


def _bars(axes: Axes, curves: Curves) -> None:
    for name, numbers in curves.values.items():
        bars = axes.bar(curves.places, numbers, color=COLOURS[name], width=0.5)
        axes.bar_label(bars, fmt="%.3g", padding=2)
    axes.grid(False, axis="x")


def _lines(axes: Axes, curves: Curves) -> None:
    for order, (name, numbers) in enumerate(curves.values.items()):
        axes.plot(curves.places, numbers, "o-", color=COLOURS[name], label=name)
        below = order == 0 and len(curves.values) > 1
        for place, number in zip(curves.places, numbers, strict=True):
            axes.annotate(
                f"{number:.3g}",
                (place, number),
                (0, -6 if below else 6),
                textcoords="offset points",
                ha="center" if below else "right",  # left of a line that rises
                va="top" if below else "bottom",
                color=COLOURS[name],
            )
    axes.set_xscale("log", base=2)
    axes.set_xticks(curves.places, [f"{place:.3g}" for place in curves.places])
    axes.minorticks_off()
    axes.margins(x=0.09)  # for the numbers beside the first and the last place
    if len(curves.values) > 1:
        axes.legend(loc="lower right", ncols=2)


@styled
def draw(curves: Curves, file: Path) -> None:
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    named = all(isinstance(place, str) for place in curves.places)
    (_bars if named else _lines)(axes, curves)
    axes.set_ylim(0, 1.18 * max(max(numbers) for numbers in curves.values.values()))
    axes.set_xlabel(curves.x)
    axes.set_ylabel(curves.y)
    axes.set_title(curves.title)
    figure.savefig(file)
