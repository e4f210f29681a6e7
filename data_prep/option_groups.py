"""Options that several sub-commands share."""

from __future__ import annotations

import argparse

from . import option_values as value

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


def add_output(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Where the data set goes; gives the group."""
    group = parser.add_argument_group("output")
    group.add_argument("--output", required=True, metavar="FOLDER", help="the data-set folder to make")
    group.add_argument("--replace", action="store_true", help="make it anew when the folder holds a data set")
    group.add_argument("--name", help="name in the manifest (default: the sub-command)")
    return group


def add_dtype(group: argparse._ArgumentGroup) -> None:
    """Of files that are written."""
    group.add_argument(
        "--dtype",
        choices=("auto", "uint16", "uint32"),
        default="auto",
        help="of the token files; auto is uint16 up to a vocabulary of 65,535, else uint32 (default: auto)",
    )


def add_splits(parser: argparse.ArgumentParser, command: str) -> None:
    """Shares or budgets of the splits, by the sub-command's defaults."""
    group = parser.add_argument_group("splits")
    shares = DEFAULT_FRACTIONS[command]
    told = "1,000,000 : 200,000 : 200,000" if command == "slimpajama" else " ".join(map(str, shares))
    group.add_argument(
        "--seed", type=value.seed, default=0, metavar="N", help="another seed, another split (default: 0)"
    )
    group.add_argument(
        "--fractions",
        type=value.positive,
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
            type=value.count,
            default=default.get(split),
            metavar="N",
            help=f"tokens of every user's {split} split; the last document is cut to fit{note}",
        )
    group.add_argument(
        "--read-bytes",
        type=value.count,
        metavar="N",
        help=(
            "read at most about N bytes of text a user (default: all; from the hub 4,000,000 or as budgets"
            " need)"
        ),
    )


def add_base(parser: argparse.ArgumentParser, command: str) -> None:
    """What becomes the base corpus, by the sub-command's default."""
    group = parser.add_argument_group(
        "base corpus (from which `comigs pretrain` makes a base model; no user holds it)"
    )
    share = DEFAULT_BASE_SHARE[command]
    group.add_argument(
        "--base-share",
        type=value.share,
        default=share,
        metavar="SHARE",
        help=f"share of the users' documents that go to the base instead; 0: none (default: {share})",
    )
    group.add_argument(
        "--base-validation",
        type=value.share,
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


def add_tokeniser(parser: argparse.ArgumentParser) -> None:
    """A tokeniser that is trained or there."""
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
        type=value.count,
        metavar="N",
        help="of a trained one (default: 4096, or as many as the training text gives)",
    )
    add_tokeniser_files(group)


def add_tokeniser_files(group: argparse._ActionsContainer) -> None:
    """What one that is there needs beside it."""
    group.add_argument(
        "--gpt2-files",
        nargs=2,
        metavar=("ENCODER", "BPE"),
        help="encoder.json and vocab.bpe as OpenAI published them",
    )
    group.add_argument(
        "--end-of-text", metavar="TOKEN", help="end-of-text token of a tokenizer.json (default: found)"
    )


def add_users(parser: argparse.ArgumentParser, known: tuple[str, ...]) -> None:
    """A choice among the users that a published data set has."""
    parser.add_argument(
        "--users",
        type=value.names,
        metavar="NAME[,NAME]",
        help=f"only these users (default: {','.join(known)})",
    )
    parser.add_argument(
        "--hub-name", metavar="REPOSITORY", help="another data set on the hub, with the same columns"
    )


def add_hub_source(parser: argparse.ArgumentParser, files: str) -> None:
    """Files of one's own, which `files` describes, or the hub."""
    parser.add_argument(
        "--source",
        nargs="+",
        required=True,
        metavar="{hub,FOLDER,FILE}",
        help=f"{files}, or 'hub': the Hugging Face hub",
    )


def add_licence(parser: argparse.ArgumentParser) -> None:
    """Of text whose licence only the caller knows."""
    parser.add_argument(
        "--licence", default="not stated", metavar="WORDS", help="of the text, for the manifest"
    )
