"""`comigs prune`: the folder that it writes, who reads it, and what it refuses."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.helpers.broken_runs import check_it_ends_at_once, holds_back
from tests.helpers.finished import asked, refused
from tests.helpers.llamas import llama_folder
from tests.helpers.tiny import (
    ONE_STEP,
    Done,
    alone,
    comigs,
    data_set,
    executable,
    gpt2_folder,
    run,
    run_options,
    train,
)

SMALL = ("--calibration-sequences", 8, "--context-tokens", 12, "--device", "cpu", "--threads", 1)
HALF = ("--pattern", "zeros=2,of=4")


def prune(base: Path, data: Path, output: Path, *options: object) -> Done:
    return alone("prune", "--model", base, "--data", data, "--output", output, *SMALL, *options)


@pytest.fixture(scope="module")
def pruned(tiny_base, tiny_data, tmp_path_factory) -> Path:
    """Half of the tiny base, by SparseGPT; not to be written to."""
    folder = tmp_path_factory.mktemp("pruned") / "base"
    done = prune(tiny_base, tiny_data, folder, *HALF)
    assert done.code == 0, done.errors
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_has_what_belongs_to_a_model(tiny_data, tmp_path):
    base = gpt2_folder(tmp_path / "base")
    kept = ["tokenizer_config.json", "chat_template.jinja", "LICENSE", "generation_config.json"]
    for name in kept:
        (base / name).write_text(f'{{"of": "{name}"}}' if name.endswith("json") else name, encoding="utf-8")
    for name in ("comigs-base.json", "comigs_pretrain.txt", "pytorch_model.bin", "notes"):
        (base / name).write_text("not of the pruned model", encoding="utf-8")
    output = tmp_path / "new" / "pruned"
    done = prune(base, tiny_data, output, *HALF)
    assert done.code == 0, done.errors
    assert "2 zeros of 4 (50 %)" in done.output and "50.0000 % of the numbers of 8 matrices" in done.output
    made = ["config.json", "model.safetensors", "tokenizer.json", "comigs-pruning.json"]
    assert {entry.name for entry in output.iterdir()} == {*kept, *made}
    for name in (*kept, "config.json", "tokenizer.json"):
        assert (output / name).read_bytes() == (base / name).read_bytes()


def test_the_record_says_what_was_done(pruned, tiny_base):
    record = json.loads((pruned / "comigs-pruning.json").read_text())
    assert (record["format"], record["method"], record["zeros"], record["of"]) == (
        "comigs-pruning",
        "sparsegpt",
        2,
        4,
    )
    assert "share" not in record and len(record["zeros_by_matrix"]) == 8
    assert record["base_digest"] == sha256(tiny_base / "model.safetensors")
    assert record["weights_digest"] == sha256(pruned / "model.safetensors")


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_the_precision_is_the_bases_own(stored, method, tiny_data, tmp_path):
    base = llama_folder(tmp_path / "base", "qwen2", intermediate_size=48)
    dense = {name: weight.to(stored) for name, weight in load_file(base / "model.safetensors").items()}
    dense["model.norm.weight"] = dense["model.norm.weight"].float()  # not all of them
    save_file(dense, base / "model.safetensors", metadata={"format": "pt"})
    done = prune(base, tiny_data, tmp_path / "pruned", *HALF, "--method", method)
    assert done.code == 0, done.errors
    weights = load_file(tmp_path / "pruned" / "model.safetensors")
    assert {name: weight.dtype for name, weight in weights.items()} == {
        name: weight.dtype for name, weight in dense.items()
    }
    changed = [name for name in dense if not torch.equal(weights[name], dense[name])]
    assert len(changed) == 14 and all("_proj.weight" in name for name in changed)
    if method != "sparsegpt":
        assert all(torch.equal(weights[n], torch.where(weights[n] == 0, 0, dense[n])) for n in changed)


def test_shards_become_one_file(tiny_base, tiny_data, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    model.save_pretrained(tmp_path / "base", max_shard_size="40KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    shutil.copy(tiny_base / "tokenizer.json", tmp_path / "base")
    for name, base in (("shards", tmp_path / "base"), ("one", tiny_base)):
        assert prune(base, tiny_data, tmp_path / name, *HALF).code == 0
    one, other = (tmp_path / name / "model.safetensors" for name in ("one", "shards"))
    assert one.read_bytes() == other.read_bytes()
    assert not (tmp_path / "shards" / "model.safetensors.index.json").exists()


def test_the_same_call_makes_the_same_bytes_and_the_seed_decides(pruned, tiny_base, tiny_data, tmp_path):
    for name, seed in (("again", 0), ("other", 1)):
        assert prune(tiny_base, tiny_data, tmp_path / name, *HALF, "--seed", seed).code == 0
    for file in ("model.safetensors", "comigs-pruning.json"):
        assert (tmp_path / "again" / file).read_bytes() == (pruned / file).read_bytes()
    assert sha256(tmp_path / "other" / "model.safetensors") != sha256(pruned / "model.safetensors")


def with_weights(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights["transformer.h.0.mlp.c_fc.weight"] *= 2
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def with_epsilon(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 1e-4}))


def with_other_text(data: Path) -> None:
    """The base corpus turned round: as many tokens, and as many of each."""
    manifest = json.loads((data / "manifest.json").read_text())
    split = manifest["base"]["splits"]["train"]
    file = data / split["file"]
    file.write_bytes(np.fromfile(file, manifest["dtype"])[::-1].tobytes())
    split["sha256"] = sha256(file)
    (data / "manifest.json").write_text(json.dumps(manifest))


OTHERWISE = {
    "method": ({"--method": "wanda"}, '\'method\' is "sparsegpt", expected "wanda"'),
    "zeros": ({"--pattern": "zeros=1,of=4"}, "'zeros' is 2, expected 1"),
    "seed": ({"--seed": 1}, "'seed' is 0, expected 1"),
    "context": ({"--context-tokens": 8}, "'context_tokens' is 12, expected 8"),
    "precision": ({"--precision": "bf16"}, '\'precision\' is "float32", expected "bf16"'),
    "text": (with_other_text, "comigs-pruning.json: 'digest' is"),
    "weights": (with_weights, "comigs-pruning.json: 'base_digest' is"),
    "config": (with_epsilon, "config.json: found another one than in"),
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_a_folder_is_known_by_what_it_was_made_of(what, pruned, tiny_base, tiny_data, tmp_path):
    there = shutil.copytree(pruned, tmp_path / "there")
    base, data = shutil.copytree(tiny_base, tmp_path / "base"), shutil.copytree(tiny_data, tmp_path / "data")
    options = dict(zip(SMALL[::2], SMALL[1::2])) | {
        "--pattern": "zeros=2,of=4",
        "--model": base,
        "--data": data,
    }

    def called(output: Path, *more: object) -> list[object]:
        return ["prune", *itertools.chain(*options.items()), "--output", output, *more]

    content = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in there.iterdir()}
    done = alone(*called(there))
    assert done.code == 0 and "there already, pruned in the same way" in done.output, done.errors
    change, told = OTHERWISE[what]
    if isinstance(change, dict):
        options |= change
    else:
        change(data if what == "text" else base)
    message = refused(*called(there))
    assert told in message and str(there) in message and "--replace" in message
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in there.iterdir()} == content
    assert alone(*called(tmp_path / "afresh")).code == 0
    for words in ("base model: ", "there already"):
        done = alone(*called(there, "--replace"))
        assert done.code == 0 and words in done.output, done.errors
        for file in ("config.json", "model.safetensors", "comigs-pruning.json"):
            assert (there / file).read_bytes() == (tmp_path / "afresh" / file).read_bytes()


def test_magnitude_needs_no_data(tiny_base, tiny_data, tmp_path):
    words = ("--model", tiny_base, "--method", "magnitude", *HALF)
    done = alone("prune", *words, "--output", tmp_path / "without")
    assert done.code == 0 and not done.errors, done.errors
    done = alone("prune", *words, "--output", tmp_path / "with", "--data", tiny_data)
    assert done.code == 0 and "--data has no effect" in done.errors
    record = json.loads((tmp_path / "without" / "comigs-pruning.json").read_text())
    assert record["calibration"] is None
    assert sha256(tmp_path / "without" / "model.safetensors") == sha256(
        tmp_path / "with" / "model.safetensors"
    )


def test_bf16_while_calibrating(tiny_base, tiny_data, tmp_path):
    """Other last bits, the same precision of what is written."""
    done = prune(tiny_base, tiny_data, tmp_path / "pruned", *HALF, "--precision", "bf16")
    assert done.code == 0, done.errors
    assert all(w.dtype == torch.float32 for w in load_file(tmp_path / "pruned/model.safetensors").values())


# Who reads it ------------------------------------------------------------------------------------------------


def test_inspect_shows_it(pruned, tiny_base):
    assert asked("inspect", tiny_base)["pruning"] is None
    found = asked("inspect", pruned)["pruning"]
    record = json.loads((pruned / "comigs-pruning.json").read_text())
    assert found == {
        "method": "sparsegpt",
        "share": None,
        "zeros": 2,
        "of": 4,
        "share_of_zeros": 0.5,
        "calibration_sha256": record["calibration"]["digest"],
        "base_sha256": record["base_digest"],
    }
    assert "sparsegpt" in alone("inspect", pruned).output


def test_a_run_says_from_which_pruned_base_it_is(pruned, tiny_base, tiny_data, tmp_path):
    for base, name in ((pruned, "pruned"), (tiny_base, "dense")):
        train("--data", tiny_data, "--model", base, "--output", tmp_path / name, *ONE_STEP)
    with h5py.File(tmp_path / "pruned/results.h5") as file:
        assert file.attrs["base_pruning"] == (pruned / "comigs-pruning.json").read_text()
        digest = file.attrs["base_digest"]
    with h5py.File(tmp_path / "dense/results.h5") as file:
        assert "base_pruning" not in file.attrs and file.attrs["base_digest"] != digest
    # A run of one base is not evaluated on the other.
    words = refused("evaluate", tmp_path / "pruned", "--model", tiny_base)
    assert "not the base model of" in words


LIES = {
    "no JSON": (lambda text: text[:-3], "comigs-pruning.json"),
    "another type": (lambda text: text.replace('"sparsegpt"', "3"), "'method' is 3"),
    "other zeros": (
        lambda text: text.replace('"h.0.attn.c_attn.weight": 1536', '"h.0.attn.c_attn.weight": 1535'),
        "has 1535 for h.0.attn.c_attn.weight, but the weights beside it have 1536",
    ),
    "other weights": (
        lambda text: json.dumps(json.loads(text) | {"weights_digest": "0" * 64}),
        "'weights_digest' is 0000",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_lies_is_refused(lie, pruned, tiny_base, tiny_data, tmp_path):
    """Check 28."""
    base = shutil.copytree(pruned, tmp_path / "base")
    change, words = LIES[lie]
    record = base / "comigs-pruning.json"
    record.write_text(change(record.read_text()))
    assert record.read_text() != (pruned / "comigs-pruning.json").read_text()
    given = ("--data", tiny_data, "--model", base)
    for told in (
        refused("inspect", base),
        refused("evaluate", *given),
        refused("prune", *given, "--output", tmp_path / "twice", *HALF),
        refused("prune", "--model", tiny_base, "--data", tiny_data, "--output", base, *SMALL, *HALF),
    ):
        assert words in told and str(record) in told
    done = comigs("train", *given, "--output", tmp_path / "run", *run_options(), "--device", "cpu", ranks=4)
    told = [
        line
        for line in done.errors.splitlines()
        if line.startswith("comigs") and "share the cores" not in line
    ]
    assert done.code == 2 and len(told) == 1 and words in told[0], done.errors
    assert not (tmp_path / "twice").exists() and not (tmp_path / "run" / "results.h5").exists()


# What is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sparsity", 1], "--sparsity: found '1', expected a number from 0 to below 1"),
        (["--sparsity", -0.5], "--sparsity: found '-0.5'"),
        (["--pattern", "zeros=4,of=4"], "--pattern: found 'zeros=4,of=4', expected zeros=N,of=M"),
        (["--pattern", "2:4"], "--pattern: found '2:4'"),
        ([], "--sparsity: not given, and no --pattern either"),
        ([*HALF, "--sparsity", 0.5], "--sparsity: found beside --pattern"),
        (["--pattern", "zeros=1,of=3"], "--pattern: found runs of 3, but attn.c_attn of the base model"),
        ([*HALF, "--context-tokens", 17], "--context-tokens 17: the base model"),
        ([*HALF, "--method", "chance"], "--method: found 'chance', expected magnitude, wanda or sparsegpt"),
        ([*HALF, "--calibration-sequences", 0], "--calibration-sequences: found '0'"),
        ([*HALF, "--paterns", 3], "did you mean '--pattern'?"),
    ],
)
def test_bad_options(options, words, tiny_base, tiny_data, tmp_path):
    given = ("--model", tiny_base, "--data", tiny_data, "--output", tmp_path / "out", *options)
    assert words in refused("prune", *given)
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_calibrated_on(tiny_base, tmp_path):
    data = data_set(tmp_path / "data")
    given = ("--model", tiny_base, "--output", tmp_path / "out", *HALF)
    assert "--data: not given" in refused("prune", *given)
    assert "absent: no such data-set folder" in refused("prune", *given, "--data", tmp_path / "absent")
    manifest = json.loads((data / "manifest.json").read_text())
    base = manifest.pop("base")
    (data / "manifest.json").write_text(json.dumps(manifest))
    assert "no base corpus to calibrate on ('base' is missing)" in refused("prune", *given, "--data", data)
    file = data / base["splits"]["train"]["file"]
    file.write_bytes(file.read_bytes()[:32])
    base["splits"]["train"] |= {"tokens": 16, "sha256": sha256(file)}
    (data / "manifest.json").write_text(json.dumps(manifest | {"base": base}))
    told = refused("prune", *given, "--data", data)
    assert "16 tokens, expected at least 17 (--context-tokens 16)" in told
    (tmp_path / "other").mkdir()
    other = gpt2_folder(tmp_path / "other", vocabulary=80)
    words = ("--model", other, "--output", tmp_path / "out", "--data", data_set(tmp_path / "whole"), *HALF)
    assert "vocabulary" in refused("prune", *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "comigs-pruning.json", "LICENSE"]
)
def test_files_of_others_are_not_overwritten(name, tiny_base, tiny_data, tmp_path):
    (tmp_path / name).write_text("precious")
    told = refused("prune", "--model", tiny_base, "--data", tiny_data, "--output", tmp_path, *HALF)
    assert f"--output {tmp_path}: holds a model's {name} already" in told
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_weights_that_are_not_finite(tiny_base, tiny_data, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][3, 5] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    told = refused("prune", "--model", base, "--data", tiny_data, "--output", tmp_path / "out", *HALF)
    assert "h.1.mlp.c_fc.weight' has " in told and "nan in it" in told and not (tmp_path / "out").exists()


def test_it_is_one_process(tiny_base, tiny_data, tmp_path):
    words = ("--model", tiny_base, "--data", tiny_data, "--output", tmp_path / "out", *HALF)
    done = comigs("prune", *words, ranks=2)
    assert done.code == 2 and "'comigs prune' is one process" in done.errors


def test_a_disk_that_is_full_leaves_nothing(tiny_base, tiny_data, tmp_path):
    """Weights are written last but for config.json; a file may have 40 kB here, they have more."""
    words = ("--model", tiny_base, "--data", tiny_data, "--output", tmp_path / "out", *HALF, *SMALL)
    done = run(["bash", "-c", 'ulimit -f 40; exec "$@"', "-", executable(), "prune", *words])
    assert done.code == 1 and done.errors.count("\n") == 1 and "cannot write" in done.errors, done.errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_leaves_nothing_half_written(number, tiny_base, tiny_data, tmp_path):
    words = ["--model", tiny_base, "--data", tiny_data, "--output", tmp_path / "out", *HALF]
    words += ["--calibration-sequences", 200_000, "--context-tokens", 12, "--device", "cpu", "--threads", 1]
    check_it_ends_at_once(number, [executable(), "prune", *words])
    begun = [executable(), "prune", *map(str, words)]
    with subprocess.Popen(begun, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not holds_back(process.pid, number):
            time.sleep(0.01)
        while process.poll() is None and holds_back(process.pid, number):
            time.sleep(0.01)
        time.sleep(0.5)  # seconds of work are to come
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 3 and not output, (process.returncode, errors)
    assert errors.endswith(f"stopped by {number.name}; nothing was written, the same command does it\n")
    assert not (tmp_path / "out").exists()
