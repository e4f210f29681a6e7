"""What every figure is made with: panels, axes, legends, and how a figure becomes files."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)
from matplotlib.transforms import Bbox

from analysis.draw import style
from analysis.draw.own_files import MADE_BY, write_own

WIDTH = 10.5  # inches: 1008 CSS pixels, so that a figure fills the page without being scaled
LABEL_CHARACTERS = 64


def plain(text: object, longest: int = 32) -> str:
    """Text from a file as a label: one line, no mathematics, not too long."""
    line = " ".join(str(text).split())
    line = line if len(line) <= longest else line[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return line.replace("$", r"\$")


@contextmanager
def settings() -> Iterator[None]:
    """The project's typography, whatever a matplotlibrc or the caller has set."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style.RC)
        yield


def styled(draw: Callable) -> Callable:
    """Draws with the project's typography, whatever the caller's matplotlib settings are."""

    @wraps(draw)
    def drawn(*arguments, **options):
        with settings():
            return draw(*arguments, **options)

    return drawn


def save(figure: Figure, folder: Path, name: str, part: Bbox | None = None) -> str:
    """Writes name.svg and name.png (of `part`, in inches, where told) into the folder; returns the SVG."""
    svg, png = io.BytesIO(), io.BytesIO()
    with settings(), warnings.catch_warnings():
        # A script that the font lacks shows as boxes; the tables have the name in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": MADE_BY}, bbox_inches=part)
        figure.savefig(png, format="png", metadata={"Software": MADE_BY}, bbox_inches=part)
    write_own({folder / f"{name}.svg": svg.getvalue(), folder / f"{name}.png": png.getvalue()})
    return svg.getvalue().decode()


@styled
def written(figure: Figure, folder: Path, name: str, title: str) -> list[Path]:
    """Saves the figure above its title, making the folder where needed; says which files it became."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = figure.get_size_inches()
    # Below the figure rather than in it: no layout has to make room.
    size = min(11.0, 72 * (width - 0.2) / (0.58 * len(title)))
    figure.text(0.1 / width, -0.1 / height, title, fontsize=size, weight="bold", va="top")
    save(figure, folder, name, Bbox.from_extents(0, -0.4, width, height))
    return [folder / f"{name}.svg", folder / f"{name}.png"]


def panels(count: int, height: float, **sharing: bool) -> tuple[Figure, list[Axes]]:
    """A grid of panels: four as two by two, else three a row (four from ten on); unused ones are removed."""
    columns = min(count, 2 if count == 4 else 3 if count <= 9 else 4)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(WIDTH if count > 1 else 0.62 * WIDTH, 0.6 + height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    axes = list(figure.subplots(rows, columns, squeeze=False, **sharing).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def legend(figure: Figure, handles: Sequence, labels: Sequence[str], most: int = 8) -> None:
    """A legend above the panels in as many columns as fit (at most `most`); long labels are broken."""
    labels = [textwrap.fill(label, LABEL_CHARACTERS) for label in labels]
    longest = max(len(line) for label in labels for line in label.splitlines())
    fitting = int(72 * figure.get_figwidth() / (5.6 * longest + 48))
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=max(1, min(len(labels), most, fitting)),
        columnspacing=1.6,
        handlelength=2.2,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
    )


def round_axis(axes: Axes, label: bool) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    if label:
        axes.set_xlabel("communication round")


def is_bottom(axes: Axes) -> bool:
    return axes.get_subplotspec().is_last_row()


def perplexity_axis(axes: Axes, label: str, logarithmic: bool) -> None:
    axes.set_ylabel(label)
    if not logarithmic:
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = (1, 1.5, 2, 3, 4, 6) if high < 20 * low else (1, 2, 5) if high < 500 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=30))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
