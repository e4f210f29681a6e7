"""`analysis export` when something is wrong with its input: messages, exit codes, and what is left."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import h5py
import pytest
import torch

from analysis.cli import main
from analysis.export import merged
from analysis.export.base import find_base
from analysis.export.card import Described, card
from analysis.export.loader import load_mixture
from analysis.read.results import open_run
from tests.helpers.exported import export, made, refusal
from tests.helpers.results_fixture import write_results

__all__ = ["made"]  # the fixture is for tests here


def test_bad_input_is_told_in_one_line(made, tmp_path, capsys):
    run, other = made("gpt2"), made("llama")
    german = [run.results, "--user", "German", "--output", tmp_path / "out"]
    assert "did you mean 'German'?" in refusal(capsys, run.results, "--user", "Germn")
    assert "not the base model of" in refusal(capsys, *german, "--model", other.base)
    assert "no such folder; --model says" in refusal(capsys, *german, "--model", tmp_path / "none")
    assert "neither model.safetensors nor" in refusal(capsys, *german, "--model", tmp_path)
    assert "no mixture of gpt2's blocks; export without" in refusal(capsys, *german, "--mixture")
    assert not list(tmp_path.iterdir())


def test_mixtures_that_transformers_cannot_hold(made, tmp_path, capsys):
    for member, method, words in (
        ("llama, biases", "comigs-1gxs", "has biases that MixtralForCausalLM cannot hold"),
        ("llama", "comigs-1gxs, top 1", "with top_k = 1 an expert is weighted with its probability"),
        ("llama", "ffa-lora", "the user has one expert"),
    ):
        run = made(member, method)
        output = ["--output", tmp_path / "out"]
        assert words in refusal(capsys, run.results, "--user", "German", "--mixture", *output)
    assert not list(tmp_path.iterdir())


def test_runs_without_a_trained_model(tmp_path, capsys):
    for name, options, words in (
        ("going on", {"planned": 9}, "round 3 of 9 is the last one there"),
        ("untrained", {"method": "pretrained", "experts": [0, 0]}, "'pretrained' trains nothing"),
        ("without weights", {}, "'attention/weights/3/user_0' is missing"),
    ):
        results = write_results(tmp_path / name, folders=("data", str(tmp_path)), **options)
        assert words in refusal(capsys, results, "--user", "German")
        assert [path.name for path in results.parent.iterdir()] == ["results.h5"]


def test_an_adapter_of_another_kind(made, tmp_path, capsys):
    results = Path(shutil.copy(made("gpt2").results, tmp_path))
    with h5py.File(results, "a") as file:
        file.attrs["kind"] = "key-value"
    words = "its users train 'key-value', of which no export is known; expected lora, prompts"
    assert words in refusal(capsys, results, "--user", "German")


@pytest.mark.parametrize(
    ("array", "value", "words"),
    [
        ("expert/weights/1/user_0/layer_1/expert_2/up_A", math.nan, "numbers that are not finite"),
        ("attention/weights/1/user_0/layer_0/attn.c_attn_B", None, "cannot be read as HDF5"),
        ("router/weights/1/user_0/layer_1/weight", None, "has 1 routers (expected one a layer, of 3 experts"),
    ],
)
def test_damaged_weights(array, value, words, made, tmp_path, capsys):
    results = Path(shutil.copy(made("gpt2").results, tmp_path))
    with h5py.File(results, "a") as file:
        if value is None:
            del file[array]
        else:
            file[array][0, 0] = value
    assert words in refusal(capsys, results, "--user", "German")
    assert [path.name for path in tmp_path.iterdir()] == ["results.h5"]


def test_names_stay_in_their_lines_of_the_card(made, tmp_path):
    run = open_run(made("gpt2").results)
    run.attributes["data_set"] = "a | b\n# c <script>"
    written = card(run, find_base(run, None), Described("German", (), {}, {}, ""))
    assert "| Data set | a \\| b # c &lt;script> |\n" in written


def test_nothing_is_written_over(made, tmp_path, capsys):
    run = made("gpt2")
    output = tmp_path / "out"
    output.mkdir()
    export(run.results, output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    words = [run.results, "--user", "German", "--output"]
    assert "is there already" in refusal(capsys, *words, output)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    (tmp_path / "file").write_text("mine")
    assert "is there already" in refusal(capsys, *words, tmp_path / "file")


def test_whole_or_not_at_all(made, tmp_path, capsys, monkeypatch):
    run = made("llama")

    def fail(folder: Path, *_: object) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(merged, "write_mixture", fail)
    words = ["export", run.results, "--user", "German", "--mixture", "--output", tmp_path / "out"]
    assert main([str(word) for word in words]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(made, tmp_path, capsys, monkeypatch):
    run = made("gpt2")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    words = [run.results, "--user", "German", "--output", tmp_path / "out"]
    assert "export needs the Python package 'safetensors'" in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_another_folder_is_no_mixture(tmp_path):
    (tmp_path / "mixture.json").write_text('{"format": "another"}')
    with pytest.raises(ValueError, match="expected comigs-mixture, version 1"):
        load_mixture(tmp_path, torch.nn.Identity())
