"""Exported soft prompts, opened by peft and by the loader, against plain PyTorch on the run's numbers and comigs' own
perplexities (mop.md check 27)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from analysis.export.loader import load_mixture
from analysis.export.prompt_loader import PromptMixture, load_prompts
from tests.helpers.exported import export, refusal
from tests.helpers.exported_prompts import (
    CONTEXT,
    M,
    MadePrompts,
    batch,
    difference,
    made_prompts,
    perplexity,
)
from tests.helpers.plain_prompts import GATE

__all__ = ["made_prompts"]  # the fixture is for tests here


def of_text(logits: Tensor) -> Tensor:
    """PEFT's logits are of the prompts too."""
    return logits[:, M:]


def mixture_of(folder: Path, run: MadePrompts, **options: object) -> PromptMixture:
    return load_prompts(folder, AutoModelForCausalLM.from_pretrained(run.base, **options))


# As PEFT has it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", ["gpt2", "llama", "qwen3"])
def test_one_group_in_front_of_the_input_is_prompt_tuning(member, made_prompts, tmp_path):
    """mop.md check 27."""
    run = made_prompts(member, "prompt-local", 0)
    folder = export(run.results, tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"adapter", "README.md"}
    tensors = load_file(folder / "adapter/adapter_model.safetensors")
    assert list(tensors) == ["prompt_embeddings"]
    assert torch.equal(tensors["prompt_embeddings"].double(), run.parameters()["0.expert.0.prompt"])
    base = AutoModelForCausalLM.from_pretrained(run.base)
    ids, _ = batch()
    with torch.no_grad():
        untouched = base(ids).logits
        expected = run.plain().logits(ids)[0]
        for model in (
            AutoPeftModelForCausalLM.from_pretrained(folder / "adapter"),
            PeftModel.from_pretrained(base, folder / "adapter"),
        ):
            found = difference(of_text(model(ids).logits), expected)
            print(f"{member}: {found:.1e}")
            assert found <= 1e-4
    assert difference(untouched, expected) >= 0.05
    found = perplexity(lambda text, _: of_text(model(text).logits), run)
    assert found == pytest.approx(run.recorded_perplexity(), rel=1e-4)
    assert "exactly the user's model" in (folder / "README.md").read_text()


@pytest.mark.parametrize("member", ["gpt2", "llama"])
def test_groups_in_front_of_the_input_are_tasks(member, made_prompts, tmp_path):
    """mop.md check 27: a sequence's task is its group; sequences of one batch may have different ones."""
    run = made_prompts(member, "mop-local", 0)
    folder = export(run.results, tmp_path / "out")
    model = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter")
    assert model.active_peft_config.num_tasks == run.groups
    ids, _ = batch()
    with torch.no_grad():
        alone = torch.stack([run.alone(group).logits(ids)[0] for group in range(run.groups)])
        for group in range(run.groups):
            found = of_text(model(ids, task_ids=torch.full((4,), group)).logits)
            assert difference(found, alone[group]) <= 1e-4
            assert difference(found, alone[group - 1]) >= 1e-3
        tasks = torch.tensor([2, 0, 1, 2])
        found = of_text(model(ids, task_ids=tasks).logits)
    assert difference(found, alone[tasks, torch.arange(4)]) <= 1e-4


@pytest.mark.parametrize("member", ["gpt2", "llama"])
def test_the_task_is_the_group_of_the_largest_weight(member, made_prompts, tmp_path):
    """mop.md check 27: task_ids = argmax of the gate. The mixture itself is another model, as the card says."""
    run = made_prompts(member, "mop-local", 0)
    folder = export(run.results, tmp_path / "out")
    ids, instruction = batch()
    soft = run.plain()
    soft.reads(instruction)
    model = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter")
    with torch.no_grad():
        tasks = mixture_of(folder, run).gate(ids, instruction).argmax(-1)
        mixed = soft.logits(ids)[0]
        # What the gate added in front of each sequence, from its last token: log(E g) of every group's first prompt.
        assert torch.equal(tasks, soft.bias[:, 0, -1, : run.groups * M : M].argmax(-1))
        found = of_text(model(ids, task_ids=tasks).logits)
        for row, task in enumerate(tasks.tolist()):
            assert difference(found[row], run.alone(task).logits(ids[row : row + 1])[0][0]) <= 1e-4
    assert difference(found, mixed) >= 1e-3
    card = (folder / "README.md").read_text()
    assert "is an approximation" in card and "soft mixture has no form in PEFT" in card


# By the loader ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "method", "layer"),
    [
        ("gpt2", "mop-local", 0),
        ("gpt2", "mop-local", 1),
        ("gpt2", "mop-equal", 0),
        ("gpt2", "prompt-local", 1),
        ("llama", "mop-local", 0),
        ("llama", "mop-1gxs", 1),
        ("llama", "prompt-local", 1),
        ("mistral", "mop-local", 1),
        ("qwen2", "mop-local", 1),
        ("qwen3", "mop-equal", 1),
    ],
)
def test_the_loader_gives_the_user_s_model(member, method, layer, made_prompts, tmp_path):
    run = made_prompts(member, method, layer)
    folder = export(run.results, tmp_path / "out")
    assert (folder / "adapter").exists() == (layer == 0 and run.gated)
    model, plain = mixture_of(folder, run), run.plain()
    ids, instruction = batch()
    plain.reads(instruction)
    given = (instruction,) if run.gated else ()
    with torch.no_grad():
        expected, found = plain.logits(ids)[0], model(ids, *given).logits
        print(f"{member}, {method}, layer {layer}: {difference(found, expected):.1e}")
        assert difference(found, expected) <= 1e-4
        assert difference(model.model(ids).logits, expected) >= 0.05  # and the base is as it was
    response = perplexity(lambda text, count: model(text, *([count] if run.gated else [])).logits, run)
    assert response == pytest.approx(run.recorded_perplexity(), rel=1e-4)


