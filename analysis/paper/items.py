"""Every table and figure of the papers by its command's name. A new item is a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from analysis.paper import mop_table, prompt_weights, published, rounds, router_sweep, splits, tables, tokens
from analysis.paper.choice import MissingRuns, Request


@dataclass(frozen=True)
class Item:
    """Makes an item from a sweep's runs and names the files; `dataset`: the paper's, where it has one; `has_bars`: can
    be drawn as bars too."""

    title: str
    make: Callable[[Request, str], list[Path]]
    dataset: str | None = None
    has_bars: bool = False


def _table(layout: Callable, source: Callable | None) -> Callable[[Request, str], list[Path]]:
    return partial(layout, published=source)


def _routing(layer: str) -> Callable[[Request, str], list[Path]]:
    return partial(tokens.routing_grid, layer=layer)


ITEMS = {
    "table1": Item("Mean test perplexity, homogeneous models", _table(tables.by_data_set, published.table1)),
    "table2": Item("Mean test perplexity, heterogeneous models", _table(tables.by_pattern, published.table2)),
    "table3": Item("Number of tokens in each split", splits.table3),
    "table4": Item(
        "Mean test perplexity, homogeneous models, all baselines",
        _table(tables.by_data_set, published.table4),
    ),
    "table5": Item(
        "Mean test perplexity by load-balancing term", _table(tables.by_load_balancing, published.table5)
    ),
    "validation-data": Item("What the validation data is worth", _table(tables.by_data_set, None)),
    "figure2": Item("Data splits across users, as bubbles", splits.figure2),
    "figure3": Item("Test perplexity over rounds", rounds.perplexity),
    "figure4": Item("Layer-wise gate weights over rounds", rounds.gate_weights),
    "figure5": Item(
        "Token-level routing in domain, first and last layer", tokens.figure5, dataset="slimpajama"
    ),
    "figure6": Item("More specialists where there is more data", rounds.expert_patterns),
    "figure7": Item("Redundant specialists where there is less data", rounds.expert_patterns),
    "figure8": Item("One expert where there is less data", rounds.expert_patterns),
    "figure9": Item("Update period and update steps of the routers", router_sweep.figure9),
    "figure10": Item("As figure 6, SlimPajama", rounds.expert_patterns),
    "figure11": Item("As figure 7, SlimPajama", rounds.expert_patterns),
    "figure12": Item("As figure 8, SlimPajama", rounds.expert_patterns),
    "figure13": Item("Token-level routing, first layer, SlimPajama", _routing("first"), dataset="slimpajama"),
    "figure14": Item(
        "Token-level routing, middle layer, SlimPajama", _routing("middle"), dataset="slimpajama"
    ),
    "figure15": Item("Token-level routing, last layer, SlimPajama", _routing("last"), dataset="slimpajama"),
    "figure16": Item("Token-level routing, first layer, AG News", _routing("first"), dataset="ag_news"),
    "figure17": Item("Token-level routing, middle layer, AG News", _routing("middle"), dataset="ag_news"),
    "figure18": Item("Token-level routing, last layer, AG News", _routing("last"), dataset="ag_news"),
}
# With the settings of the authors' programs (jobs/as-published).
ITEMS |= {
    f"as-published-{name}": replace(
        ITEMS[name], title=f"{ITEMS[name].title}, as the authors' programs have it"
    )
    for name in ("table1", "table2", "table4", "table5")
}
# Of the mixture of prompts (arXiv 2310.02842), on instruction data and pruned bases.
_OF_MOP = {
    "mop-table": Item("Response perplexity by method and base", mop_table.make),
    "mop-ablation": Item("Response perplexity by what is left out of the mixture of prompts", mop_table.make),
    **{
        f"mop-figure{number}": Item(
            prompt_weights.title_of(number), partial(prompt_weights.figure, number=number), has_bars=True
        )
        for number in prompt_weights.FIGURES
    },
    "mop-weights": Item(
        "Gate weights by task category, of every method and base", prompt_weights.every_gate, has_bars=True
    ),
}


def _everything_of_mop(request: Request, _title: str) -> list[Path]:
    """What has finished runs; says what has none."""
    files: list[Path] = []
    for name, item in _OF_MOP.items():
        try:
            files += item.make(replace(request, item=name), item.title)
        except MissingRuns as error:
            print(f"note: {name}: {error}")
    if not files:
        raise MissingRuns(f"{request.index.path}: no finished run of any item of mop")
    return files


ITEMS |= _OF_MOP
ITEMS["mop"] = Item("The mixture of prompts' table and figures", _everything_of_mop, has_bars=True)
