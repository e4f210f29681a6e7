"""Figures beside what they must reach, as a table to read and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """What the median must reach."""

    at_least: float | None = None
    at_most: float | None = None

    def reached(self, value: float) -> bool:
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)

    def as_json(self) -> dict[str, float]:
        bounds = {"at_least": self.at_least, "at_most": self.at_most}
        return {name: value for name, value in bounds.items() if value is not None}

    def __str__(self) -> str:
        return " ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in self.as_json().items())


@dataclass(frozen=True)
class Figure:
    """A row of the table: what was found, once a repeat."""

    name: str
    unit: str
    values: Sequence[float]
    bound: Bound

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def reached(self) -> bool:
        return self.bound.reached(self.median)

    def as_json(self) -> dict[str, float]:
        return {
            "min": min(self.values),
            "median": self.median,
            "max": max(self.values),
            **self.bound.as_json(),
        }


def as_text(figures: Sequence[Figure]) -> str:
    """Columns under their names, numbers to the right."""
    head = ("", "minimum", "median", "maximum", "unit", "must be", "reached")
    rows = [head]
    for figure in figures:
        numbers = [f"{value:.3g}" for value in (min(figure.values), figure.median, max(figure.values))]
        rows.append(
            (figure.name, *numbers, figure.unit, str(figure.bound), "yes" if figure.reached else "NO")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.rjust(width) if 1 <= column <= 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * sum(widths, 2 * (len(widths) - 1)), *lines[1:]])


def as_json(figures: Sequence[Figure]) -> dict[str, dict[str, float]]:
    return {figure.name: figure.as_json() for figure in figures}