@pytest.mark.parametrize(("member", "layer"), [("gpt2", 1), ("llama", 0)])
def test_the_gate_weighs_what_the_instruction_says(member, layer, made_prompts, tmp_path):
    run = made_prompts(member, "mop-local", layer)
    folder = export(run.results, tmp_path / "out")
    model, plain = mixture_of(folder, run), run.plain()
    ids, instruction = batch()
    plain.reads(instruction)
    with torch.no_grad():
        expected = plain._gate_logits(plain._below(ids, layer), layer).softmax(-1)
        weights = model.gate(ids, instruction)
        np.testing.assert_allclose(weights, expected, atol=1e-5)
        assert (weights - 1 / run.groups).abs().max() >= 0.01
        # Neither what follows the instruction nor padding is read.
        others = torch.where(torch.arange(CONTEXT) < instruction[:, None], ids, (ids + 1) % 97)
        torch.testing.assert_close(model.gate(others, instruction), weights)
        padded = torch.cat([ids[:, :9], torch.zeros(4, 3, dtype=torch.long)], dim=1)
        short = instruction.clamp(max=9)
        found, whole = model(padded, short).logits[:, :9], model(ids[:, :9], short).logits
        torch.testing.assert_close(found, whole)


def test_the_other_attention_gives_the_same(made_prompts, tmp_path):
    run = made_prompts("llama", "mop-1gxs", 1)
    folder = export(run.results, tmp_path / "out")
    ids, instruction = batch()
    with torch.no_grad():
        eager, fused = (
            mixture_of(folder, run, attn_implementation=name)(ids, instruction).logits
            for name in ("eager", "sdpa")
        )
    torch.testing.assert_close(eager, fused, rtol=1e-4, atol=1e-4)


def test_files_say_what_they_are(made_prompts, tmp_path):
    run = made_prompts("llama", "mop-1gxs", 1)
    folder = export(run.results, tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "gate.safetensors", "mixture.json", "prompts.safetensors",
    }  # fmt: skip
    mixture, stored = json.loads((folder / "mixture.json").read_text()), run.parameters()
    assert (mixture["format"], mixture["prompt_layer"], mixture["prompt_tokens"]) == ("comigs-prompts", 1, M)
    assert (mixture["gate"], mixture["router"], mixture["adapter"]) == (
        "sequence",
        "gate.safetensors",
        None,
    )
    assert [expert["shared"] for expert in mixture["experts"]] == [True, False, False]
    groups, gate = (
        load_file(folder / "prompts.safetensors")["prompts"],
        load_file(folder / "gate.safetensors"),
    )
    for group in range(run.groups):
        assert torch.equal(groups[group].double(), stored[f"1.expert.{group}.prompt"])
    for name in GATE:
        assert torch.equal(gate[name].double(), stored[f"1.router.{name}"].view(gate[name].shape))
    card = (folder / "README.md").read_text()
    assert "layer 1 have no form in PEFT" in card and "load_prompts" in card
    assert "lora" not in card.partition("## The run's configuration")[0].lower()


# Mistakes ---------------------------------------------------------------------------------------------------


def test_options_of_lora_are_refused(made_prompts, tmp_path, capsys):
    run = made_prompts("gpt2", "mop-local", 1)
    for option in ("--mixture", "--rslora"):
        words = (run.results, "--user", "German", "--output", tmp_path / "out", option)
        assert f"{option}: is for LoRA, and method 'mop-local' trains" in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("array", "value", "words"),
    [
        ("expert/weights/1/user_0/layer_1/expert_2/prompt", None, "is missing, the user's trained numbers"),
        (
            "expert/weights/1/user_0/layer_1/expert_1/prompt",
            np.zeros((2, 32)),
            "shapes (3, 32), (2, 32), (3, 32) (expected (3",
        ),
        ("expert/weights/1/user_0/layer_1/expert_0/prompt", np.full((3, 32), np.nan), "not finite"),
        ("router/weights/1/user_0/layer_1/output_bias", None, "is missing, the user's trained numbers"),
        ("router/weights/1/user_0/layer_1/output_weight", np.zeros((2, 8)), "(expected (3, 8))"),
    ],
)
def test_damaged_prompts(array, value, words, made_prompts, tmp_path, capsys):
    results = Path(shutil.copy(made_prompts("gpt2", "mop-local", 1).results, tmp_path))
    with h5py.File(results, "a") as file:
        del file[array]
        if value is not None:
            file[array] = value.astype(np.float32)
    assert words in refusal(capsys, results, "--user", "German")
    assert [path.name for path in tmp_path.iterdir()] == ["results.h5"]


def test_the_loader_says_what_it_cannot_do(made_prompts, tmp_path):
    run = made_prompts("gpt2", "mop-local", 1)
    folder = export(run.results, tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(run.base)
    with pytest.raises(ValueError, match="expected comigs-mixture, version 1"):
        load_mixture(folder, base)
    with pytest.raises(ValueError, match="must know its length"):
        load_prompts(folder, base)(batch()[0])
    base.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="takes no additive mask"):
        load_prompts(folder, base)
    (folder / "mixture.json").write_text('{"format": "comigs-mixture", "format_version": 1}')
    with pytest.raises(ValueError, match="expected comigs-prompts, version 1"):
        load_prompts(folder, base)
