"""Where the figures come from: each run's provenance and configuration, and what sets experiments apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.draw import formats
from analysis.measure.groups import Group, is_experimental
from analysis.read.run import Run

PROVENANCE = {
    "title": "Title",
    "method": "Method",
    "data_set": "Data set",
    "seed": "Seed",
    "N": "Users (N)",
    "base_model": "Base model",
    "base_digest": "Base digest",
    "init_adapter_digest": "Initial adapter's digest",
    "created": "Created (UTC)",
    "program_version": "Program version",
    "git_commit": "Git commit",
    "hosts": "Hosts",
    "devices": "Devices",
    "library_versions": "Libraries",
    "schema_version": "Results schema",
}


@dataclass(frozen=True)
class Settings:
    """By key, the values of the experiments with these labels."""

    labels: list[str]
    rows: dict[str, list[str]]


@dataclass(frozen=True)
class Details:
    """A run's entry, folded away unless it is the only one."""

    name: str
    facts: list[str]
    provenance: dict[str, str]
    configuration: str
    opened: bool


def differing_settings(groups: Sequence[Group]) -> Settings | None:
    """The settings that are not the same in all experiments; None where there is none."""
    settings = [group.runs[0].settings for group in groups]
    found = dict.fromkeys(key for one in settings for key in one if is_experimental(key))
    keys = [key for key in found if len({one.get(key) for one in settings}) > 1]
    rows = {key: [one.get(key, formats.NONE) for one in settings] for key in keys}
    return Settings([group.label for group in groups], rows) if rows else None


def run_details(runs: Sequence[Run]) -> list[Details]:
    return [_details(run, opened=len(runs) == 1) for run in runs]


def _details(run: Run, opened: bool) -> Details:
    last = int(run.rounds.max())
    facts = [
        run.method,
        f"seed {run.attribute('seed') or '?'}",
        "1 round" if last == 1 else f"{last} rounds",
    ]
    known = {words: run.attribute(name) for name, words in PROVENANCE.items() if run.attribute(name)}
    configuration = run.attribute("configuration").strip()
    return Details(run.name, facts, {"File": str(run.path), **known}, configuration, opened)
