"""Writes the report: one HTML page that loads nothing, and its figures as files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.draw import curves, phases, routing
from analysis.measure.costs import mean_phase_seconds, phase_seconds
from analysis.measure.groups import Group, evaluated_rounds, group_runs, remarks
from analysis.page import document, sections
from analysis.page.document import FigureFolder
from analysis.page.markup import Markup, join, tag
from analysis.page.sections import costs_table, users_table
from analysis.read.run import Run


def write_report(runs: Sequence[Run], output: Path) -> FigureFolder:
    """Writes the runs' page to `output` (whole or not at all) and its figures to `<output>_figures`."""
    groups = group_runs(runs)
    folder = FigureFolder(output.with_name(f"{output.stem}_figures"))
    document.write(_page(groups, folder), output)
    return folder


def _page(groups: Sequence[Group], folder: FigureFolder) -> Markup:
    title, lead = sections.headline(groups)
    parts = [
        ("perplexity", "Final perplexity", sections.final_perplexities(groups)),
        ("curves", "Perplexity during training", _curves(groups, folder)),
        ("aggregation", "Last aggregation", _aggregation(groups)),
        ("routing", "Routing", _routing(groups, folder)),
        ("costs", "Time, bytes, memory", _costs(groups, folder)),
        ("runs", "Runs and settings", _runs(groups)),
    ]
    notes = remarks(groups)
    return document.page(title, lead, parts, notes, sections.tiles(groups[0]) if len(groups) == 1 else None)


def _curves(groups: Sequence[Group], folder: FigureFolder) -> Markup:
    drawn = curves.by_user(groups)
    if drawn is None:
        return tag("p", "No test or validation perplexity has been evaluated yet.")
    caption = "Test (solid) and validation (dashed) perplexity by user "
    caption += f"after {evaluated_rounds(groups)}."
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
        drawn = routing.routing_over_rounds(group)
        if drawn is None:
            without.append(group.label)
            continue
        ending = f"_{number}" if len(groups) > 1 else ""
        parts += [tag("h3", group.label)] if len(groups) > 1 else []
        when = evaluated_rounds([group])
        caption = f"Mean gate weight over the evaluated tokens after {when}. {routing.routing_key(group)}"
        parts.append(folder.add(drawn, f"routing{ending}", f"Routing over rounds, {group.label}", caption))
        caption = "The same by layer at the last evaluated round. Dashed: one half."
        by_layer = routing.routing_by_layer(group)
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
    drawn = phases.phase_times(bars)
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
