"""generate: text in, text out; `comigs generate` continues it by a finished run's models or a base."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from console import program
from console.mistakes import JobError
from console.whole_file import write_whole

from . import probes, tokenisers
from .errors import DataError

FORMAT, FORMAT_VERSION = "comigs-texts", 1  # what `analysis report` shows where a run has texts.json

# Options that are comigs' own.
PASSED_ON = (
    "users",
    "tokens",
    "temperature",
    "sample-top-k",
    "sample-top-p",
    "seed",
    "precision",
    "device",
    "threads",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument("place", nargs="?", metavar="RUN", help="a finished run's folder or its results.h5")
    parser.add_argument("--model", metavar="FOLDER", help="a base model alone, or where that of the run is")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--prompt", action="append", metavar="TEXT", help="text to continue; repeat")
    text.add_argument("--prompt-file", action="append", metavar="FILE", help="a file of such text; repeat")
    parser.add_argument(
        "--with-base", action="store_true", help="the base model too, before the users of the run"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write them down, too; RUN/texts.json: `analysis report` shows them"
    )
    parser.add_argument("--comigs", metavar="PROGRAM", help="the program (default: built here, or on PATH)")
    group = parser.add_argument_group("passed on", "as `comigs generate --help` explains them")
    for name in PASSED_ON:
        group.add_argument(f"--{name}", metavar="VALUE")


def run(options: argparse.Namespace) -> None:
    """Prints what each model makes of each prompt."""
    comigs = options.comigs or program.default()
    if options.output is not None:
        probes.check_output(Path(options.output), FORMAT)
    try:
        program.check(comigs)
        tokenizer = tokenisers.opened(_tokeniser(comigs, options))
        prompts = _prompts(tokenizer, options)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "prompts.json"
            probes.write(file, tokenizer, prompts)
            found = _asked(comigs, "generate", *_words(options), "--prompts", str(file))
    except JobError as error:
        raise DataError(str(error)) from None
    texts = _texts(tokenizer, prompts, found["continuations"])
    for one in texts:
        print(f"{one['model'] or 'base model'}:\n{_shown(one['prompt'] + one['text'])}\n")
    if options.output is not None:
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, "texts": texts}
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(options.output), f"{json.dumps(content, ensure_ascii=False)}\n".encode())


def _texts(
    tokenizer: Any, prompts: list[dict[str, Any]], continuations: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What was added to each prompt, as it reads after it: what a token spells may depend on those before."""
    ids = {prompt["name"]: prompt["ids"] for prompt in prompts}
    texts = []
    for one in continuations:
        before = tokenizer.decode(ids[one["prompt"]])
        whole = tokenizer.decode(ids[one["prompt"]] + one["ids"])
        shared = len(os.path.commonprefix([before, whole]))
        texts.append({"model": one["model"], "prompt": whole[:shared], "text": whole[shared:]})
    return texts


def _asked(comigs: str, *words: str) -> dict[str, Any]:
    """What comigs says of it. Where it fails, so does this, with its message and its code."""
    answer = program.ask(comigs, *words, "--json")
    if answer.code == 0 and isinstance(answer.content, dict):
        print(answer.errors, end="\n" if answer.errors else "", file=sys.stderr)
        return answer.content
    print(f"error: {answer.errors or f'comigs {words[0]}: exit code {answer.code}'}", file=sys.stderr)
    sys.exit(answer.code if answer.code > 0 else 1)


def _tokeniser(comigs: str, options: argparse.Namespace) -> Path:
    """The base model's own, else that of the run's data set."""
    run: dict[str, Any] = {}
    if options.place is not None:
        run = _asked(comigs, "inspect", options.place)
        if run["kind"] != "run":
            raise DataError(f"{options.place}: a {run['kind']}, a finished run is expected (--model: a base)")
    elif options.model is None:
        raise DataError("a finished run or --model FOLDER is expected")
    own = Path(options.model or run["base"]) / "tokenizer.json"
    if own.exists():
        return own
    if run and Path(run["data"]).is_dir():
        data = _asked(comigs, "inspect", run["data"])
        if data["sha256"] == run["data_sha256"]:
            return Path(data["tokeniser"])
    raise DataError(f"{own}: no such file; the model's own tokeniser is expected there")


def _prompts(tokenizer: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    texts = [(text, "--prompt") for text in options.prompt or []]
    texts += [(probes.text_of(Path(name)), name) for name in options.prompt_file or []]
    if len(texts) > probes.MOST_PROBES:
        raise DataError(f"{len(texts):,} prompts, at most {probes.MOST_PROBES:,} are expected")
    return [
        probes.probe(tokenizer, f"prompt {number}", text, origin)
        for number, (text, origin) in enumerate(texts, start=1)
    ]


def _words(options: argparse.Namespace) -> list[str]:
    words = [options.place] if options.place is not None else []
    if options.model is not None:
        words += ["--model", options.model]
    for name in PASSED_ON:
        value = getattr(options, name.replace("-", "_"))
        words += [f"--{name}", value] if value is not None else []
    words += ["--with-base"] if options.with_base else []
    return words


def _shown(text: str) -> str:
    """What a model writes must not drive the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)
