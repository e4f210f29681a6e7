"""The sub-commands: their options, checks and help."""

from __future__ import annotations

import argparse
from typing import NoReturn

from console.terminal import Parser

from . import (
    ag_news,
    bare,
    base,
    generate,
    instructions,
    multilingual,
    option_groups,
    own_text,
    probes,
    slimpajama,
)
from .errors import DataError
from .names import checked_name, checked_words

KNOWN_USERS = {"multilingual": multilingual.USERS, "ag_news": ag_news.USERS, "slimpajama": slimpajama.USERS}
# What makes data sets of text, by name: who adds its own options, and what it is.
DATA_SETS = {
    "multilingual": (multilingual, "four languages: German, Dutch, French, Italian; English for the base"),
    "ag_news": (ag_news, "news: World, Sports, Business, Sci/Tech; mixed validation and test"),
    "slimpajama": (slimpajama, "StackExchange, GitHub, ArXiv, Book"),
    "text": (own_text, "your own text: any number of users"),
    "instructions": (
        instructions,
        "instructions and responses (Dolly, Super-NaturalInstructions): a user is a category",
    ),
}
BARE = "token ids that are there: train_0.bin, valid_0.bin, test_0.bin, ... without a header"
# What makes none.
OTHERS = {
    "probes": (probes, "texts to run through trained models token by token (comigs route)"),
    "generate": (
        generate,
        "text continued by the models of a finished run, or by a base model (comigs generate)",
    ),
    "base": (base, "a pretrained model as a Hugging Face folder, for --model"),
}

DESCRIPTION = """Makes a data-set folder for comigs: text is split by document into train, validation
and test of every user, tokenised, and written as one raw token file a user and split, with a manifest."""
EPILOG = """examples:
  python -m data_prep multilingual --output data/multilingual
  python -m data_prep ag_news --source ag_news_csv --output data/ag_news
  python -m data_prep text --user Alice=alice.txt --user Bob=b1.jsonl,b2.csv --output data/own
  python -m data_prep instructions --source dolly.jsonl --tokeniser models/smollm2-135m/tokenizer.json \\
      --output data/dolly
  python -m data_prep bare --source FOLDER_WITH_BIN --dtype uint16 --tokeniser models/gpt2/tokenizer.json \\
      --output data/bare
  python -m data_prep base smollm2-135m --output models/smollm2-135m
  python -m data_prep generate runs/own --prompt "Once upon a time" --users Alice,Bob
  python -m data_prep ag_news --source ag_news_csv --tokeniser gpt2 --gpt2-files encoder.json vocab.bpe \\
      --output data/ag_news_gpt2

`python -m data_prep SUB-COMMAND --help` lists the options of each."""


class _Parser(Parser):
    """Says what is wrong in one line, as every other error does."""

    def error(self, message: str) -> NoReturn:
        raise DataError(f"{message} (see `{self.prog} --help`)")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="python -m data_prep", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    names = ",".join((*DATA_SETS, "bare", *OTHERS))
    commands = parser.add_subparsers(dest="command", required=True, metavar=f"{{{names}}}")
    for name, (module, summary) in DATA_SETS.items():
        sub = commands.add_parser(name, help=summary, description=f"{name}: {summary}.")
        module.add_options(sub)
        option_groups.add_dtype(option_groups.add_output(sub))
        option_groups.add_splits(sub, name)
        option_groups.add_base(sub, name)
        option_groups.add_tokeniser(sub)
    sub = commands.add_parser("bare", help=BARE, description=f"bare: {BARE}.")
    bare.add_options(sub)
    option_groups.add_output(sub)
    for name, (module, what) in OTHERS.items():
        summary = f"{what}; no data set"
        module.add_options(commands.add_parser(name, help=summary, description=f"{name}: {summary}."))
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """The checked options."""
    options = _parser().parse_args(arguments)
    if options.command in OTHERS:
        return options
    for name in ("licence", "field", "group", "category", "end_of_text", "hub_name"):
        checked_words(getattr(options, name, None) or "", f"--{name.replace('_', '-')}")
    if options.name is not None:
        checked_name(options.name, "--name")
    known = KNOWN_USERS.get(options.command, ())
    for name in getattr(options, "users", None) or []:
        if known and name not in known:
            raise DataError(f"--users {name}: unknown user; {options.command} has {', '.join(known)}")
    if options.tokeniser == "gpt2" and not options.gpt2_files:
        raise DataError(
            "--tokeniser gpt2: needs --gpt2-files ENCODER BPE (GPT-2's encoder.json and vocab.bpe)"
        )
    if options.gpt2_files and options.tokeniser != "gpt2":
        raise DataError("--gpt2-files: is for --tokeniser gpt2 only")
    if options.command == "bare" and options.tokeniser == "train":
        raise DataError("--tokeniser train: what made the ids is expected, 'gpt2' or a tokenizer.json")
    if options.command != "bare" and options.base_validation == 0.0:
        raise DataError("--base-validation 0: a share above 0 is expected")
    if options.command == "text" and options.mixture and options.group is not None:
        raise DataError("--mixture and --group cannot be used together")
    return options
