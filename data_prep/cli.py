"""The command line: reads the options, makes the data set step by step, prints what came out."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import (
    ag_news,
    bare,
    base,
    examples,
    generate,
    instructions,
    multilingual,
    own_text,
    probes,
    readers,
    slimpajama,
    tokenisers,
)
from .dataset import (
    EXAMPLES_VERSION,
    FORMAT,
    FORMAT_VERSION,
    Writer,
    clear_leftovers,
    dtype_for,
    is_whole,
    manifest_of,
    sources_of,
    taking_the_place_of,
    write_manifest,
)
from .documents import without_duplicates
from .errors import DataError
from .options import parse
from .recipe import RECIPE_VERSION, Recipe
from .splits import SPLITS, Assigned, Plan

RECIPES: dict[str, Callable[[argparse.Namespace], Recipe | bare.BareFiles]] = {
    "multilingual": multilingual.recipe,
    "ag_news": ag_news.recipe,
    "slimpajama": slimpajama.recipe,
    "text": own_text.recipe,
    "instructions": instructions.recipe,
    "bare": bare.recipe,
}
# Options that only say where something lies; the digests of the files stand for them.
_PLACES = ("output", "replace", "source", "base_text", "gpt2_files", "tokeniser", "user", "template")


def budgets(options: argparse.Namespace) -> dict[str, int]:
    """Token budgets by split, of those that were given."""
    found = {split: getattr(options, f"{split}_tokens", None) for split in SPLITS}
    return {split: tokens for split, tokens in found.items() if tokens is not None}


def plan(options: argparse.Namespace) -> Plan:
    """Shares by --fractions; without them three token budgets tell the shares, else the data set's own."""
    tokens = budgets(options)
    if options.fractions is not None:
        fractions = dict(zip(SPLITS, options.fractions))
    elif len(tokens) == len(SPLITS):
        fractions = {split: float(tokens[split]) for split in SPLITS}
    else:
        fractions = dict(zip(SPLITS, options.default_fractions))
    return Plan(fractions, options.base_share, options.base_validation, options.seed)


def digest(options: argparse.Namespace, recipe: Recipe | bare.BareFiles) -> str:
    """Tells one set of inputs and options from another, whatever folders they lie in."""
    tokeniser_files = [Path(file) for file in options.gpt2_files or []]
    if options.tokeniser not in ("train", "gpt2"):
        tokeniser_files = [Path(options.tokeniser)]
    for path in tokeniser_files:
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; --tokeniser is 'train', 'gpt2' (with --gpt2-files) or a"
                " tokenizer.json"
            )
    told = {name: value for name, value in vars(options).items() if name not in _PLACES}
    told["tokeniser"] = options.tokeniser if options.tokeniser in ("train", "gpt2") else "file"
    files = [[path.name, readers.sha256_of(path)] for path in recipe.files + tokeniser_files]
    everything = [RECIPE_VERSION, recipe.identity, told, files]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def tokeniser_for(options: argparse.Namespace, recipe: Recipe, assigned: Assigned) -> tokenisers.Tokeniser:
    """The tokeniser asked for. One that is trained sees training text only: of the base and of every user."""
    if options.tokeniser == "train":
        training = [splits["train"] for splits in (assigned.base or {"train": []}, *assigned.users.values())]
        texts = (document.text for documents in training for document in documents)
        return tokenisers.trained(texts, options.vocabulary)
    end_of_turn = recipe.examples.template.end if recipe.examples is not None else None
    return tokenisers.given(options.tokeniser, options.gpt2_files, options.end_of_text or end_of_turn)


def chosen_users(options: argparse.Namespace, assigned: Assigned) -> Assigned:
    """The users of --users in that order. What a user gets does not depend on who else is chosen."""
    names = getattr(options, "users", None)
    if not names:
        return assigned
    return replace(assigned, users={name: assigned.users[name] for name in names})


def writer_for(
    folder: Path, options: argparse.Namespace, recipe: Recipe, assigned: Assigned
) -> tuple[Writer, dict[str, Any]]:
    """What writes into the folder, and what the manifest says of users' data beside the usual."""
    tokeniser = tokeniser_for(options, recipe, assigned)
    dtype = dtype_for(tokeniser.vocabulary, options.dtype)
    if recipe.examples is None:
        return Writer(folder, tokeniser, dtype, budgets(options)), {}
    categories = assigned.categories or list(assigned.users)
    reading = {
        "format_version": EXAMPLES_VERSION,
        "reading": "examples",
        "categories": categories,
        "context": recipe.examples.context,
        "template": {"from": recipe.examples.template.origin, "jinja": recipe.examples.template.source},
    }
    return examples.ExamplesWriter(folder, tokeniser, dtype, recipe.examples, categories), reading


