"""probes: own texts as tokens, which `comigs route` runs through the models of a finished run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from console.small_files import json_of
from console.whole_file import write_whole

from . import readers, tokenisers
from .errors import DataError
from .names import checked_name

FORMAT = "comigs-probes"
FORMAT_VERSION = 1
# What `comigs route` takes.
MOST_PROBES = 1024
MOST_TOKENS = 65_536


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument(
        "--tokeniser",
        "--tokenizer",
        required=True,
        metavar="FILE",
        help="the tokenizer.json that the run's data set was made with",
    )
    parser.add_argument(
        "--text",
        action="append",
        required=True,
        metavar="NAME=FILE",
        help="a name and a file of plain text (also .xz, .gz, .bz2); repeat",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the JSON file to write")


def _named_texts(values: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for value in values:
        name, _, file = value.partition("=")
        if not name.strip() or not file:
            raise DataError(f"--text {value}: NAME=FILE is expected")
        name = checked_name(name.strip(), "--text")
        if "/" in name or name in (".", ".."):
            raise DataError(f"--text {value}: a name without '/' is expected")
        if name in found:
            raise DataError(f"--text {value}: there are two texts of this name")
        found[name] = Path(file)
    if len(found) > MOST_PROBES:
        raise DataError(f"--text: {len(found):,} texts, at most {MOST_PROBES:,} are expected")
    return found


def text_of(path: Path) -> str:
    """All of a file of plain text, but for the last line's end."""
    return next(readers.text_documents(path, "file"), "")


def probe(tokenizer: Any, name: str, text: str, origin: object) -> dict[str, Any]:
    """A text as tokens; `origin` stands for it in messages."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if not 0 < len(ids) <= MOST_TOKENS:
        raise DataError(f"{origin}: {len(ids):,} tokens, 1 to {MOST_TOKENS:,} are expected")
    decoded = {token: tokenizer.decode([token], skip_special_tokens=False) for token in set(ids)}
    return {"name": name, "ids": ids, "text": [decoded[token] for token in ids]}


def write(path: Path, tokenizer: Any, probes: list[dict[str, Any]]) -> None:
    """The file that comigs reads."""
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "vocabulary": tokenisers.vocabulary_of(tokenizer),
        "probes": probes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, f"{json.dumps(content, ensure_ascii=False)}\n".encode())


def check_output(path: Path, format_name: str) -> None:
    """An earlier file of the format may be made anew; anything else must not be lost."""
    try:
        content = json_of(path)
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get("format") != format_name:
        raise DataError(f"--output {path}: is there already and holds something else; choose another name")


def run(options: argparse.Namespace) -> None:
    """Writes the file and prints how many tokens each text has."""
    output = Path(options.output)
    texts = _named_texts(options.text)
    check_output(output, FORMAT)
    tokenizer = tokenisers.opened(Path(options.tokeniser))
    probes = [probe(tokenizer, name, text_of(path), path) for name, path in texts.items()]
    write(output, tokenizer, probes)
    width = max(map(len, texts))
    for made in probes:
        print(f"{made['name']:<{width}}  {len(made['ids']):>6,} tokens")
    print(f"{output}: written; `comigs route RUN --probes {output}` runs these texts through a run's models")
