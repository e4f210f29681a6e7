"""Figures of a mixture of prompts: the mean gate weight of every prompt group by task category, before, during and
after training (Figures 1-12 of the appendix of arXiv 2310.02842), on bases that are pruned in different ways."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from analysis.draw import formats, gates
from analysis.draw.own_files import write_own
from analysis.measure import categories
from analysis.paper.choice import MissingRuns, Request, choose, remarks
from analysis.read.index import Cell, data_set_name
from analysis.read.run import Run

TABLE = "mop-table"
CENTRALISED, FEDERATED = "centralised", "federated"
METHODS = {CENTRALISED: "mop-centralized", FEDERATED: "mop"}
# Setting and base of each published figure; which of them are centralised is inferred: captions are alike and the series
# begins anew at 7.
FIGURES = {
    1: (CENTRALISED, "instructions-75"),
    2: (CENTRALISED, "instructions-90"),
    3: (CENTRALISED, "instructions-7of8"),
    4: (CENTRALISED, "instructions-3of4"),
    5: (CENTRALISED, "instructions-2of4"),
    6: (CENTRALISED, "instructions-4of8"),
    7: (FEDERATED, "instructions-75"),
    8: (FEDERATED, "instructions-85"),
    9: (FEDERATED, "instructions-90"),
    10: (FEDERATED, "instructions-7of8"),
    11: (FEDERATED, "instructions-2of4"),
    12: (FEDERATED, "instructions-4of8"),
}
PRUNING_METHODS = ("magnitude", "wanda", "sparsegpt")
UNKNOWN = "Published as a figure whose values are not known here: nothing of it is drawn."
COLUMNS = "setting,base,method,seed,stage,round,user,category,test_examples,group,weight".split(",")


def title_of(number: int) -> str:
    setting, base = FIGURES[number]
    return f"MoP, appendix figure {number}: gate weights by task category, {setting}, {data_set_name(base)}"


def figure(request: Request, title: str, number: int) -> list[Path]:
    """A published figure's setting and base, from the runs of our own method."""
    setting, base = FIGURES[number]
    cells = [
        cell
        for cell in request.cells(request.item, TABLE)
        if cell.method == METHODS[setting] and cell.dataset == base
    ]
    if not cells:
        raise MissingRuns(f"{request.index.path}: no run of {METHODS[setting]} on {base}")
    return [path for cell in cells for path in _of_cell(request, title, cell, request.item, UNKNOWN)]


def every_gate(request: Request, _title: str) -> list[Path]:
    """All rows of the table that have gates, on all bases: also of what is not among the published figures."""
    files: list[Path] = []
    for cell in request.cells(request.item, TABLE):
        runs = _runs(request, cell)
        if runs and categories.gate_weights(runs[0]) is not None:
            heading = f"Gate weights by task category, {cell.row}, {data_set_name(cell.dataset)}"
            files += _of_cell(request, heading, cell, f"{request.item}_{cell.dataset}_{cell.method}")
    if not files:
        raise MissingRuns(f"{request.index.path}: no finished run of {TABLE} has gate weights")
    return files


def _runs(request: Request, cell: Cell) -> list[Run]:
    choice = choose(request.index, cell)
    for remark in remarks([choice]):
        print(f"note: {remark}")
    return choice.group.runs if choice.group else []


def _of_cell(request: Request, title: str, cell: Cell, name: str, published: str = "") -> list[Path]:
    """The first seed's figure, since groups of different seeds need not mean the same; all seeds' numbers."""
    shown = [found for run in _runs(request, cell) if (found := _shown(run)) is not None]
    if not shown:
        raise MissingRuns(f"{request.index.path}: no finished run of {cell.row} has gate weights")
    draw = gates.bars if request.bars else gates.heat_maps
    first = shown[0]
    words = f"{caption(first.run)} {published}".strip()
    over_users = "Mean over users. " if first.is_own else ""
    pictures = {name: draw(first.panels(), first.axis, over_users + words)}
    if first.is_own:
        pictures[f"{name}_users"] = draw(first.panels_by_user(), first.axis, f"After training. {words}")
    files: list[Path] = []
    for part, picture in pictures.items():
        files += request.write(picture, part, title)
    table = request.output / f"{name}.csv"
    write_own({table: comma_separated(cell, shown).encode()})
    return [*files, table]


