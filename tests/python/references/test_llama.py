"""The Llama family: logits against transformers, losses and every gradient of steps against plain PyTorch."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.helpers.built_program import built_program
from tests.helpers.llamas import MEMBERS, PlainLlama, config, llama, llama_folder
from tests.helpers.plain_model import Setting
from tests.helpers.replayed import (
    ALPHA,
    BATCH,
    CONTEXT,
    IN_TURN,
    LOCAL_STEPS,
    RANK,
    RATE,
    ROUNDS,
    ROUTER_RATE,
    TAU,
    Case,
    S,
    relative,
    replay,
)
from tests.helpers.tiny import POSITIONS, data_set, run, trace_steps, traced_logits


def tokens(length: int = POSITIONS) -> torch.Tensor:
    return torch.randint(0, 97, (3, length), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def expected(folder: Path, ids: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()(ids).logits.float()


@pytest.mark.parametrize("member", MEMBERS)
def test_logits_in_float32(member, tmp_path):
    folder = llama_folder(tmp_path, member)
    reference = expected(folder, tokens())
    assert reference.std() > 1  # else small differences would say nothing
    difference = (traced_logits(folder, tokens()) - reference).abs().max().item()
    print(f"{member}: largest difference {difference:.2e} of logits up to {reference.abs().max():.1f}")
    assert difference <= 1e-4


@pytest.mark.parametrize("member", ["llama", "qwen3"])
def test_logits_in_bf16(member, tmp_path):
    """Both round at every operation, in their own order: comigs must be as near to exact as transformers."""
    folder = llama_folder(tmp_path, member)
    theirs = expected(folder, tokens(), torch.bfloat16)
    exact = expected(folder, tokens())
    ours = traced_logits(folder, tokens(), "bf16")
    their_error, our_error = ((found - exact).square().mean().sqrt().item() for found in (theirs, ours))
    print(f"{member}: mean error: transformers {their_error:.4f}, comigs {our_error:.4f}")
    assert our_error <= 1.5 * their_error


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_files_of_half_precision_in_shards(dtype, tmp_path):
    llama("llama").to(dtype).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert (traced_logits(tmp_path, tokens()) - expected(tmp_path, tokens())).abs().max() <= 1e-4


def test_files_without_prefix_and_with_old_frequencies(tmp_path):
    folder = llama_folder(tmp_path, "llama")
    reference = expected(folder, tokens())
    weights = load_file(folder / "model.safetensors")
    weights = {name.removeprefix("model."): weight for name, weight in weights.items()}
    weights["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert (traced_logits(folder, tokens()) - reference).abs().max() <= 1e-4


@pytest.mark.parametrize("member", ["llama", "llama, biases", "qwen2", "qwen3"])
def test_losses_gradients_and_parameters(member, tmp_path):
    base = llama_folder(tmp_path / "base", member)
    data = data_set(tmp_path / "data", users=["German"])
    case = Case("comigs-1gxs", 3)
    options: list[object] = ["--data", data, "--model", base, "--output", "unused", "--method", case.method]
    options += ["--experts", case.experts, "--lora-rank", RANK, "--lora-alpha", ALPHA, "--seed", 3]
    options += ["--batch-sequences", BATCH, "--context-tokens", CONTEXT, "--local-steps", LOCAL_STEPS]
    options += ["--rounds", ROUNDS, "--router-every", TAU, "--router-steps", S, "--final-fraction", 0.1]
    options += ["--load-balancing-weight", case.setting.balancing_weight, "--weight-decay", 0.1]
    options += ["--expert-learning-rate", RATE, "--router-learning-rate", ROUTER_RATE]
    trace = trace_steps(tmp_path / "trace.safetensors", options)
    assert "".join("er"[phase] for phase in trace.tensors["phases"]) == IN_TURN

    def plain(parameters: dict[str, torch.Tensor], setting: Setting) -> PlainLlama:
        weights = {name: weight.double() for name, weight in load_file(base / "model.safetensors").items()}
        return PlainLlama(base, weights, parameters, setting)

    reference = replay(case, trace, plain)
    worst = 0.0
    for step, phase in enumerate(IN_TURN):
        for found, wanted in zip(trace.tensors["losses"][step].tolist(), reference.losses[step]):
            assert wanted is not None and abs(found - wanted) <= 1e-5 * abs(wanted)
        gradients = trace.unpack(trace.tensors["gradients"][step])
        for name, gradient in reference.gradients[step].items():
            if case.trains(phase, name):
                worst = max(worst, relative(gradients[name], gradient))
    final = trace.unpack(trace.tensors["values"][-1])
    moved = max(relative(final[name], leaf.detach()) for name, leaf in reference.final.items())
    print(f"{member}: gradients {worst:.1e}, parameters at the end {moved:.1e}")
    assert worst <= 1e-4 and moved <= 1e-4 and math.isfinite(worst + moved)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'rope_type' is \"yarn\""),
        ({"rope_scaling": {"rope_type": "linear"}}, "'factor' is missing"),
        ({"num_key_value_heads": 3}, "'num_key_value_heads' is 3, expected a divisor"),
        ({"hidden_act": "gelu"}, "'hidden_act' is \"gelu\""),
        ({"intermediate_size": 0}, "'intermediate_size' is 0"),
        ({"head_dim": 7}, "'head_dim' is 7, expected an even number"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config'"),
        ({"model_type": "gemma2"}, "model_type 'gemma2' is not supported"),
        ({"mlp_bias": True}, "'layers.0.mlp.gate_proj.bias' is missing"),
    ],
)
def test_what_is_not_supported_is_named(settings, found, tmp_path):

    folder = llama_folder(tmp_path / "base", "llama")
    (folder / "config.json").write_text(json.dumps(config("llama", **settings)), encoding="utf-8")
    save_file({"tokens": tokens()}, tmp_path / "tokens.safetensors")
    command = [built_program("reference_trace"), "logits", folder, tmp_path / "tokens.safetensors"]
    done = run([*command, tmp_path / "out", "float32"])
    assert done.code != 0
    assert found in done.errors, done.errors
