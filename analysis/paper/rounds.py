"""Figures over rounds: test perplexity (3, 6-8, 10-12) and layer-wise gate weights (4)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from analysis.draw import curves, routing, style
from analysis.measure.groups import Group
from analysis.paper.choice import Request, choose, remarks
from analysis.read.index import Cell, data_set_name, data_sets_of
from analysis.read.results import ResultsError

ROUTED = "comigs-1g1s"
# Items whose rows of that method have its usual settings, in the order in which they are looked through.
ROUTED_ITEMS = ("figure13", "figure16", "figure4", "figure3", "table1", "table4")


def chosen(request: Request, cells: list[Cell]) -> dict[str, list[Group]]:
    """The experiments to draw by data set; says what is missing, refuses to draw nothing."""
    choices = [choose(request.index, cell) for cell in cells]
    for remark in remarks(choices):
        print(f"note: {remark}")
    datasets = data_sets_of(choice.cell for choice in choices if choice.group is not None)
    if not datasets:
        raise ResultsError(f"{request.index.path}: no finished run of {request.item}")
    groups = [(choice.cell.dataset, choice.group) for choice in choices]
    return {
        name: [group for dataset, group in groups if dataset == name and group is not None]
        for name in datasets
    }


def perplexity(request: Request, title: str) -> list[Path]:
    """Figure 3: a panel a data set (mean over users), and for each data set a panel a user."""
    found = chosen(request, request.cells(request.item))
    drawn = curves.by_data_set({data_set_name(name): members for name, members in found.items()})
    files = request.draw(drawn, title)
    for name, members in found.items():
        files += request.draw(curves.by_user(members, ["test"]), title, name)
    return files


def expert_patterns(request: Request, title: str) -> list[Path]:
    """Figures 6-8, 10-12: a panel a user; the legend gives the users' numbers of experts."""
    found = chosen(request, request.cells(request.item))
    files: list[Path] = []
    for name, groups in found.items():
        for group, label in zip(groups, pattern_labels(groups)):
            group.label = label
        drawn = curves.by_user(groups, ["test"], style.series_colours(len(groups)))
        files += request.draw(drawn, title, "" if len(found) == 1 else name)
    return files


def pattern_labels(groups: list[Group]) -> list[str]:
    """`2, 2, 4, 4`: the experts of each user; with the row's name where that does not tell rows apart."""
    labels = []
    for group in groups:
        experts = group.runs[0].array("users", "experts")
        labels.append(group.label if experts is None else ", ".join(str(int(n)) for n in experts.values))
    count = Counter(labels)
    return [text if count[text] == 1 else f"{text} ({group.label})" for text, group in zip(labels, groups)]


def gate_weights(request: Request, title: str) -> list[Path]:
    """Figure 4: a panel a user, for each data set, of the method with one generalist and one specialist."""
    files: list[Path] = []
    for name, group in routed_groups(request).items():
        drawn = routing.routing_over_rounds(group)
        if drawn is not None:
            files += request.draw(drawn, title, name)
    if not files:
        raise ResultsError(f"{request.index.path}: no finished run of {ROUTED} has routing scores")
    return files


def routed_groups(request: Request) -> dict[str, Group]:
    """The runs of the paper's own method by data set, from whichever item has them."""
    cells: dict[str, Cell] = {}
    for item in dict.fromkeys([request.item, *ROUTED_ITEMS]):
        for cell in request.index.cells(item, request.datasets):
            is_done = any(entry.is_done for entries in cell.alternatives.values() for entry in entries)
            if cell.method == ROUTED and is_done:
                cells.setdefault(cell.dataset, cell)
    if not cells:
        done = [entry for entry in request.index.entries if entry.is_done and entry.method == ROUTED]
        others = ", ".join(data_sets_of(done))
        hint = f" (there are some on --dataset {others})" if others else ""
        raise ResultsError(f"{request.index.path}: no finished run of {ROUTED}{request.of}{hint}")
    found = chosen(request, list(cells.values()))
    return {name: groups[0] for name, groups in found.items()}
