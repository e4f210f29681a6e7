"""The frozen model against transformers on the same files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from tests.helpers.tiny import POSITIONS, gpt2, traced_logits


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    return gpt2(layers=2, width=48, heads=3, vocabulary=101, seed=1)


def tokens() -> torch.Tensor:
    return torch.randint(0, 101, (3, POSITIONS), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def expected(folder_or_model: Path | GPT2LMHeadModel, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    model = folder_or_model
    if isinstance(model, Path):
        model = GPT2LMHeadModel.from_pretrained(model, dtype=dtype)
    return model.to(dtype)(ids).logits.float()


def save(model: GPT2LMHeadModel, folder: Path, prefixed: bool, dtype: torch.dtype) -> None:
    """With the prefix as transformers writes a model with its head; without it as OpenAI's own files are."""
    copy = GPT2LMHeadModel(model.config)
    copy.load_state_dict(model.state_dict())
    copy = copy.to(dtype)
    (copy if prefixed else copy.transformer).save_pretrained(folder)
    names = load_file(folder / "model.safetensors").keys()
    assert all(name.startswith("transformer.") == prefixed for name in names)


@pytest.mark.parametrize("prefixed", [True, False])
def test_logits_in_float32(model, tmp_path, prefixed):
    save(model, tmp_path, prefixed, torch.float32)
    reference = expected(tmp_path, tokens(), torch.float32)
    assert reference.std() > 1  # else small differences would say nothing
    difference = (traced_logits(tmp_path, tokens()) - reference).abs().max().item()
    print(f"largest difference {difference:.2e} of logits up to {reference.abs().max():.1f}")
    assert difference <= 1e-4


def test_shorter_context(model, tmp_path):
    save(model, tmp_path, True, torch.float32)
    ids = tokens()[:, :5].contiguous()
    assert (traced_logits(tmp_path, ids) - expected(tmp_path, ids, torch.float32)).abs().max() <= 1e-4


def test_float32_file_holding_more_than_the_weights(model, tmp_path):
    """OpenAI's own files carry the causal masks as well."""
    save(model, tmp_path, True, torch.float32)
    weights = load_file(tmp_path / "model.safetensors")
    weights["transformer.h.0.attn.bias"] = torch.ones(POSITIONS, POSITIONS).tril()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert (traced_logits(tmp_path, tokens()) - expected(model, tokens(), torch.float32)).abs().max() <= 1e-4


@pytest.mark.parametrize("prefixed", [True, False])
def test_bf16_file_computed_in_float32(model, tmp_path, prefixed):
    save(model, tmp_path, prefixed, torch.bfloat16)
    reference = expected(tmp_path, tokens(), torch.float32)
    assert (traced_logits(tmp_path, tokens()) - reference).abs().max() <= 1e-4


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_logits_in_bf16(model, tmp_path, stored):
    """Both round at every operation, in their own order: comigs must be as near to exact as transformers."""
    save(model, tmp_path, True, stored)
    theirs = expected(tmp_path, tokens(), torch.bfloat16)
    exact = expected(GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.bfloat16), tokens(), torch.float32)
    ours = traced_logits(tmp_path, tokens(), "bf16")
    their_error, our_error = ((found - exact).square().mean().sqrt().item() for found in (theirs, ours))
    print(f"mean error: transformers {their_error:.4f}, comigs {our_error:.4f}, logits {exact.std():.2f}")
    assert our_error <= 1.5 * their_error
    assert (ours - theirs).abs().max() <= 0.05 * exact.abs().max()


# As models are published ------------------------------------------------------------------------------------


def changed_folder(
    model: GPT2LMHeadModel, folder: Path, tensors: dict[str, torch.Tensor], **settings: object
) -> None:
    """The model's folder with tensors in addition to or in the place of its own, and settings; None removes one."""
    save(model, folder, True, torch.float32)
    weights = load_file(folder / "model.safetensors") | tensors
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | settings
    config = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def check_logits(folder: Path) -> torch.Tensor:
    """Those of comigs, which are those of transformers for the same folder."""
    reference = expected(folder, tokens(), torch.float32)
    assert reference.std() > 1
    ours = traced_logits(folder, tokens())
    assert (ours - reference).abs().max() <= 1e-4
    return ours


@pytest.mark.parametrize("tied", [True, False, None])
def test_head_of_its_own(model, tmp_path, tied):
    """transformers uses it whatever the configuration says, or does not say."""
    head = 0.2 * torch.randn(101, 48, generator=torch.Generator().manual_seed(3))
    changed_folder(model, tmp_path, {"lm_head.weight": head}, tie_word_embeddings=tied)
    assert (check_logits(tmp_path) - expected(model, tokens(), torch.float32)).abs().max() > 1


@pytest.mark.parametrize("tied", [True, False, None])
def test_head_that_is_a_copy_of_the_embedding(model, tmp_path, tied):
    head = model.transformer.wte.weight.detach().clone()
    changed_folder(model, tmp_path, {"lm_head.weight": head}, tie_word_embeddings=tied)
    check_logits(tmp_path)


def test_embedding_stored_as_the_head_alone(model, tmp_path):
    save(model, tmp_path, True, torch.float32)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("transformer.wte.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    check_logits(tmp_path)


def test_shards(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert not (tmp_path / "model.safetensors").exists()
    check_logits(tmp_path)


def test_half_precision_file(model, tmp_path):
    save(model, tmp_path, True, torch.float16)
    check_logits(tmp_path)


@pytest.mark.parametrize("name", ["gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"])
def test_other_names_of_the_activation(model, tmp_path, name):
    changed_folder(model, tmp_path, {}, activation_function=name)
    check_logits(tmp_path)
