"""`comigs evaluate` against transformers, the plain reference and what runs recorded, and what it refuses."""

from __future__ import annotations

import shutil

import h5py
import pytest
from transformers import AutoModelForCausalLM

from tests.helpers.finished import HERE, asked, refused, windowed_perplexity
from tests.helpers.llamas import llama_folder
from tests.helpers.routed import CONTEXTS, ROUNDS, VOCABULARY, mixed, place, stored_model, trained
from tests.helpers.tiny import USERS, alone, data_set, gpt2_folder, know_tokeniser, tokens_of

__all__ = ["mixed", "place"]  # fixtures for tests here


def matrix(found: dict) -> dict[tuple[str | None, str], float]:
    return {(one["model"], one["texts"]): one["perplexity"] for one in found["evaluations"]}


@pytest.mark.parametrize("member", ["gpt2", "llama, llama3", "qwen2", "qwen3"])
def test_a_base_is_as_with_transformers(member, tiny_data, tmp_path):
    base = tmp_path / "base"
    gpt2_folder(base) if member == "gpt2" else llama_folder(base, member)
    found = asked("evaluate", "--model", base, "--data", tiny_data, "--context-tokens", 12)
    assert (found["split"], found["data_set"], found["method"]) == ("test", "tiny", None)
    model = AutoModelForCausalLM.from_pretrained(base).double().eval()
    for user, one in enumerate(found["evaluations"]):
        ids = tokens_of(tiny_data, user, "test").tolist()
        expected = windowed_perplexity(lambda tokens: model(tokens).logits, ids, 12)
        assert one["perplexity"] == pytest.approx(expected, rel=1e-4)
        assert (one["model"], one["texts"], one["context_tokens"]) == (None, USERS[user], 12)
        assert one["tokens"] == len(ids) - 1
    assert len(found["evaluations"]) == len(USERS)


def test_a_base_by_split_tokens_and_batch(tiny_base, tiny_data):
    given = ("--model", tiny_base, "--data", tiny_data)
    model = AutoModelForCausalLM.from_pretrained(tiny_base).double().eval()
    found = asked("evaluate", *given, "--split", "train", "--tokens", 50, "--micro-batch-sequences", 2)
    for user, one in enumerate(found["evaluations"]):
        ids = tokens_of(tiny_data, user, "train")[:50].tolist()
        assert (one["tokens"], one["context_tokens"]) == (49, 16)  # all positions of this small model
        expected = windowed_perplexity(lambda tokens: model(tokens).logits, ids, 16)
        assert one["perplexity"] == pytest.approx(expected, rel=1e-4)
    whole = asked("evaluate", *given, "--split", "train")
    assert [one["tokens"] for one in whole["evaluations"]] == [399, 406, 413, 420]


def test_own_texts_give_what_the_run_recorded(place):
    options = ("--context-tokens", 12, "--train-evaluation-tokens", 100, "--train-share", "1,0.5,1,0.2")
    run = trained(place, "recorded", "comigs-1g1s", *options)
    with h5py.File(run / "results.h5") as file:
        recorded = {split: file[f"perplexity/{split}"][-1] for split in ("train", "validation", "test")}
    for split, expected in recorded.items():
        found = matrix(asked("evaluate", run, "--split", split))
        assert len(found) == 16
        assert [found[name, name] for name in USERS] == expected.tolist(), split


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("centralized", ()),
        ("hetlora", ("--lora-rank", "4,2,3,4")),
        ("flexlora", ("--precision", "bf16")),
        ("mop-equal", ("--prompt-tokens", 2)),
    ],
)
def test_every_kind_of_run_gives_what_it_recorded(run_of, method, options):
    results = run_of(method, *options)
    with h5py.File(results) as file:
        recorded = file["perplexity/test"][-1].tolist()
    found = matrix(asked("evaluate", results))
    assert [found[name, name] for name in USERS] == recorded


def test_users_models_are_as_the_plain_reference(mixed, place):
    found = asked("evaluate", mixed, "--users", f"{USERS[1]},{USERS[0]}")
    assert found["method"] == "comigs-1gxs"
    assert [one["model"] for one in found["evaluations"]] == [USERS[1]] * 4 + [USERS[0]] * 4
    for user in (0, 1):
        model = stored_model(mixed / "results.h5", place / "base", user)
        for owner in range(4):
            ids = tokens_of(place / "data", owner, "test").tolist()
            expected = windowed_perplexity(lambda tokens: model.logits(tokens)[0], ids, CONTEXTS[user])
            assert matrix(found)[USERS[user], USERS[owner]] == pytest.approx(expected, rel=1e-4)


