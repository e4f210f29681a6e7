"""instructions: records of an instruction, perhaps its context, and a response; a user is a category, or a client that
holds all of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from . import hub, option_groups, option_values, readers, sample_tasks, templates, tokenisers
from .clients import Deal, dealt
from .documents import Corpus, Document, Example, Source
from .errors import DataError
from .names import checked_name, shown
from .recipe import Examples, Recipe, file_source, files_of, hub_source, with_base_text
from .splits import by_category
from .templates import Template

# What a record's fields are called: by Dolly, by Super-NaturalInstructions and others.
INSTRUCTION = ("instruction", "definition")
CONTEXT = ("context", "input")
RESPONSE = ("response", "output")
HUB_REPOSITORY, HUB_LICENCE = "databricks/databricks-dolly-15k", "CC BY-SA 3.0"
HUB_COLUMNS = {"category": str, "instruction": str, "context": str, "response": str}
# Without --clients nobody is dealt anything.
DEALING = {"samples": 5000, "heavy": 15, "validation": "own"}


def _field(record: dict[str, Any], names: tuple[str, ...], path: Path, line: int) -> str | None:
    """The first field that is there, without blanks around it."""
    for name in names:
        if record.get(name) is None:
            continue
        text = record[name]
        if not isinstance(text, str):
            raise DataError(f"{path}:{line}: '{name}' is no text")
        readers.check_unicode(text, path, line)
        return text.strip()
    return None


def _key(instruction: str, context: str) -> str:
    """Examples about the same passage share it: the longest line of the context, where there is one. (An
    instruction may be one task's, the same in all its examples.)"""
    return max((context or instruction).split("\n"), key=len).strip()


class _Reader:
    """Makes examples of records; counts those that are none."""

    def __init__(self, template: Template, special: tuple[str, ...]) -> None:
        self.template = template
        # A template's special tokens are meant; those in a record would be taken for the template's.
        self.special = special if template.source is not None else ()
        self.dropped = {"without_response": 0, "special_tokens": 0}

    def example(self, record: dict[str, Any], path: Path, line: int, category: str) -> Example | None:
        instruction = _field(record, INSTRUCTION, path, line) or ""
        context = _field(record, CONTEXT, path, line) or ""
        response = _field(record, RESPONSE, path, line)
        if not instruction and not context:
            raise DataError(f"{path}:{line}: an instruction is expected ('{INSTRUCTION[0]}')")
        if response is None:
            raise DataError(f"{path}:{line}: a response is expected ('{RESPONSE[0]}' or '{RESPONSE[1]}')")
        if not response:
            self.dropped["without_response"] += 1
            return None
        if any(token in instruction or token in context for token in self.special):
            self.dropped["special_tokens"] += 1
            return None
        rendered = self.template.render(instruction, context)
        if not rendered:
            raise DataError(f"{self.template.origin}: the template gives no text for {path}:{line}")
        return Example(rendered + response, _key(instruction, context), category, rendered, response)

    def examples(self, path: Path, options: argparse.Namespace) -> Iterator[Example | None]:
        for record, line in _records(path, options):
            category = checked_name(record[options.category], f"{path}:{line}: category")
            yield self.example(record, path, line, category)


def _is(place: str, options: argparse.Namespace) -> bool:
    return options.source == [place]


def _records(path: Path, options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], int]]:
    """Each with the number of its line, or row."""
    if _is("sample", options):
        yield from sample_tasks.records(path)
    elif _is("hub", options):
        rows = hub.rows(HUB_REPOSITORY, None, "train", "databricks-dolly-15k.jsonl", HUB_COLUMNS)
        yield from ((row, number) for number, row in enumerate(rows, start=1))
    else:
        yield from readers.jsonl(path, options.category)


def _source(path: Path, options: argparse.Namespace, found: list[Example | None]) -> Source:
    if _is("hub", options):
        examples: list[Document] = [example for example in found if example is not None]
        return hub_source("train", HUB_REPOSITORY, HUB_LICENCE, examples)
    licence = sample_tasks.LICENCE if _is("sample", options) else options.licence
    return file_source(path, f"file {shown(path)}", licence, len(found))


