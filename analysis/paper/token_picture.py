"""Token-level routing as a picture: fixed-width text on the colours of the tokens' first experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from analysis.draw import canvas, style
from analysis.read.probes import Probe
from analysis.read.run import ExpertKind, Run

LINE_CHARACTERS, MOST_LINES = 46, 18
FONT = "DejaVu Sans Mono"
CHARACTER_WIDTH = 0.602  # of the font's size
LINE_HEIGHT = 1.32
# Inches around and between the panels.
LEFT, RIGHT, TOP, GAP = 0.34, 0.08, 0.62, 0.12

# A token's piece on one line: (line, column, text, token).
Piece = tuple[int, int, str, int]


@canvas.styled
def grid(run: Run, probes: Sequence[Probe], layer: int, name: str) -> Figure:
    """A line a user's model, a column a text; a frame where the text is the user's own."""
    figure, axes = _panels(len(run.users), len(probes), _most_lines(probes))
    for user, row in enumerate(axes):
        for probe, one in zip(probes, row):
            _draw(one, probe, probe.top(user, layer), run.experts(run.users[user]))
            _frame(one, is_own=probe.owner == run.users[user])
        _row_label(row[0], f"model of {canvas.plain(run.users[user], 24)}")
    for probe, one in zip(probes, axes[0]):
        one.set_title(f"text of {canvas.plain(probe.owner or probe.name, 24)}", fontsize=9)
    _legend(figure, run, f"{name} layer ({layer})")
    return figure


@canvas.styled
def diagonal(run: Run, probes: Sequence[Probe], layers: Mapping[str, int]) -> Figure:
    """A column a user, whose model reads the user's own text; a line a layer."""
    figure, axes = _panels(len(layers), len(probes), _most_lines(probes))
    for (name, layer), row in zip(layers.items(), axes):
        for user, (probe, one) in enumerate(zip(probes, row)):
            _draw(one, probe, probe.top(user, layer), run.experts(run.users[user]))
            _frame(one, is_own=False)
        _row_label(row[0], f"{name} layer ({layer})")
    for user, one in enumerate(axes[0]):
        one.set_title(f"user {user}: {canvas.plain(run.users[user], 24)}", fontsize=9)
    _legend(figure, run, "")
    return figure


def lay_out(texts: Sequence[str]) -> list[Piece]:
    """Breaks tokens into lines of LINE_CHARACTERS; what does not fit into MOST_LINES is left out."""
    pieces: list[Piece] = []
    line = column = 0
    for token, text in enumerate(texts):
        for index, part in enumerate(text.replace("\r", "").replace("\t", " ").split("\n")):
            if index > 0:
                line, column = line + 1, 0
            if column + len(part) > LINE_CHARACTERS:
                line, column, part = line + 1, 0, part.lstrip(" ")
            part = part[:LINE_CHARACTERS]
            if line >= MOST_LINES:
                return pieces
            if part:
                pieces.append((line, column, part, token))
            column += len(part)
    return pieces


def _most_lines(probes: Sequence[Probe]) -> int:
    return max((piece[0] + 1 for probe in probes for piece in lay_out(probe.texts)), default=1)


def _panels(rows: int, columns: int, lines: int) -> tuple[Figure, list[list[Axes]]]:
    """Panels of an exact size, so that a character is as wide as a unit of the horizontal axis."""
    width = (canvas.WIDTH - LEFT - RIGHT - GAP * (columns - 1)) / columns
    size = _font_size(width)
    height = (lines + 0.6) * LINE_HEIGHT * size / 72
    total = TOP + rows * (height + GAP)
    figure = Figure(figsize=(canvas.WIDTH, total))
    FigureCanvasAgg(figure)
    axes = []
    for row in range(rows):
        bottom = total - TOP - (row + 1) * height - row * GAP
        line = []
        for column in range(columns):
            left = LEFT + column * (width + GAP)
            box = (left / canvas.WIDTH, bottom / total, width / canvas.WIDTH, height / total)
            one = figure.add_axes(box, xlim=(-0.5, LINE_CHARACTERS + 0.5), ylim=(lines + 0.3, -0.3))
            one.set(xticks=[], yticks=[])
            one.grid(False)
            line.append(one)
        axes.append(line)
    return figure, axes


def _font_size(width: float) -> float:
    return 72 * width / ((LINE_CHARACTERS + 1) * CHARACTER_WIDTH)


def _draw(axes: Axes, probe: Probe, top: np.ndarray, experts: Sequence[ExpertKind]) -> None:
    colours = style.expert_colours(experts)
    pieces = lay_out(probe.texts)
    boxes, faces = [], []
    lines: dict[int, str] = {}
    for line, column, text, token in pieces:
        if 0 <= top[token] < len(colours):
            boxes.append(Rectangle((column, line + 0.04), len(text), 0.92))
            faces.append(style.tint(colours[top[token]]))
        lines[line] = lines.get(line, "").ljust(column) + text
    axes.add_collection(PatchCollection(boxes, facecolors=faces, edgecolors="white", linewidths=0.4))
    figure = axes.get_figure()
    size = _font_size(axes.get_position().width * figure.get_figwidth())
    look = {"family": FONT, "fontsize": size, "va": "center", "ha": "left", "parse_math": False}
    for line, text in lines.items():
        clean = "".join(character if character.isprintable() else "\ufffd" for character in text)
        axes.text(0, line + 0.5, clean, **look)
    if pieces and pieces[-1][3] + 1 < len(probe.texts):
        axes.text(1.0, 0.0, "\N{HORIZONTAL ELLIPSIS}", transform=axes.transAxes, ha="right", va="bottom")


def _row_label(axes: Axes, text: str) -> None:
    """A label along the panel's height, made smaller where it would reach into the next."""
    height = 72 * axes.get_position().height * axes.get_figure().get_figheight()
    axes.set_ylabel(text, fontsize=min(8.5, height / (0.58 * len(text))), labelpad=4)


def _frame(axes: Axes, *, is_own: bool) -> None:
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(style.INK if is_own else "#c9ced6")
    axes.spines[:].set_linewidth(1.6 if is_own else 0.8)


def _legend(figure: Figure, run: Run, words: str) -> None:
    experts = sorted({expert for user in run.users for expert in run.experts(user)})
    colours = [style.tint(colour) for colour in style.expert_colours(experts)]
    handles = [Patch(color=colour) for colour in colours]
    figure.legend(
        handles,
        style.expert_names(experts),
        loc="upper left",
        ncols=len(handles),
        bbox_to_anchor=(LEFT / canvas.WIDTH - 0.005, 1.0),
        **({"fontsize": 7, "handlelength": 1.3, "columnspacing": 1.1} if len(handles) > 4 else {}),
    )
    if words:
        figure.text(
            1 - RIGHT / canvas.WIDTH, 1 - 0.2 / figure.get_figheight(), words, ha="right", va="center"
        )