@dataclass(frozen=True)
class _Shown:
    """A run's gate weights at the stages that are drawn."""

    run: Run
    weight: xr.DataArray
    stages: list[categories.Stage]
    axis: gates.Axis

    @property
    def is_own(self) -> bool:
        return categories.differ_between_users(self.weight)

    def panels(self) -> list[gates.Panel]:
        return [
            self._panel(
                f"{stage.name}: round {stage.round}",
                categories.over_users(self.weight.sel(round=stage.round)),
                self._perplexity(stage.round),
            )
            for stage in self.stages
        ]

    def panels_by_user(self) -> list[gates.Panel]:
        last = self.stages[-1].round
        return [
            self._panel(user, self.weight.sel(round=last, user=user), self._perplexity(last, user))
            for user in self.run.users
        ]

    def _panel(self, title: str, weight: xr.DataArray, perplexity: float) -> gates.Panel:
        told = f"MI {categories.mutual_information(weight):.3f} nats, test perplexity {formats.perplexity(perplexity)}"
        return gates.Panel(title, weight.transpose("category", "expert").values, told)

    def _perplexity(self, number: int, user: str | None = None) -> float:
        array = self.run.array("perplexity", "test")
        if array is None:
            return float("nan")
        row = array.sel(round=number)
        return float(row.mean("user", skipna=False) if user is None else row.sel(user=user))


def _shown(run: Run) -> _Shown | None:
    weight = categories.gate_weights(run)
    if weight is None:
        return None
    kinds = max((run.experts(user) for user in run.users), key=len)
    counts = run.array("users", "test_examples")
    names = [str(name) for name in weight["category"].values]
    examples = [0 if counts is None else int(counts.sel(category=name).max()) for name in names]
    weight = weight.isel(expert=slice(0, len(kinds)))
    return _Shown(run, weight, categories.stages(run, weight), gates.Axis(names, examples, kinds))


def caption(run: Run) -> str:
    """Setting, gate, base, its pruning in both readings, and how to read the figure."""
    setting = CENTRALISED if run.method == METHODS[CENTRALISED] else FEDERATED
    own = (
        ""
        if run.method in METHODS.values()
        else f" ({run.method}; mean over users where gates are their own)"
    )
    return (
        f"{setting.capitalize()}{own}, {len(run.users)} users, seed {run.attribute('seed')}{_gate(run)}; base"
        f" {Path(run.attribute('base_model')).name}, {pruning(run.attribute('base_pruning'))}. Rows: categories (test"
        " examples); columns: groups, G shared, S a user's own. MI: mutual information of category and group, 0 where the"
        " gate ignores the task."
    )


def _gate(run: Run) -> str:
    layer, rounds = run.array("users", "prompt_layer"), categories.warm_up_rounds(run)
    into = "" if layer is None else f", prompts enter block {int(layer.max())}"
    pretrained = f"pretrained on categories for {rounds} rounds" if rounds else "not pretrained"
    return f"{into}, gate {pretrained}"


def pruning(text: str) -> str:
    """What a base's comigs-pruning.json says, in both readings of a bare n:m; empty: it has none."""
    if not text:
        return "not pruned"
    try:
        told = json.loads(text)
        method = told["method"]
        zeros, of = (told["zeros"], told["of"]) if "of" in told else (told["share"], 1)
        share, is_known = 100 * zeros / of, method in PRUNING_METHODS
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        is_known = False
    if not is_known:
        return "pruned, its record is damaged"
    if "of" not in told:
        return f"pruned by {method}: {share:g} % zeros, unstructured"
    words = f"pruned by {method}: {zeros} zeros of every {of} inputs ({share:g} % zeros)"
    if 2 * zeros == of:
        return f"{words}; '{zeros}:{of}' in either reading"
    slip = " (its caption says 50 %, which fits neither)" if (zeros, of) == (7, 8) else ""
    return (
        f"{words}: the published '{zeros}:{of}'{slip} read as zeros, as SparseGPT's own options count; read as kept, it"
        f" would be {100 * (of - zeros) / of:g} % zeros"
    )


def comma_separated(cell: Cell, shown: list[_Shown]) -> str:
    """Every weight of every seed, stage and user, and the mean over users (an empty user)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in shown:
        setting = CENTRALISED if one.run.method == METHODS[CENTRALISED] else FEDERATED
        head = [setting, data_set_name(cell.dataset), one.run.method, one.run.attribute("seed")]
        for stage in one.stages:
            at = one.weight.sel(round=stage.round)
            by_user = {"": categories.over_users(at), **{user: at.sel(user=user) for user in one.run.users}}
            for user, weight in by_user.items():
                for row in _rows(weight, one.axis):
                    writer.writerow([*head, stage.name, stage.round, user, *row])
    return text.getvalue()


def _rows(weight: xr.DataArray, axis: gates.Axis) -> Iterator[list[object]]:
    table = weight.transpose("category", "expert").values
    for row, column in np.ndindex(table.shape):
        if not np.isnan(table[row, column]):
            value = repr(float(table[row, column]))
            yield [axis.categories[row], axis.examples[row], axis.columns[column], value]