def _read(files: list[Path], options: argparse.Namespace, reader: _Reader) -> Corpus:
    by_name: dict[str, list[Example]] = {}
    corpus = Corpus({})
    for path in files or [Path(HUB_REPOSITORY)]:
        found = list(reader.examples(path, options))
        corpus.sources.append(_source(path, options, found))
        for example in found:
            if example is not None:
                by_name.setdefault(example.category, []).append(example)
    if not by_name:
        raise DataError(f"--source {options.source[0]}: no example with a response in it")
    unknown = [name for name in options.users or [] if name not in by_name]
    if unknown:
        raise DataError(
            f"--users {unknown[0]}: no such category; the source has {', '.join(sorted(by_name))}"
        )
    corpus.users = {name: list(by_name[name]) for name in sorted(by_name)}
    return corpus


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument(
        "--source",
        nargs="+",
        required=True,
        metavar="{hub,sample,FOLDER,FILE}",
        help=(
            "JSONL files, a folder of them, 'hub': Dolly from the Hugging Face hub, or 'sample': small tasks made of the"
            " shipped sample"
        ),
    )
    parser.add_argument(
        "--category",
        default="category",
        metavar="FIELD",
        help="field that says whose an example is: a user is a category (default: category)",
    )
    parser.add_argument(
        "--users",
        type=option_values.names,
        metavar="NAME[,NAME]",
        help="only these categories (default: all)",
    )
    _add_dealing(parser)
    parser.add_argument(
        "--context",
        type=option_values.count,
        default=256,
        metavar="TOKENS",
        help=(
            "of an example at most, instruction, response and end of text together; of a longer one the"
            " response keeps half or what the instruction leaves, then the instruction loses its first tokens"
            " (default: 256)"
        ),
    )
    parser.add_argument(
        "--template",
        metavar="{plain,chat,FILE}",
        help=(
            "how an instruction is put: plain (instruction, blank line, context, end of line), the chat template"
            " beside the tokeniser's file, or a file in Jinja, which is given instruction and context, or"
            " messages as chat templates are (default: chat where there is one, else plain)"
        ),
    )
    option_groups.add_licence(parser)


def _add_dealing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("clients, instead of a user a category")
    add = group.add_argument
    add(
        "--clients",
        type=option_values.count,
        metavar="N",
        help=(
            "users are client_0 to client_(N-1): samples of every category are dealt to them in N partitions, one of"
            " which is heavy, each client getting one; all are tested on the same 10 %% of every category"
        ),
    )
    add(
        "--samples",
        type=option_values.count,
        metavar="TOTAL",
        help=f"to deal, of all categories in proportion to their sizes (default: {DEALING['samples']:,}, or all)",
    )
    add(
        "--heavy",
        type=option_values.at_least_one,
        metavar="TIMES",
        help=f"how many times any other partition the heavy one is (default: {DEALING['heavy']})",
    )
    add(
        "--validation",
        choices=("own", "common"),
        help=(
            "10 %% of each client's own part of every category, or the same 10 %% of every category for all, taken"
            f" before samples are (default: {DEALING['validation']})"
        ),
    )


def _deal(options: argparse.Namespace) -> Deal | None:
    """What is to be dealt, if clients are asked for; the defaults become the options' values."""
    if options.clients is None:
        for name in DEALING:
            if getattr(options, name) is not None:
                raise DataError(f"--{name}: is for --clients only")
        return None
    if options.users is not None:
        raise DataError("--clients and --users cannot be used together")
    for name, value in DEALING.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return Deal(options.clients, options.samples, options.heavy, options.validation)


def _files(options: argparse.Namespace) -> list[Path]:
    """None where the hub is asked."""
    if _is("hub", options):
        return []
    if _is("sample", options):
        return sample_tasks.FILES
    files = files_of(options.source, (".jsonl", ".ndjson"), "--source")
    for path in files:
        if readers.kind_of(path) not in (".jsonl", ".ndjson"):
            raise DataError(f"--source {path}: a .jsonl file (also .xz, .gz, .bz2, .zst) is expected")
    return files


def recipe(options: argparse.Namespace) -> Recipe:
    """From .jsonl files; examples of a category are one user's, or are dealt to clients."""
    deal = _deal(options)
    files = _files(options)
    is_file = options.tokeniser not in ("train", "gpt2")
    tokeniser = Path(options.tokeniser) if is_file else None
    template = templates.chosen(options.template, tokeniser)
    special = (tokenisers.END_OF_TEXT,) if tokeniser is None else tokenisers.special_tokens(tokeniser)
    reader = _Reader(template, special)
    identity = {"template": template.source, "tokens": template.tokens}
    return with_base_text(
        options,
        Recipe(
            "instructions",
            files,
            identity,
            lambda: _read(files, options, reader),
            by_category if deal is None else partial(dealt, deal=deal),
            Examples(options.context, template, reader.dropped),
        ),
    )
