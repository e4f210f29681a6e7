"""`comigs inspect`: what it says of models, data sets, runs and checkpoints, and of anything else."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path

import h5py
import pytest
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from tests.helpers.broken_runs import Running
from tests.helpers.finished import asked, refused
from tests.helpers.llamas import llama_folder
from tests.helpers.tiny import (
    RUN,
    USERS,
    alone,
    cut_into_examples,
    data_set,
    examples_of,
    gpt2_folder,
    run_options,
)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("member", ["gpt2", "llama, untied, no groups", "qwen3, biases"])
def test_a_base_model(member, tmp_path):
    base = tmp_path / "base"
    gpt2_folder(base) if member == "gpt2" else llama_folder(base, member)
    found = asked("inspect", base)
    model = AutoModelForCausalLM.from_pretrained(base)
    config = model.config
    assert found["kind"] == "base model" and found["family"] == config.model_type
    assert found["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert [found[name] for name in ("layers", "width", "heads", "vocabulary", "positions")] == [
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.vocab_size,
        config.max_position_embeddings,
    ]
    assert found["sha256"] == sha256(base / "model.safetensors")
    assert (found["stored_as"], found["end_of_text"], found["tokeniser"]) == (["F32"], [0], True)
    assert found["tied_head"] == bool(config.tie_word_embeddings)


def test_a_data_set(tiny_data):
    found = asked("inspect", tiny_data)
    manifest = json.loads((tiny_data / "manifest.json").read_text(encoding="utf-8"))
    assert (found["kind"], found["name"], found["vocabulary"], found["end_of_text"]) == (
        "data set",
        "tiny",
        97,
        0,
    )
    assert found["sha256"] == sha256(tiny_data / "manifest.json") and found["stored_as"] == "uint16"
    for user, row in zip(manifest["users"], found["users"], strict=True):
        assert row == {"name": user["name"]} | {s: of["tokens"] for s, of in user["splits"].items()}
    assert found["base_tokens"] == {s: of["tokens"] for s, of in manifest["base"]["splits"].items()}
    assert found["categories"] is None


def test_instruction_data(tmp_path):
    data = cut_into_examples(data_set(tmp_path / "data", USERS[:2]), 9)
    found = asked("inspect", data)
    assert found["categories"] == list(USERS[:2])
    for number, row in enumerate(found["users"]):
        examples = {split: examples_of(data, number, split) for split in ("train", "validation", "test")}
        lengths = {split: [len(n) + len(r) for n, r in of] for split, of in examples.items()}
        assert row == (
            {"name": USERS[number]}
            | {split: sum(of) for split, of in lengths.items()}
            | {f"{split}_examples": len(of) for split, of in lengths.items()}
            | {"longest_example": max(sum(lengths.values(), []))}
        )
    shown = alone("inspect", data).output
    assert f"categories        {'; '.join(USERS[:2])}\n" in shown
    assert "train examples  validation examples  test examples  longest example\n" in shown


def test_a_run(run_of, tiny_base, tiny_data, tmp_path):
    results = run_of("comigs-1g1s")
    found = asked("inspect", results)
    assert found == asked("inspect", results.parent) | {"file": found["file"]}
    assert (found["kind"], found["method"], found["finished"]) == ("run", "comigs-1g1s", True)
    assert (found["rounds"], found["rounds_done"], found["checkpoint"]) == (
        RUN["--rounds"],
        RUN["--rounds"],
        None,
    )
    assert (found["base"], found["data"]) == (str(tiny_base), str(tiny_data))
    assert found["base_sha256"] == sha256(tiny_base / "model.safetensors")
    with h5py.File(results) as file:
        assert found["configuration"] == file.attrs["configuration"]
        for split in ("train", "validation", "test"):
            last = file[f"perplexity/{split}"][-1].tolist()
            assert [user[f"{split}_perplexity"] for user in found["users"]] == last
    assert [(user["name"], user["experts"], user["generalists"]) for user in found["users"]] == [
        (name, 2, 1) for name in USERS
    ]
    # The configuration is a job file that makes the same run again.
    job = tmp_path / "job.ini"
    job.write_text(found["configuration"], encoding="utf-8")
    plan = alone("plan", job, "--settings")
    assert plan.code == 0 and json.loads(plan.output)["lora_rank"] == str(RUN["--lora-rank"])


def test_a_run_that_was_stopped_and_its_checkpoint(tiny_base, tiny_data, tmp_path):
    output = tmp_path / "run"
    given = ["--data", tiny_data, "--model", tiny_base, "--output", output, "--method", "comigs-1g1s"]
    with Running(
        "train", *given, *run_options("--rounds", 1000), "--device", "cpu", "--threads", 1
    ) as endless:
        endless.wait_for_round(2)
        assert asked("inspect", output)["rounds_done"] >= 2  # while it goes on
        endless.signal_all(signal.SIGTERM)
        assert endless.end().code == 3, endless.output()
    found = asked("inspect", output)
    assert (found["finished"], found["rounds"]) == (False, 1000) and found["rounds_done"] >= 2
    checkpoint = asked("inspect", found["checkpoint"])
    assert checkpoint == asked("inspect", output / "checkpoints")
    assert checkpoint["kind"] == "checkpoint" and checkpoint["configuration"] == found["configuration"]
    assert checkpoint["round"] in (found["rounds_done"], found["rounds_done"] + 1)
    for index, user in enumerate(checkpoint["users"]):
        file = Path(found["checkpoint"]) / f"user_{index}.safetensors"
        assert (user["name"], user["bytes"]) == (USERS[index], file.stat().st_size)
        assert user["phase"] in ("training", "aggregated", "evaluated")
        with safe_open(file, "np") as part:
            sizes = {name: part.get_slice(name) for name in part.keys()}
            expected = {
                name: view.get_shape()[0] for name, view in sizes.items() if view.get_dtype() == "F32"
            }
        blocks = [row for row in checkpoint["blocks"] if row["user"] == USERS[index]]
        assert {row["block"]: row["numbers"] for row in blocks} == expected and len(blocks) >= 3
    part = Path(found["checkpoint"]) / "user_1.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    assert "user_1.safetensors: " in refused("inspect", found["checkpoint"])


def test_tables_for_people(run_of, tiny_base, tiny_data):
    results = run_of("comigs-1g1s")
    for place, parts in {
        tiny_base: ("kind              base model", "tied head         yes", "parameters        "),
        tiny_data: ("name   ", "German", "base tokens       train 600; validation 200"),
        results: ("rounds done       2", "finished          yes", "[run]\noutput = "),
    }.items():
        done = alone("inspect", place)
        assert done.code == 0 and not done.errors, done.errors
        for part in parts:
            assert part in done.output, done.output


def test_anything_else(tiny_base, run_of, tmp_path):
    assert "found 0 paths, expected one" in refused("inspect")
    assert "found 2 paths, expected one" in refused("inspect", tiny_base, tiny_base)
    assert "unknown option '--jsn'" in refused("inspect", tiny_base, "--jsn")
    assert "absent: no such folder or file, expected a base model" in refused("inspect", tmp_path / "absent")
    assert "none of these lies there" in refused("inspect", tmp_path)
    (tmp_path / "text").write_text("text", encoding="utf-8")
    assert "text: not the results of a run" in refused("inspect", tmp_path / "text")
    whole = run_of("comigs-1g1s").read_bytes()
    (tmp_path / "results.h5").write_bytes(whole[: len(whole) // 2])
    assert "results.h5: " in refused("inspect", tmp_path)
    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / "model.safetensors").write_bytes(b"\x08")
    assert "model.safetensors' is not a whole safetensors file" in refused("inspect", base)
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "manifest.json").write_text("[]", encoding="utf-8")
    assert "manifest.json: " in refused("inspect", tmp_path / "manifest")
