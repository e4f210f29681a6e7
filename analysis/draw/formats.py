"""Numbers as a reader wants them: sensible digits and units, a dash where there is none."""

from __future__ import annotations

import math

NONE = "\N{EN DASH}"


def perplexity(value: float) -> str:
    """Two decimals, thousands separated."""
    if math.isnan(value):
        return NONE
    return f"{value:,.2f}" if math.isfinite(value) else "\N{INFINITY}"


def figure(mean: float, std: float) -> str:
    """`mean (std)`, without the bracket for a single run."""
    return perplexity(mean) if math.isnan(std) else f"{perplexity(mean)} ({perplexity(std)})"


def seconds(value: float) -> str:
    """At most two decimals below two minutes, then minutes, then hours."""
    if math.isnan(value):
        return NONE
    if value < 119.5:
        text = f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
        return f"{text.rstrip('0').rstrip('.') if '.' in text else text} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(value: float) -> str:
    """Bytes in the binary unit that leaves one to four digits before the point."""
    if math.isnan(value):
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def count(value: float) -> str:
    """A whole number with thousands separated."""
    return NONE if math.isnan(value) else f"{value:,.0f}"


def change(before: float, after: float) -> str:
    """The relative change in per cent, signed."""
    if not (math.isfinite(before) and math.isfinite(after)) or before == 0:
        return NONE
    percent = round(100 * (after / before - 1), 2)
    return f"{percent:+.2f} %".replace("-", "\N{MINUS SIGN}") if percent else "0.00 %"
