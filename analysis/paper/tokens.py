"""Figures 5 and 13-18: every token coloured by its first expert, as a page and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from analysis.page.html import write_page
from analysis.paper.choice import Request
from analysis.paper.rounds import routed_groups
from analysis.paper.token_page import token_page
from analysis.paper.token_picture import diagonal, grid
from analysis.read.index import data_set_name
from analysis.read.probes import Probe, middle_layer, read_probes
from analysis.read.results import ResultsError
from analysis.read.run import Run


@dataclass(frozen=True)
class Routed:
    """A run whose results hold token-level routing."""

    dataset: str
    run: Run
    probes: list[Probe]

    def layers(self, *names: str) -> dict[str, int]:
        count = self.probes[0].score.shape[2]
        numbers = {"first": 0, "middle": middle_layer(count), "last": count - 1}
        return {name: numbers[name] for name in names}

    def of_users(self) -> list[Probe | None]:
        """Each user's own text, the first where it has several."""
        return [next((one for one in self.probes if one.owner == user), None) for user in self.run.users]


def figure5(request: Request, title: str) -> list[Path]:
    """Every user's model on the user's own text, at the first and the last layer."""
    routed = _routed(request)
    found = routed.of_users()
    own = [probe for probe in found if probe is not None]
    if len(own) < len(found):
        user = routed.run.users[found.index(None)]
        raise ResultsError(f"{routed.run.path}: no text of {user} among its tokens (expected one a user)")
    layers = routed.layers("first", "last")
    picture = diagonal(routed.run, own, layers)
    heading = request.heading(title)
    content = token_page(heading, _lead(routed), routed.run, own, layers, "first", is_diagonal=True)
    return [*request.draw(picture, title), _written(request, content)]


def routing_grid(request: Request, title: str, layer: str) -> list[Path]:
    """Every user's model on every text; the picture shows one layer, the page all three."""
    routed = _routed(request)
    layers = routed.layers("first", "middle", "last")
    own = [probe for probe in routed.of_users() if probe is not None]
    picture = grid(routed.run, own or routed.probes[:4], layers[layer], layer)
    content = token_page(request.heading(title), _lead(routed), routed.run, routed.probes, layers, layer)
    return [*request.draw(picture, title), _written(request, content)]


def _routed(request: Request) -> Routed:
    """The lowest seed's run that holds tokens."""
    groups = routed_groups(request)
    for dataset, group in groups.items():
        for run in group.runs:
            try:
                probes = read_probes(run)
            except ResultsError as error:
                print(f"note: {error}")
                continue
            if probes:
                return Routed(dataset, run, probes)
    names = ", ".join(run.name for group in groups.values() for run in group.runs)
    raise ResultsError(f"{request.index.path}: no tokens in {names} (comigs route writes them)")


def _lead(routed: Routed) -> Sequence[str]:
    return (
        f"{routed.run.method} on {data_set_name(routed.dataset)}",
        f"seed {routed.run.attribute('seed')}",
        f"base model {routed.run.attribute('base_model')}",
        routed.run.name,
    )


def _written(request: Request, content: Markup) -> Path:
    output = request.output / f"{request.item}.html"
    write_page(content, output)
    return output
