"""Writes the report: one HTML page that loads nothing, and its figures as files beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from matplotlib.figure import Figure

from analysis import figures, sections
from analysis.compare import Group, group_runs, remarks
from analysis.costs import mean_phase_seconds, phase_seconds
from analysis.markup import Markup, inline_svg, join, tag
from analysis.results import Run
from analysis.sections import costs_table, users_table

# The page may not load anything, whatever a file's text contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass
class FigureFolder:
    """Where a report's figures go; hands each back as an element of the page."""

    path: Path
    written: int = 0

    def add(self, drawn: Figure, name: str, description: str, caption: str) -> Markup:
        self.path.mkdir(parents=True, exist_ok=True)
        self.written += 1
        svg = figures.save(drawn, self.path, name)
        note = tag("figcaption", f"{caption} ", tag("small", f"{self.path.name}/{name}.svg, .png"))
        return tag("figure", inline_svg(svg, f"figure{self.written}", description), note)


def write_report(runs: Sequence[Run], output: Path) -> FigureFolder:
    """Writes the runs' page to `output` (whole or not at all) and its figures to `<output>_figures`."""
    groups = group_runs(runs)
    folder = FigureFolder(output.with_name(f"{output.stem}_figures"))
    output.parent.mkdir(parents=True, exist_ok=True)
    page = _page(groups, folder)
    partial = output.with_name(f".{output.name}.partial")
    partial.write_text("<!DOCTYPE html>\n" + page + "\n", encoding="utf-8")
    os.replace(partial, output)
    return folder


def _page(groups: Sequence[Group], folder: FigureFolder) -> Markup:
    title, lead = sections.headline(groups)
    parts = [
        ("perplexity", "Final perplexity", sections.final_perplexities(groups)),
        ("curves", "Perplexity during training", _curves(groups, folder)),
        ("aggregation", "Last aggregation", _aggregation(groups)),
        ("routing", "Routing", _routing(groups, folder)),
        ("costs", "Time, bytes, memory", _costs(groups, folder)),
        ("runs", "Configuration", _runs(groups)),
    ]
    parts = [part for part in parts if part[2] is not None]
    notes = remarks(groups)
    main = join(
        tag(
            "header",
            tag("h1", title),
            lead,
            tag("nav", *[tag("a", words, href=f"#{name}") for name, words, _ in parts]),
        ),
        sections.tiles(groups[0]) if len(groups) == 1 else "",
        tag("ul", *[tag("li", note) for note in notes], class_="remarks") if notes else "",
        *[tag("section", tag("h2", words), content, id=name) for name, words, content in parts],
    )
    style = Markup(files("analysis").joinpath("report.css").read_text(encoding="utf-8"))
    head = join(
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("title", f"comigs: {title}"),
        tag("style", style),
    )
    return tag("html", tag("head", head), tag("body", tag("main", main)), lang="en")


def _curves(groups: Sequence[Group], folder: FigureFolder) -> Markup:
    drawn = figures.perplexity_curves(groups)
    if drawn is None:
        return tag("p", "No test or validation perplexity has been evaluated yet.")
    caption = "Test (solid) and validation (dashed) perplexity by user after each communication round."
    if any(len(group.runs) > 1 for group in groups):
        caption += " Mean over seeds; band: one standard deviation of the test perplexity."
    return folder.add(drawn, "perplexity", "Perplexity over communication rounds, a panel a user", caption)


def _aggregation(groups: Sequence[Group]) -> Markup | None:
    content = sections.before_aggregation(groups)
    if content is None:
        return None
    words = (
        "Perplexity of the users\u2019 models just before the last aggregation, and of what they end up with."
    )
    return join(tag("p", words), content)


def _routing(groups: Sequence[Group], folder: FigureFolder) -> Markup:
    """Both routing figures for each experiment that has a router, and a sentence for those without."""
    parts: list[Markup] = []
    without: list[str] = []
    for number, group in enumerate(groups, start=1):
        drawn = figures.routing_over_rounds(group)
        if drawn is None:
            without.append(group.label)
            continue
        ending = f"_{number}" if len(groups) > 1 else ""
        parts += [tag("h3", group.label)] if len(groups) > 1 else []
        caption = "Mean gate weight over the evaluated tokens after each round. " + figures.routing_key(group)
        parts.append(folder.add(drawn, f"routing{ending}", f"Routing over rounds, {group.label}", caption))
        caption = "The same by layer at the last evaluated round. Dashed: one half."
        by_layer = figures.routing_by_layer(group)
        if by_layer is not None:
            parts.append(
                folder.add(by_layer, f"routing_by_layer{ending}", f"Routing by layer, {group.label}", caption)
            )
    if without:
        words = "these results hold no routing scores (a method without a router has none)."
        parts.insert(0, tag("p", f"No routing to show for {', '.join(without)}: {words}"))
    return join(*parts)


def _costs(groups: Sequence[Group], folder: FigureFolder) -> Markup:
    """A single experiment by user; several by their means, each one's users folded away below."""
    if len(groups) == 1:
        return join(_phases(phase_seconds(groups[0]), folder, "phase_times", "user"), users_table(groups[0]))
    means = {group.label: mean_phase_seconds(group) for group in groups}
    parts = [_phases(means, folder, "phase_times", "experiment (mean over users)"), costs_table(groups)]
    for number, group in enumerate(groups, start=1):
        drawn = _phases(phase_seconds(group), folder, f"phase_times_{number}", "user")
        summary = tag("summary", f"{group.label} ", tag("span", "by user"))
        parts.append(tag("details", summary, drawn, users_table(group)))
    return join(*parts)


def _phases(bars: dict[str, dict[str, float]], folder: FigureFolder, name: str, entry: str) -> Markup:
    drawn = figures.phase_times(bars)
    if drawn is None:
        return tag("p", "No phase times recorded.")
    caption = (
        f"Mean wall-clock seconds a round by phase and {entry}. Round 0, which only evaluates, is left out."
    )
    return folder.add(drawn, name, f"Mean seconds a round by phase and {entry}", caption)


def _runs(groups: Sequence[Group]) -> Markup:
    runs = [run for group in groups for run in group.runs]
    differing = sections.differing_settings(groups) if len(groups) > 1 else None
    parts = (
        [tag("p", "Settings that differ between the experiments:"), differing]
        if differing is not None
        else []
    )
    return join(*parts, *[sections.run_details(run, opened=len(runs) == 1) for run in runs])
