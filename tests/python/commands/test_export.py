"""Exported models, opened by peft and transformers, against plain models of the run's numbers and comigs' own
perplexities."""

from __future__ import annotations

import json
import math

import h5py
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from analysis.cli import main
from analysis.read.results import open_run
from tests.helpers.exported import (
    ALPHA,
    OPTIONS,
    RANK,
    ROUNDS,
    distance,
    drop,
    export,
    keep,
    made,
    opened,
    perplexity,
)
from tests.helpers.llamas import llama
from tests.helpers.plain_model import PlainModel, Setting, frozen_weights
from tests.helpers.routed import stored_parameters
from tests.helpers.tiny import TOKENISER, alone, data_set, train

__all__ = ["made"]  # the fixture is for tests here

# Adapters and router ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "method", "rslora"),
    [
        ("gpt2", "comigs-1gxs", False),
        ("gpt2", "comigs-1gxs, top 1", False),
        ("gpt2", "fedavg", False),
        ("llama", "comigs-1gxs", True),
        ("qwen2", "comigs-1gxs", False),
        ("qwen3", "fedavg", False),
        ("gpt2", "comigs-1gxs, attention", False),
        ("llama", "comigs-1gxs, attention", True),
    ],
)
def test_adapters_and_router_make_the_user_s_model(member, method, rslora, made, tmp_path):
    run = made(member, method)
    folder = export(run.results, tmp_path / "out", *["--rslora"] * rslora)
    config = json.loads((folder / "expert-1/adapter_config.json").read_text())
    assert config["use_rslora"] == rslora
    gamma = ALPHA / math.sqrt(RANK)
    expected = ALPHA if rslora else gamma * RANK
    assert config["r"] == RANK and config["lora_alpha"] == pytest.approx(expected, rel=1e-12)
    assert isinstance(config["lora_alpha"], int) == rslora
    model = opened(folder, run)
    found = distance(model, run.plain())
    untrained = distance(model, run.plain(change=drop("")))
    print(f"{member}, {method}: {found:.1e}, from the base {untrained:.1e}")
    assert found <= 1e-4 and untrained >= 0.05
    with h5py.File(run.results) as file:
        recorded = file["perplexity/test"][-1, 0]
    assert abs(perplexity(model, run, 0) / recorded - 1) <= 1e-4


def test_the_router_decides(made, tmp_path):
    """With the experts' rows in another order the logits are others."""
    run = made("gpt2")
    folder = export(run.results, tmp_path / "out")
    routers = load_file(folder / "router.safetensors")
    with h5py.File(run.results) as file:
        for layer in range(2):
            stored = file[f"router/weights/{ROUNDS}/user_0/layer_{layer}/weight"][()]
            assert (routers[f"layers.{layer}.router.weight"].numpy() == stored).all()
    save_file(
        {name: weight.flip(0).contiguous() for name, weight in routers.items()}, folder / "router.safetensors"
    )
    assert distance(opened(folder, run), run.plain()) >= 0.01


@pytest.mark.parametrize("member", ["gpt2", "llama", "qwen3"])
def test_each_adapter_opens_alone(member, made, tmp_path):
    run = made(member)
    folder = export(run.results, tmp_path / "out")
    for expert in range(run.experts):
        alone_ = AutoPeftModelForCausalLM.from_pretrained(folder / f"expert-{expert}")
        assert distance(alone_, run.plain(change=keep(expert))) <= 1e-4
    attention = AutoPeftModelForCausalLM.from_pretrained(folder / "attention")
    assert distance(attention, run.plain(change=drop(".expert."))) <= 1e-4
    assert distance(attention, run.plain(change=drop(""))) >= 0.01
    with torch.no_grad():
        whole = attention.merge_and_unload()
    assert distance(whole, run.plain(change=drop(".expert."))) <= 1e-4


@pytest.mark.parametrize("method", ["ffa-lora", "fedavg, attention"])
def test_one_expert_is_one_adapter(method, made, tmp_path):
    run = made("gpt2", method)
    folder = export(run.results, tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"adapter", "README.md"}
    model = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter")
    assert distance(model, run.plain()) <= 1e-4 and distance(model, run.plain(change=drop(""))) >= 0.05


def test_pruned_ranks_are_left_out(tiny_base, tmp_path):
    data = data_set(tmp_path / "data", users=["German", "Dutch"])
    options = ["--method", "hetlora", "--rank-regulariser", 10, "--rounds", 6, *OPTIONS]
    train("--data", data, "--model", tiny_base, "--output", tmp_path / "run", *options, ranks=2)
    results = tmp_path / "run" / "results.h5"
    with h5py.File(results) as file:
        left = file["aggregation/lora_rank"][-1]
    user = int(left.argmin())
    assert left[user] < RANK
    setting = Setting(1, ALPHA / math.sqrt(RANK), routed=False)
    plain = PlainModel(frozen_weights(tiny_base), stored_parameters(results, 6, user), setting)
    for options in ([], ["--rslora"]):
        folder = export(results, tmp_path / f"out{options}", *options, user=["German", "Dutch"][user])
        adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
        assert {value.shape[0] for name, value in adapter.items() if ".lora_A." in name} == {left[user]}
        assert distance(AutoPeftModelForCausalLM.from_pretrained(folder / "adapter"), plain) <= 1e-4


