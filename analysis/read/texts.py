"""What a run's models wrote: texts.json beside its results, as `python -m data_prep generate --output` makes it."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.read.results import ResultsError
from analysis.read.run import Run
from console.small_files import Unreadable, json_of

FILE_NAME = "texts.json"
FORMAT = ("comigs-texts", 1)


@dataclass(frozen=True)
class Continuation:
    """`model`: its user; empty: the base model alone."""

    model: str
    prompt: str
    text: str


def read_texts(run: Run) -> list[Continuation]:
    """In the file's order; none where there is no file. Raises ResultsError where it is something else."""
    path = run.path.parent / FILE_NAME
    try:
        content = json_of(path)
    except FileNotFoundError:
        return []
    except (OSError, Unreadable) as error:
        raise ResultsError(f"{path}: {error}") from None
    try:
        if (content["format"], content["format_version"]) != FORMAT:
            raise ValueError
        return [
            Continuation(str(one["model"] or ""), str(one["prompt"]), str(one["text"]))
            for one in content["texts"]
        ]
    except (TypeError, KeyError, ValueError):
        words = f"expected {FORMAT[0]}, version {FORMAT[1]}, with model, prompt and text of each of its texts"
        raise ResultsError(f"{path}: {words}") from None
