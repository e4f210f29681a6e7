"""README.md of an export: what lies there, how it is opened, where it comes from."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from analysis.export.base import Base
from analysis.measure.perplexity import final_row, initial_row
from analysis.read.run import Run

_PROVENANCE = {
    "method": "Method",
    "data_set": "Data set",
    "data_digest": "SHA-256 of its manifest",
    "init_adapter_digest": "SHA-256 of the adapter that it began as",
    "seed": "Seed",
    "program_version": "comigs",
    "git_commit": "Commit",
    "created": "Run begun (UTC)",
}


@dataclass(frozen=True)
class Described:
    """What an export's kind says of it. `contents`: what each entry of the folder is; `opened`: the lines of Python
    that open it; `form`: what stands there for the user's model, where that is not plain."""

    user: str
    tags: tuple[str, ...]
    facts: Mapping[str, str]
    contents: Mapping[str, str]
    opened: str
    form: str = ""


def card(run: Run, base: Base, described: Described) -> str:
    facts = {"User": described.user}
    facts |= {words: run.attribute(name) for name, words in _PROVENANCE.items() if run.attribute(name)}
    facts |= {"Rounds": str(run.rounds.max()), "Base": str(base.folder)}
    facts |= {"SHA-256 of its weights": base.digest, **described.facts}
    facts |= _perplexities(run, described.user)
    parts = [
        f"---\nlibrary_name: peft\ntags: [{', '.join(('comigs', *described.tags))}]\n---",
        f"# {_in_line(described.user)}, after {_in_line(run.method)}",
        "One user's model from a run of federated fine-tuning by comigs.",
        described.form,
        _table("file", "what", described.contents),
        f"```python\n{described.opened}\n```",
        _table("", "", facts),
        "## The run's configuration",
        textwrap.indent(run.attribute("configuration"), "    "),
    ]
    return "\n\n".join(part for part in parts if part).rstrip() + "\n"


def _perplexities(run: Run, user: str) -> dict[str, str]:
    """Of the user, before any training and after the last round, as the run recorded them."""
    facts = {}
    for split in ("test", "validation"):
        rows = {"before": initial_row(run, split), "after": final_row(run, split)}
        known = {when: float(row.sel(user=user)) for when, row in rows.items() if row is not None}
        if known:
            facts[f"Perplexity, {split}"] = ", ".join(f"{value:.4g} {when}" for when, value in known.items())
    return facts


def _table(left: str, right: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {left} | {right} |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {_in_line(key)} | {_in_line(value)} |" for key, value in rows.items())])


def _in_line(text: str) -> str:
    """What would end the line or the cell, or begin a tag, escaped."""
    line = " ".join(text.split())
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
