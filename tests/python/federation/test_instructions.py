"""Runs on instruction data as a person starts them: prepared, planned, stopped, gone on with, refused."""

from __future__ import annotations

import hashlib
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers.broken_runs import Running, arguments, differing, finish, rounds_in
from tests.helpers.data_set_reader import made, write_jsonl
from tests.helpers.tiny import (
    RUN,
    alone,
    comigs,
    cut_into_examples,
    data_set,
    gpt2_folder,
    train,
)

CONTEXT = 12
USERS = ("asked", "told")


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    return cut_into_examples(data_set(tmp_path_factory.mktemp("examples"), USERS), CONTEXT + 1)


def index_of(data: Path, user: int, split: str) -> np.ndarray:
    return np.fromfile(data / f"user{user}/{split}.examples.bin", dtype="<i8").reshape(-1, 4)


def test_from_records_to_results(tmp_path):
    """Two categories, prepared by data_prep, trained on by two ranks."""
    draw, words = random.Random(0), "one two three four five six seven eight".split()
    records = [
        {
            "category": category,
            "instruction": f"{' '.join(draw.choices(words, k=4))} {i}",
            "response": f"{words[i % 8]} {i}",
        }
        for category in USERS
        for i in range(60)
    ]
    source = write_jsonl(tmp_path / "records.jsonl", records)
    made("instructions", "--source", source, "--context", 16, "--output", tmp_path / "data")
    vocabulary = json.loads((tmp_path / "data/manifest.json").read_text())["tokeniser"]["vocabulary"]
    base = gpt2_folder(tmp_path / "base", vocabulary=vocabulary)
    (base / "tokenizer.json").write_bytes((tmp_path / "data/tokenizer.json").read_bytes())
    options = (
        "--rounds",
        3,
        "--local-steps",
        10,
        "--batch-sequences",
        8,
        "--context-tokens",
        16,
        "--seed",
        1,
    )
    train("--data", tmp_path / "data", "--model", base, "--output", tmp_path / "run", *options, ranks=2)
    with h5py.File(tmp_path / "run/results.h5") as file:
        assert [name.decode() for name in file["perplexity/user"][()]] == list(USERS)
        found = file["perplexity/test"][()]
    assert (found[-1] < 0.9 * found[0]).all()


@pytest.mark.parametrize("method", ["comigs-1g1s", "pcl", "hetlora", "centralized"])
def test_a_run_that_is_stopped_ends_the_same(method, tiny_base, examples, tmp_path):
    given = ("--data", examples, "--model", tiny_base, "--method", method, "--rounds", 5, "--seed", 3)
    steps = ("--local-steps", 30, "--router-every", 7, "--router-steps", 2, "--batch-sequences", 4)
    given = (*given, *steps, "--micro-batch-sequences", 3, "--context-tokens", CONTEXT, "--lora-rank", 2)
    finish(arguments(*given, "--output", tmp_path / "whole"), ranks=2)
    output = tmp_path / "run"
    with Running(*arguments(*given, "--output", output), ranks=2) as run:
        run.wait_for_round(1)
        assert run.signal(1, signal.SIGUSR1), run.output()
        done = run.end()
    assert done.code == 3, done.output + done.errors
    assert 0 < rounds_in(output / "results.h5") < 5
    finish(arguments(*given, "--output", output, "--resume", "auto"), ranks=2)
    assert differing(tmp_path / "whole" / "results.h5", output / "results.h5") == []


def test_a_plan_counts_examples(tiny_base, examples, tmp_path):
    where = ("--data", examples, "--model", tiny_base, "--output", tmp_path / "run", "--method", "fedavg")
    options = [word for name, value in RUN.items() for word in (name, value)]
    done = alone("plan", *where, *options, "--json")
    assert done.code == 0, done.errors
    planned = json.loads(done.output)["users"]
    train(*where, *options, ranks=2)
    with h5py.File(tmp_path / "run/results.h5") as file:
        sent = file["communication/bytes"][()][1:]
        tokens = {split: file[f"users/{split}_tokens"][()] for split in ("train", "validation", "test")}
        memory = file["memory/peak"][()].max(axis=0)
    for number, user in enumerate(planned):
        assert (sent[:, number] == user["bytes_round"]).all()
        assert user["memory_bytes"]["total"] == pytest.approx(memory[number], rel=0.25)
        for split, counted in tokens.items():
            index = index_of(examples, number, split)
            assert counted[number] == index[:, 1:3].sum()


