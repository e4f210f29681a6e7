"""`comigs generate` against transformers and the plain reference, and `python -m data_prep generate` around it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.helpers.built_program import built_program
from tests.helpers.data_set_reader import data_prep
from tests.helpers.finished import HERE, asked, refused
from tests.helpers.llamas import PlainLlama, llama_folder
from tests.helpers.plain_model import PlainModel, Setting, frozen_weights
from tests.helpers.routed import VOCABULARY, mixed, place, stored_parameters
from tests.helpers.tiny import POSITIONS, USERS, alone, executable, gpt2_folder, run, train

__all__ = ["mixed", "place"]  # fixtures for tests here

ADDED, PROMPT = 50, [3, 1, 4, 15, 9, 26, 5]
END = 0  # of a text, as the tiny data set says where its base does not
FAMILIES = ("gpt2", "llama, llama3", "qwen2", "qwen3")


def base_folder(folder: Path, family: str) -> Path:
    """Without a token that ends a text, which would come too soon."""
    made = gpt2_folder(folder, positions=64) if family == "gpt2" else llama_folder(folder, family)
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    (made / "config.json").write_text(json.dumps(config | {"eos_token_id": None}), encoding="utf-8")
    (made / "generation_config.json").unlink(missing_ok=True)
    return made


def prompts(folder: Path, *texts: Sequence[int], vocabulary: int = 97) -> Path:
    file = folder / "prompts.json"
    entries = [{"name": f"p{i}", "ids": [*ids], "text": ["?"] * len(ids)} for i, ids in enumerate(texts)]
    content = {"format": "comigs-probes", "format_version": 1, "vocabulary": vocabulary, "probes": entries}
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def continued(*arguments: object) -> list[dict[str, Any]]:
    return asked("generate", *arguments)["continuations"]


# The numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_goes_on_as_with_transformers(family, tmp_path):
    base = base_folder(tmp_path / "base", family)
    texts = PROMPT, [7]
    found = continued("--model", base, "--prompts", prompts(tmp_path, *texts), "--tokens", ADDED)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    model.generation_config.eos_token_id = None
    for ids, one in zip(texts, found, strict=True):
        told = torch.tensor([ids])
        expected = model.generate(
            told, attention_mask=torch.ones_like(told), max_new_tokens=ADDED, do_sample=False, pad_token_id=0
        )
        assert one["ids"] == expected[0, len(ids) :].tolist() and len(one["ids"]) == ADDED
        assert (one["model"], one["ended"]) == (None, False)


@pytest.fixture(scope="module", params=["gpt2", "qwen3"])
def trained_run(request, tiny_data, tmp_path_factory) -> tuple[str, Path, Path]:
    """Users with 3, 2 (one of them a token), 1 and 2 experts; large steps, so that a forgotten factor shows."""
    folder = tmp_path_factory.mktemp("trained")
    base = base_folder(folder / "base", request.param)
    options = [
        "--rounds",
        1,
        "--local-steps",
        4,
        "--batch-sequences",
        4,
        "--context-tokens",
        12,
        "--lora-rank",
        4,
    ]
    options += ["--lora-alpha", 8, "--expert-learning-rate", 0.05, "--router-every", 2, "--router-steps", 2]
    options += ["--method", "comigs-1gxs", "--experts", "3,2,1,2", "--top-k", "2,1,1,2"]
    train("--data", tiny_data, "--model", base, "--output", folder / "run", *options)
    return request.param, base, folder / "run"


@torch.no_grad()
def test_users_models_go_on_as_the_plain_reference(trained_run, tmp_path):
    """Which runs every text again from its beginning for each token: it has no cache."""
    family, base, folder = trained_run
    found = continued(folder, "--prompts", prompts(tmp_path, PROMPT), "--tokens", ADDED)
    assert [one["model"] for one in found] == list(USERS)
    assert len({tuple(one["ids"]) for one in found}) > 1  # so models differ
    for user, (experts, top_k) in enumerate([(3, 2), (2, 1), (1, 1), (2, 2)]):
        setting = Setting(experts, 8 / math.sqrt(4), top_k)
        told = (frozen_weights(base), stored_parameters(folder / "results.h5", 1, user), setting)
        model = PlainModel(*told) if family == "gpt2" else PlainLlama(base, *told)
        ids = list(PROMPT)
        while len(ids) < len(PROMPT) + ADDED and ids[-1] != END:
            ids.append(int(model.logits(torch.tensor([ids]))[0][0, -1].argmax()))
        assert found[user]["ids"] == ids[len(PROMPT) :], USERS[user]
        assert found[user]["ended"] == (ids[-1] == END)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (1.0, 0, 1.0),
        (0.7, 0, 1.0),
        (2.5, 5, 1.0),
        (1.0, 0, 0.6),
        (0.8, 7, 0.9),
        (1.0, 1, 0.0),
        (1.0, 97, 0.01),
    ],
)
def test_probabilities_are_those_of_transformers(temperature, top_k, top_p, tmp_path):
    logits = 3 * torch.randn(20, 97, generator=torch.Generator().manual_seed(1))
    save_file({"logits": logits}, tmp_path / "logits.safetensors")
    words = [
        "sampling",
        tmp_path / "logits.safetensors",
        tmp_path / "out.safetensors",
        temperature,
        top_k,
        top_p,
    ]
    done = run([built_program("reference_trace"), *words])
    assert done.code == 0, done.errors
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    expected = warpers(torch.zeros(20, 1, dtype=torch.long), logits.double()).softmax(-1)
    found = load_file(tmp_path / "out.safetensors")["probabilities"]
    assert ((found == 0) == (expected == 0)).all()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-9)


def test_chance_goes_by_the_seed(tiny_base, tmp_path):
    given = ("--model", tiny_base, "--prompts", prompts(tmp_path, [3, 1], [3, 1]), "--tokens", 14)

    @cache
    def drawn(*options: object) -> list[list[int]]:
        return [one["ids"] for one in continued(*given, *options)]

    first = drawn("--temperature", 1.5, "--seed", 1)
    assert first == [one["ids"] for one in continued(*given, "--temperature", 1.5, "--seed", 1)]
    assert first[0] == first[1]  # what is drawn does not depend on what came before
    assert first != drawn("--temperature", 1.5, "--seed", 2)
    for only in (("--sample-top-k", 1), ("--sample-top-p", 0), ("--sample-top-p", 1e-9)):
        assert drawn("--temperature", 1.5, *only) == drawn()
    assert drawn("--temperature", 1e-3) == drawn()


# Where texts end --------------------------------------------------------------------------------------------


def test_a_text_ends_where_the_base_says(tmp_path):
    base = base_folder(tmp_path / "base", "gpt2")
    given = ("--model", base, "--prompts", prompts(tmp_path, PROMPT), "--tokens", 20)
    (whole,) = continued(*given)
    end = whole["ids"][4]
    until = whole["ids"][: whole["ids"].index(end) + 1]
    for name, value in (("config.json", end), ("generation_config.json", [96, end])):
        file = base / name
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.write_text(json.dumps(before | {"eos_token_id": value}), encoding="utf-8")
        (found,) = continued(*given)
        assert (found["ids"], found["ended"]) == (until, True)
    (base / "generation_config.json").write_text('{"eos_token_id": "end"}', encoding="utf-8")
    assert "generation_config.json: 'eos_token_id' is" in refused("generate", *given)


def test_a_run_needs_neither_its_data_set_nor_a_tokeniser(trained_run, tmp_path):
    """But for the end of a text, of which here only the data set speaks."""
    family, base, folder = trained_run
    moved, here = tmp_path / "run", tmp_path / "base"
    shutil.copytree(folder, moved)
    shutil.copytree(base, here)
    (here / "tokenizer.json").unlink()
    with h5py.File(moved / "results.h5", "r+") as file:
        text = file.attrs["configuration"]
        data = next(line for line in text.splitlines() if line.endswith("/data"))
        file.attrs["configuration"] = text.replace(data, f"folder = {tmp_path}")
    given = ("--prompts", prompts(tmp_path, PROMPT), "--tokens", ADDED)
    found, before = continued(moved, *given, "--model", here), continued(folder, *given)
    for one, other in zip(found, before, strict=True):
        assert one["ids"][: len(other["ids"])] == other["ids"]
        assert len(one["ids"]) == ADDED and (one["ended"], one["text"]) == (False, None)


# Texts ------------------------------------------------------------------------------------------------------


def test_texts_as_people_read_them(mixed, place, tmp_path):
    tokenizer = Tokenizer.from_file(str(place / "data" / "tokenizer.json"))
    ids = tokenizer.encode("日本").ids
    file = prompts(tmp_path, ids, vocabulary=VOCABULARY)
    given = (mixed, "--prompts", file, "--tokens", POSITIONS - len(ids), "--users", f"{USERS[2]},{USERS[0]}")
    found = continued(*given)
    assert [one["model"] for one in found] == [USERS[2], USERS[0]]
    for one in found:
        assert one["text"] == tokenizer.decode(one["ids"]).replace("\x00", "\ufffd")
    done = alone("generate", *given, *HERE)
    assert done.code == 0 and f"{USERS[2]}, after 'p0', {POSITIONS - len(ids)} tokens" in done.output
    assert [entry.name for entry in mixed.iterdir()] == ["results.h5"]


def test_text_in_text_out(mixed, place, tmp_path):
    tokenizer = Tokenizer.from_file(str(place / "data" / "tokenizer.json"))
    text, more = "the cat", "日本"
    (tmp_path / "more.txt").write_text(more + "\n", encoding="utf-8")
    given = ("--comigs", executable(), "--device", "cpu", "--threads", 1, "--tokens", 3)
    done = data_prep("generate", mixed, "--prompt", text, "--users", USERS[3], *given)
    assert done.returncode == 0 and not done.stderr, done.stderr
    ids = tokenizer.encode(text).ids
    (one,) = continued(
        mixed, "--prompts", prompts(tmp_path, ids, vocabulary=VOCABULARY), "--users", USERS[3], "--tokens", 3
    )
    expected = tokenizer.decode(ids + one["ids"])
    assert expected.startswith(text)
    if expected.isprintable():
        assert done.stdout == f"{USERS[3]}:\n{expected}\n\n"
    done = data_prep("generate", "--model", place / "base", "--prompt-file", tmp_path / "more.txt", *given)
    assert done.returncode == 0 and done.stdout.startswith(f"base model:\n{more}"), done.stderr


def test_texts_are_written_down_for_the_report(mixed, place):
    given = ("--comigs", executable(), "--device", "cpu", "--threads", 1, "--tokens", 4)
    words = ("generate", mixed, "--prompt", "the cat", "--prompt", "日本", "--with-base", "--users", USERS[1])
    output = mixed / "texts.json"
    done = data_prep(*words, *given, "--output", output)
    assert done.returncode == 0, done.stderr
    content = json.loads(output.read_text(encoding="utf-8"))
    assert (content["format"], content["format_version"]) == ("comigs-texts", 1)
    named = [(one["model"], one["prompt"]) for one in content["texts"]]
    assert named == [(model, text) for model in (None, USERS[1]) for text in ("the cat", "日本")]
    alone_ = data_prep("generate", "--model", place / "base", "--prompt", "the cat", *given)
    assert done.stdout.startswith(alone_.stdout)  # the base of a run is that base
    content["format"] = "another"
    output.write_text(json.dumps(content), encoding="utf-8")
    done = data_prep(*words, *given, "--output", output)
    assert done.returncode == 2 and "is there already and holds something else" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "--prompt", "a", "--users", "Nobody"], "--users: no user 'Nobody' in"),
        (["{run}", "--prompt", "a", "--users", "Dutch,Dutch"], "--users: 'Dutch' is named twice"),
        (["{run}", "--prompt", ""], "--prompt: 0 tokens, 1 to 65,536 are expected"),
        (["{run}", "--prompt-file", "absent.txt"], "absent.txt: no such file"),
        (["--prompt", "a"], "a finished run or --model FOLDER is expected"),
        (["{base}", "--prompt", "a"], "a base model, a finished run is expected"),
        (["absent", "--prompt", "a"], "absent: no such folder or file"),
        (["--model", "absent", "--prompt", "a"], "tokenizer.json: no such file"),
        (["{run}"], "one of the arguments --prompt --prompt-file is required"),
        (["{run}", "--prompt", "a", "--tokens", "many"], "--tokens: found 'many', expected an integer"),
    ],
)
def test_text_that_cannot_be_continued(mixed, place, words, message):
    arguments = [word.format(run=mixed, base=place / "base") for word in words]
    done = data_prep("generate", *arguments, "--comigs", executable())
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and not done.stdout


# Bad input --------------------------------------------------------------------------------------------------


def test_what_cannot_be_continued(mixed, place, tmp_path):
    other = gpt2_folder(tmp_path / "other", vocabulary=VOCABULARY, seed=1)
    file = prompts(tmp_path, [1, 2, 3], vocabulary=VOCABULARY)
    short = ("--prompts", file, "--tokens", 4)
    cases = {
        "prompts: not given; --prompts is required": (mixed,),
        "'p0' has 3 tokens, to which --tokens 14 are added, but the base model": (
            mixed,
            "--prompts",
            file,
            "--tokens",
            14,
        ),
        "--users: no user 'Nobody' in": (mixed, *short, "--users", "Nobody"),
        "--users: 'German' is named twice": (mixed, *short, "--users", "German,German"),
        "other: not the base model of": (mixed, *short, "--model", other),
        "found no run and no --model": short,
        "--precision: found beside a run": (mixed, *short, "--precision", "bf16"),
        "--with-base: found without a run": ("--model", place / "base", *short, "--with-base"),
        "--seed: found without --temperature": (mixed, *short, "--seed", 3),
        "--sample-top-k: found without --temperature": (mixed, *short, "--sample-top-k", 3),
        "--sample-top-p: found '1.5', expected a number from 0 to 1": (mixed, *short, "--sample-top-p", 1.5),
        "did you mean '--tokens'?": (mixed, "--prompts", file, "--token", 3),
    }
    for message, arguments in cases.items():
        assert message in refused("generate", *arguments), message
    strange = prompts(tmp_path, [1, 2], vocabulary=VOCABULARY + 1)
    assert "a tokeniser of 301 entries" in refused("generate", mixed, "--prompts", strange)
    strange.write_text("{", encoding="utf-8")
    assert "not valid JSON" in refused("generate", "--model", place / "base", "--prompts", strange)
    shutil.rmtree(mixed)
    assert "no such file" in refused("generate", mixed, "--prompts", strange)
