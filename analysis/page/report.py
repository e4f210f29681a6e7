"""Writes the report: one HTML page that loads nothing, and its figures as files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.draw import curves, phases, routing
from analysis.measure.costs import mean_phase_seconds, phase_seconds
from analysis.measure.groups import Group, evaluated_rounds, group_runs, remarks
from analysis.page import tables
from analysis.page.drawings import Drawing, FigureFolder
from analysis.page.headline import headline, tiles
from analysis.page.html import render, write_page
from analysis.page.provenance import differing_settings, run_details
from analysis.read.run import Run
from analysis.read.texts import Continuation, read_texts

HEADINGS = {
    "perplexity": "Final perplexity",
    "curves": "Perplexity during training",
    "aggregation": "Last aggregation",
    "routing": "Routing",
    "texts": "What the models write",
    "costs": "Time, bytes, memory",
    "runs": "Runs and settings",
}


def write_report(runs: Sequence[Run], output: Path) -> FigureFolder:
    """Writes the runs' page to `output` (whole or not at all) and its figures to `<output>_figures`."""
    groups = group_runs(runs)
    folder = FigureFolder.beside(output)
    write_page(render("report.html", **_contents(groups, folder)), output)
    return folder


def _contents(groups: Sequence[Group], folder: FigureFolder) -> dict[str, Any]:
    """What the template fills in; figures are numbered in the order in which they are drawn here."""
    title, lead = headline(groups)
    several = len(groups) > 1
    aggregation = tables.aggregation(groups)
    texts = _texts(groups)
    there = {"aggregation": bool(aggregation.rows), "texts": bool(texts)}
    shown = [name for name in HEADINGS if there.get(name, True)]
    return {
        "title": title,
        "lead": lead,
        "headings": {name: HEADINGS[name] for name in shown},
        "several": several,
        "tiles": None if several else tiles(groups[0]),
        "remarks": remarks(groups),
        "final": tables.final_perplexities(groups),
        "curves": _curves(groups, folder),
        "aggregation": aggregation,
        "routing": _routing(groups, folder),
        "texts": texts,
        "costs": _costs(groups, folder),
        "settings": differing_settings(groups) if several else None,
        "runs": run_details([run for group in groups for run in group.runs]),
    }


def _curves(groups: Sequence[Group], folder: FigureFolder) -> Drawing | None:
    drawn = curves.by_user(groups)
    if drawn is None:
        return None
    caption = "Test (solid) and validation (dashed) perplexity by user "
    caption += f"after {evaluated_rounds(groups)}."
    if any(len(group.runs) > 1 for group in groups):
        caption += " Mean over seeds; band: one standard deviation of the test perplexity."
    return folder.add(drawn, "perplexity", "Perplexity over communication rounds, a panel a user", caption)


def _routing(groups: Sequence[Group], folder: FigureFolder) -> dict[str, Any]:
    """Both figures of each experiment that has a router, by its label; the labels of those without."""
    drawn: list[tuple[str, list[Drawing]]] = []
    without: list[str] = []
    for number, group in enumerate(groups, start=1):
        over_rounds, by_layer = routing.routing_over_rounds(group), routing.routing_by_layer(group)
        if over_rounds is None or by_layer is None:
            without.append(group.label)
            continue
        ending = f"_{number}" if len(groups) > 1 else ""
        when, key = evaluated_rounds([group]), routing.routing_key(group)
        first = f"Mean gate weight over the evaluated tokens after {when}. {key}"
        second = "The same by layer at the last evaluated round. Dashed: one half."
        drawings = [
            folder.add(over_rounds, f"routing{ending}", f"Routing over rounds, {group.label}", first),
            folder.add(by_layer, f"routing_by_layer{ending}", f"Routing by layer, {group.label}", second),
        ]
        drawn.append((group.label, drawings))
    return {"drawn": drawn, "without": without}


def _texts(groups: Sequence[Group]) -> list[tuple[str, dict[str, list[Continuation]]]]:
    """By prompt what a run's models made of it, of the first run of each experiment that has any."""
    written = []
    for group in groups:
        found = next((texts for run in group.runs if (texts := read_texts(run))), [])
        by_prompt: dict[str, list[Continuation]] = {}
        for one in found:
            by_prompt.setdefault(one.prompt, []).append(one)
        if by_prompt:
            written.append((group.label, by_prompt))
    return written


def _costs(groups: Sequence[Group], folder: FigureFolder) -> dict[str, Any]:
    """A single experiment by user; several by their means, and each one by user."""
    if len(groups) == 1:
        drawing = _phases(phase_seconds(groups[0]), folder, "phase_times", "user")
        return {"drawing": drawing, "table": tables.users(groups[0])}
    means = {group.label: mean_phase_seconds(group) for group in groups}
    drawing = _phases(means, folder, "phase_times", "experiment (mean over users)")
    by_user = [
        {
            "label": group.label,
            "drawing": _phases(phase_seconds(group), folder, f"phase_times_{number}", "user"),
            "table": tables.users(group),
        }
        for number, group in enumerate(groups, start=1)
    ]
    return {"drawing": drawing, "table": tables.costs(groups), "by_user": by_user}


def _phases(bars: dict[str, dict[str, float]], folder: FigureFolder, name: str, entry: str) -> Drawing | None:
    drawn = phases.phase_times(bars)
    if drawn is None:
        return None
    caption = (
        f"Mean wall-clock seconds a round by phase and {entry}. Round 0, which only evaluates, is left out."
    )
    return folder.add(drawn, name, f"Mean seconds a round by phase and {entry}", caption)