@pytest.fixture
def one(tmp_path) -> Path:
    """Examples of one user, to be damaged."""
    return cut_into_examples(data_set(tmp_path / "data", USERS[:1]), CONTEXT + 1)


def refused(data: Path, base: Path, **options: object) -> str:
    given = {"data": data, "model": base, "output": data / "out", "context-tokens": CONTEXT} | options
    done = alone("train", *(word for name, value in given.items() for word in (f"--{name}", value)))
    assert done.code == 2, done.output + done.errors
    assert done.errors.startswith("comigs: ") and done.errors.count("\n") == 1, done.errors
    assert not (data / "out" / "results.h5").exists()
    return done.errors


def rewrite(data: Path, change: Callable[[np.ndarray], None]) -> None:
    """The test split with another index, and a manifest that knows it."""
    file = data / "user0/test.examples.bin"
    index = index_of(data, 0, "test")
    change(index)
    file.write_bytes(index.tobytes())
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    entry = manifest["users"][0]["splits"]["test"]["examples"]
    entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (data / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")


def beyond(index: np.ndarray) -> None:
    index[-1, 2] += 40


def of_no_tokens(index: np.ndarray) -> None:
    index[2, 1], index[2, 2] = 0, index[2, 1] + index[2, 2]


def negative(index: np.ndarray) -> None:
    index[2, 1], index[2, 2] = -3, index[2, 1] + index[2, 2] + 3


def of_no_category(index: np.ndarray) -> None:
    index[3, 3] = 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (beyond, "tokens of instruction and"),
        (of_no_tokens, "example 2 begins at"),
        (negative, "-3 tokens of instruction"),
        (of_no_category, "example 3 is of category 2, expected 0 to 0"),
    ],
)
def test_an_index_that_lies(change, expected, tiny_base, one):
    rewrite(one, change)
    message = refused(one, tiny_base)
    assert f"{one}/user0/test.examples.bin" in message and expected in message


def test_evaluate_cuts_no_example(tiny_base, one):
    words = ["evaluate", "--model", tiny_base, "--data", one, "--device", "cpu", "--threads", 1]
    done = comigs(*words, "--context-tokens", CONTEXT - 1)
    assert done.code == 2 and "--context-tokens 11, but" in done.errors and "has 13 tokens" in done.errors
    whole, longer = (
        json.loads(comigs(*words, "--context-tokens", context, "--json").output)["evaluations"]
        for context in (CONTEXT, CONTEXT + 2)
    )
    assert [one["tokens"] for one in whole] == [one["tokens"] for one in longer]
    for ours, theirs in zip(whole, longer, strict=True):  # padding counts nowhere
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)


def test_what_does_not_fit_is_named(tiny_base, one):
    message = refused(one, tiny_base, **{"context-tokens": CONTEXT - 1})
    assert "context_tokens = 11" in message and "has 13 tokens" in message and "--context" in message
    assert "at least 13" in refused(one, tiny_base, **{"train-tokens": 9})
    index = one / "user0/train.examples.bin"
    whole = index.read_bytes()
    index.write_bytes(whole[:-8])
    assert str(index) in refused(one, tiny_base)
    index.write_bytes(whole[:-1] + b"\1")
    assert str(index) in refused(one, tiny_base)
    index.write_bytes(whole)
    manifest = one / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    for entries, expected in (
        ({"format_version": 3}, "newer comigs"),
        ({"reading": "pictures"}, "newer comigs"),
        ({"categories": []}, "'categories'"),
        ({"categories": ["a", 3]}, "'categories[1]'"),
    ):
        manifest.write_text(json.dumps(content | entries, ensure_ascii=False), encoding="utf-8")
        message = refused(one, tiny_base)
        assert str(manifest) in message and expected in message
    del content["users"][0]["splits"]["train"]["examples"]
    manifest.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    assert "'users[0].splits.train.examples'" in refused(one, tiny_base)