def make(
    options: argparse.Namespace, recipe: Recipe, made_by: dict[str, Any], replaced: dict[str, Any] | None
) -> dict[str, Any]:
    """Reads, splits, tokenises and writes in the place of `replaced`; gives the manifest."""
    corpus, duplicates = without_duplicates(recipe.read(), options.seed)
    shares = plan(options)
    assigned = chosen_users(options, recipe.split(corpus, shares))
    with taking_the_place_of(Path(options.output).resolve(), replaced) as folder:
        writer, reading = writer_for(folder, options, recipe, assigned)
        total = sum(shares.fractions.values())
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": options.name or recipe.name,
            "seed": options.seed,
            "tokeniser": writer.tokenizer(),
            "dtype": writer.dtype.name,
            "users": writer.users(assigned),
            "base": writer.base(assigned),
            "sources": sources_of(corpus.sources),
            "splits": {
                "rule": assigned.rule,
                "fractions": {split: round(share / total, 6) for split, share in shares.fractions.items()},
                "base_share": shares.base_share,
                "base_validation": shares.base_validation,
                "token_budgets": budgets(options),
                "duplicates_dropped": duplicates,
            },
            "made_by": made_by,
        }
        manifest |= reading
        if recipe.examples is not None:
            manifest["splits"]["dropped"] = recipe.examples.dropped
        if assigned.clients is not None:
            manifest["splits"]["clients"] = assigned.clients
        write_manifest(folder, manifest)
    return manifest


def _counted(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def table(manifest: dict[str, Any]) -> str:
    """User, split, documents and tokens in aligned columns."""
    owners = [(user["name"], user["splits"]) for user in manifest["users"]]
    if manifest["base"]:
        owners.append(("(base)", manifest["base"]["splits"]))
    rows = [("user", "split", "documents", "tokens")]
    for name, splits in owners:
        rows += [
            (name, split, _counted(entry["documents"]), _counted(entry["tokens"]))
            for split, entry in splits.items()
        ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}"
        for row in rows
    )


def run(options: argparse.Namespace) -> None:
    """Makes the data set, unless it is there already."""
    start = time.monotonic()
    output = Path(options.output)
    recipe = RECIPES[options.command](options)
    made_from = digest(options, recipe)
    clear_leftovers(Path(os.path.realpath(output)))  # never fails, unlike resolve
    there = manifest_of(output)
    same = there is not None and there.get("made_by", {}).get("digest") == made_from
    if there is not None and same and is_whole(output, there) and not options.replace:
        print(f"{table(there)}\n{output}: made before from the same text and options, nothing to do")
        return
    if there is not None and not same and not options.replace:
        raise DataError(
            f"--output {output}: holds another data set ({there.get('name')}) or one made with other text or"
            " options; pass --replace to make it anew or choose another folder"
        )
    made_by = {"command": options.command, "recipe_version": RECIPE_VERSION, "digest": made_from}
    if isinstance(recipe, bare.BareFiles):
        manifest = bare.make(options, recipe, made_by, there)
    else:
        manifest = make(options, recipe, made_by, there)
    tokeniser = manifest["tokeniser"]
    print(table(manifest))
    if manifest.get("reading") == "examples":
        print(examples.told(manifest))
    print(
        f"{output}: written in {time.monotonic() - start:.1f} s; tokeniser {tokeniser['kind']}, "
        f"{tokeniser['vocabulary']:,} ids, {manifest['dtype']}"
    )


def main(arguments: list[str]) -> int:
    """Exit code 0 done, 1 failed (disk full, no permission), 2 bad input, 130 interrupted."""
    try:
        options = parse(arguments)
        os.umask(os.umask(0) | stat.S_IWOTH)  # nothing that is written is writable for everyone
        {"probes": probes.run, "generate": generate.run, "base": base.run}.get(options.command, run)(options)
    except DataError as error:
        return _told(error, 2)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _told(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _told("interrupted; nothing was written", 130)
    return 0


def _told(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
