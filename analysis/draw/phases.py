"""Draws how long the phases of a round take."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.draw import canvas, formats, style


@canvas.styled
def phase_times(bars: dict[str, dict[str, float]]) -> Figure | None:
    """Mean seconds a round: a stacked bar an entry (a user, or an experiment), a colour a phase."""
    if not any(bars.values()):
        return None
    figure = Figure(figsize=(canvas.WIDTH, 1.05 + 0.34 * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shown = [phase for phase in style.PHASES if any(phase in bar for bar in bars.values())]
    longest = max(sum(bar.values()) for bar in bars.values())
    look = {"height": 0.68, "edgecolor": "white", "linewidth": 0.5}
    for position, bar in enumerate(bars.values()):
        left = 0.0
        for phase in (phase for phase in shown if phase in bar):
            axes.barh(position, bar[phase], left=left, color=style.PHASES[phase], **look)
            left += bar[phase]
        axes.text(left + 0.008 * longest, position, formats.seconds(left), va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), [canvas.plain(label, 40) for label in bars])
    axes.set_ylim(len(bars) - 0.45, -0.55)
    axes.set_xlim(0, 1.1 * longest)
    axes.set_xlabel("mean seconds a round")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    canvas.legend(figure, [Patch(color=style.PHASES[phase]) for phase in shown], shown, 6)
    return figure