def test_every_user_gets_its_own(made, tmp_path):
    """Also one whose name is no file's."""
    run = made("gpt2", users=2)
    own = run.plain(1)
    assert main(["export", str(run.results.parent), "--user", "日本 語/x"]) == 0
    folder = run.results.parent / "export-日本-語-x"
    assert distance(opened(folder, run), own) <= 1e-4
    assert distance(opened(export(run.results, tmp_path / "out"), run), own) >= 1e-3
    mixture = json.loads((folder / "mixture.json").read_text())
    assert [expert["shared"] for expert in mixture["experts"]] == [True, False, False]
    assert mixture["base"]["sha256"] == open_run(run.results).attribute("base_digest")
    with h5py.File(run.results) as file:
        before, after = file["perplexity/test"][[0, -1], 1]
    card = (folder / "README.md").read_text()
    assert f"{before:.4g} before, {after:.4g} after" in card and "[method]\n    name = comigs-1gxs" in card


# The whole mixture ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "method", "expected"),
    [
        ("llama", "comigs-1gxs", "MixtralForCausalLM"),
        ("llama", "fedavg", "MixtralForCausalLM"),
        ("llama, head_dim", "comigs-1gxs", "MixtralForCausalLM"),
        ("mistral", "comigs-1gxs", "MixtralForCausalLM"),
        ("qwen2", "comigs-1gxs", "Qwen2MoeForCausalLM"),
        ("qwen3", "comigs-1gxs", "Qwen3MoeForCausalLM"),
        ("qwen3", "comigs-1gxs, top 1", "Qwen3MoeForCausalLM"),
        ("qwen3, biases", "comigs-1gxs", "Qwen3MoeForCausalLM"),
    ],
)
def test_merged_mixture_is_the_user_s_model(member, method, expected, made, tmp_path):
    run = made(member, method)
    folder = export(run.results, tmp_path / "out", "--mixture") / "mixture"
    model, notes = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == expected
    assert not any(notes[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (folder / "tokenizer.json").read_text() == TOKENISER
    found = distance(model.eval(), run.plain())
    print(f"{member}, {method}: {found:.1e}")
    assert found <= 1e-4
    with h5py.File(run.results) as file:
        recorded = file["perplexity/test"][-1, 0]
    assert abs(perplexity(model, run, 0) / recorded - 1) <= 1e-4


@pytest.mark.parametrize("member", ["llama, linear", "llama, rope_parameters"])
def test_merged_mixture_turns_positions_as_its_base(member, made, tmp_path):
    """transformers reads the base's own spelling where the adapters are put on it."""
    run = made(member)
    folder = export(run.results, tmp_path / "out", "--mixture")
    model = AutoModelForCausalLM.from_pretrained(folder / "mixture").eval()
    ids = torch.arange(60).unsqueeze(0)
    with torch.no_grad():
        expected, found = (one(ids).logits for one in (opened(folder, run), model))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_base_in_shards_of_bfloat16(tmp_path):
    """Its digest is comigs' own; what is merged is rounded once."""
    base = tmp_path / "base"
    llama("llama").to(torch.bfloat16).save_pretrained(base, max_shard_size="10KB")
    assert len(list(base.glob("model-*.safetensors"))) > 1
    (base / "tokenizer.json").write_text(TOKENISER)
    data = data_set(tmp_path / "data", users=["German"])
    options = ["--data", data, "--model", base, "--output", tmp_path / "run", "--rounds", ROUNDS]
    assert alone("train", *options, *OPTIONS, "--method", "comigs-2s", "--device", "cpu").code == 0
    results = tmp_path / "run" / "results.h5"
    folder = export(results, tmp_path / "out", "--mixture") / "mixture"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    name = "model.layers.1.self_attn.v_proj.weight"
    stored = {name: weight for file in base.glob("*.safetensors") for name, weight in load_file(file).items()}
    numbers = stored_parameters(results, ROUNDS, 0)
    A, B = (numbers[f"1.self_attn.v_proj.{factor}"] for factor in "AB")
    exact = stored[name].double() + ALPHA / math.sqrt(RANK) * B @ A
    error = (model.state_dict()[name].double() - exact).abs()
    assert (error <= exact.abs() * 2**-8 + 1e-6).all() and (exact - stored[name]).abs().max() > 0.01