def test_a_run_of_no_experts_is_its_base(place):
    run = trained(place, "none", "pretrained", "--context-tokens", 12)
    given = ("--model", place / "base", "--data", place / "data", "--context-tokens", 12)
    base = matrix(asked("evaluate", *given))
    assert matrix(asked("evaluate", run)) == {
        (model, texts): perplexity for model in USERS for (_, texts), perplexity in base.items()
    }


def test_other_texts_than_the_runs(mixed, place, tmp_path):
    other = data_set(tmp_path / "other", ("Alice", "Bob"), vocabulary=VOCABULARY)
    shutil.copy(place / "data" / "tokenizer.json", other)
    know_tokeniser(other)
    found = asked("evaluate", mixed, "--data", other, "--users", USERS[3], "--split", "train")
    assert [(one["model"], one["texts"]) for one in found["evaluations"]] == [
        (USERS[3], "Alice"),
        (USERS[3], "Bob"),
    ]
    assert [one["tokens"] for one in found["evaluations"]] == [399, 406]


def test_the_table_has_the_same_numbers(mixed):
    content = (mixed / "results.h5").read_bytes()
    found = matrix(asked("evaluate", mixed))
    done = alone("evaluate", mixed, *HERE)
    assert done.code == 0, done.errors
    head, rule, *rows = done.output.splitlines()[2:]
    assert head.split() == ["texts", "of", "tokens", *USERS] and set(rule.strip()) == {"─"}
    for (name, _, *cells), owner in zip([row.split() for row in rows], USERS, strict=True):
        assert name == owner
        assert cells == [
            f"{found[model, owner]:.{2 if found[model, owner] < 1000 else 0}f}" for model in USERS
        ]
    assert (mixed / "results.h5").read_bytes() == content
    assert [entry.name for entry in mixed.iterdir()] == ["results.h5"]


def test_a_folder_that_cannot_be_written_and_one_that_another_reads(mixed):
    with h5py.File(mixed / "results.h5"):
        mixed.chmod(0o555)
        try:
            assert len(asked("evaluate", mixed)["evaluations"]) == 16
        finally:
            mixed.chmod(0o755)


# Bad input --------------------------------------------------------------------------------------------------


def test_what_cannot_be_evaluated(mixed, place, tiny_data, tmp_path):
    run, base, data = mixed, place / "base", place / "data"
    other = gpt2_folder(tmp_path / "other", vocabulary=VOCABULARY, seed=1)
    strange = gpt2_folder(tmp_path / "strange", vocabulary=500)
    (strange / "tokenizer.json").unlink()
    short = data_set(tmp_path / "short", lengths={"test": 1}, vocabulary=VOCABULARY)
    shutil.copy(data / "tokenizer.json", short)
    know_tokeniser(short)
    of_base = ("--model", base, "--data", data)
    cases = {
        "--users: no user 'Nobody' in": (run, "--users", "Nobody"),
        f"--users: no user '' in {run}": (run, "--users", "German,"),
        "--users: 'German' is named twice, expected each user once": (run, "--users", "German,Dutch,German"),
        "other: not the base model of": (run, "--model", other),
        "is another tokeniser than data set": (run, "--data", tiny_data),
        "a vocabulary of 500": ("--model", strange, "--data", data),
        "user0/test.bin: 1 tokens, expected at least 2": ("--model", base, "--data", short),
        "--context-tokens 17: the base model": (*of_base, "--context-tokens", 17),
        "absent: no such data-set folder": ("--model", base, "--data", tmp_path / "absent"),
        "found no run and no --model": ("--data", data),
        "--data: not given": ("--model", base),
        "--users: found without a run": (*of_base, "--users", "German"),
        "--precision: found beside a run": (run, "--precision", "bf16"),
        "--split: found 'tests', expected train, validation or test": (run, "--split", "tests"),
        "--tokens: found '1', expected 0 or at least 2": (run, "--tokens", 1),
        "did you mean '--tokens'?": (run, "--token", 3),
    }
    for message, arguments in cases.items():
        assert message in refused("evaluate", *arguments), message


def test_runs_that_are_not_whole(mixed, tmp_path):
    results = mixed / "results.h5"
    whole = results.read_bytes()
    with h5py.File(results, "r+") as file:
        text = file.attrs["configuration"]
        file.attrs["configuration"] = text.replace(f"rounds = {ROUNDS}", "rounds = 7")
    assert f"round {ROUNDS} of 7 is the last one there" in refused("evaluate", mixed)
    results.write_bytes(whole[: len(whole) // 2])
    assert "results.h5: " in refused("evaluate", mixed)
    shutil.rmtree(mixed)
    assert "no such file" in refused("evaluate", mixed)


def test_help_names_both_ways() -> None:
    done = alone("evaluate", "--help")
    assert done.code == 0 and done.output.startswith("Usage: comigs evaluate RUN")
    assert all(len(line) <= 100 for line in done.output.splitlines())
