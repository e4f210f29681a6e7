"""Soft prompts: what a user of a finished run ended with, and it as files: those of PEFT where PEFT has such a model,
else tensors that analysis.export.prompt_loader puts together.

Names of adapters are those of peft 0.21 (`PromptTuningConfig`, `MultitaskPromptTuningConfig`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from analysis.export.adapters import FILES
from analysis.export.base import Base
from analysis.export.card import Described
from analysis.export.packages import needed
from analysis.export.trained import stored_array, trained_experts
from analysis.read.results import ResultsError, reading
from analysis.read.run import ExpertKind, Run

FORMAT, FORMAT_VERSION = "comigs-prompts", 1
MIXTURE, PROMPTS, GATE = "mixture.json", "prompts.safetensors", "gate.safetensors"
ADAPTER = "adapter"
GATE_TENSORS = ("hidden_weight", "hidden_bias", "output_weight", "output_bias")

_OPEN_ONE = """from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("adapter")"""
_OPEN_MIXTURE = """from transformers import AutoModelForCausalLM
from analysis.export.prompt_loader import load_prompts  # of comigs

model = load_prompts(".", AutoModelForCausalLM.from_pretrained(BASE))
# instruction_tokens: how many tokens of each sequence, from the first on, are its instruction; only a gate needs them
logits = model(input_ids, instruction_tokens).logits"""
_OPEN_TASKS = """
# One group a sequence, an approximation:
from peft import AutoPeftModelForCausalLM

task_ids = model.gate(input_ids, instruction_tokens).argmax(-1)
logits = AutoPeftModelForCausalLM.from_pretrained("adapter")(input_ids, task_ids=task_ids).logits"""


@dataclass(frozen=True)
class TrainedPrompts:
    """`groups` [E, m, C] stand in front of the text from `layer` on; `gate`: its tensors by GATE_TENSORS, none where
    all groups weigh the same."""

    name: str
    kinds: list[ExpertKind]
    layer: int
    groups: np.ndarray
    gate: dict[str, np.ndarray]

    @property
    def is_prompt_tuning(self) -> bool:
        return self.layer == 0 and len(self.groups) == 1

    @property
    def has_tasks(self) -> bool:
        """Whether PEFT has a model of each group alone and the gate says which one a sequence is to take."""
        return self.layer == 0 and bool(self.gate)


def read_prompts(run: Run, name: str) -> TrainedPrompts:
    """Raises ResultsError as `trained_experts`, and where something is missing or of another shape."""
    kinds = trained_experts(run, name)
    with reading(run.path) as file:
        given = run["users"].sel(user=name)
        layer, tokens = int(given["prompt_layer"]), int(given["prompt_tokens"])
        place = f"weights/{run.rounds.max()}/user_{run.users.index(name)}/layer_{layer}"
        groups = [_array(run, file, f"expert/{place}/expert_{expert}/prompt") for expert in range(len(kinds))]
        gate = {}
        if f"router/{place}" in file:
            gate = {tensor: _array(run, file, f"router/{place}/{tensor}") for tensor in GATE_TENSORS}
    width = groups[0].shape[-1] if groups[0].ndim else 0
    if any(group.shape != (tokens, width) for group in groups):
        shapes = ", ".join(str(group.shape) for group in groups)
        raise ResultsError(
            f"{run.path}: 'expert/{place}' has groups of the shapes {shapes} (expected ({tokens}, width))"
        )
    gate |= {tensor: value.reshape(-1) for tensor, value in gate.items() if tensor.endswith("bias")}
    _check_gate(run, f"router/{place}", gate, len(groups), width)
    return TrainedPrompts(name, kinds, layer, np.stack(groups), gate)


def _array(run: Run, file: h5py.File, place: str) -> np.ndarray:
    if place not in file:
        raise ResultsError(f"{run.path}: '{place}' is missing, the user's trained numbers")
    return stored_array(run, file, place)


def _check_gate(run: Run, place: str, gate: dict[str, np.ndarray], groups: int, width: int) -> None:
    if not gate:
        return
    hidden = gate["hidden_bias"].size
    expected = dict(zip(GATE_TENSORS, ((hidden, width), (hidden,), (groups, hidden), (groups,))))
    for tensor, shape in expected.items():
        if gate[tensor].shape != shape:
            raise ResultsError(
                f"{run.path}: '{place}/{tensor}' has the shape {gate[tensor].shape} (expected {shape})"
            )


def write_prompts(folder: Path, run: Run, user: TrainedPrompts, base: Base) -> Described:
    """Returns what the card is to say."""
    contents, opened = dict[str, str](), _OPEN_ONE
    if user.is_prompt_tuning:
        _write_adapter(folder / ADAPTER, "PROMPT_TUNING", {}, {"prompt_embeddings": user.groups[0]}, base)
        contents[ADAPTER] = "PEFT adapter: prompt tuning"
    else:
        contents, opened = _write_parts(folder, run, user, base), _OPEN_MIXTURE
    if user.has_tasks:
        _write_tasks(folder / ADAPTER, user, base)
        contents[ADAPTER] = (
            "PEFT adapter: multitask prompt tuning, a task for each group (hard routing, an approximation)"
        )
        opened += _OPEN_TASKS
    facts = {"Groups of prompts": f"{len(user.groups)}, of {user.groups.shape[1]} tokens each"}
    facts["In front of the text"] = f"from layer {user.layer} on"
    return Described(user.name, ("soft-prompts",), facts, contents, opened, _form(user))


def _form(user: TrainedPrompts) -> str:
    """What stands here for the user's model, and what does not."""
    if user.is_prompt_tuning:
        return "One group of soft prompts in front of the input: prompt tuning as PEFT has it, exactly the user's model."
    whole = "the loader below gives exactly the user's model."
    if user.layer > 0:
        return (
            f"Soft prompts that enter the model at layer {user.layer} have no form in PEFT (its prefix tuning has a "
            f"prefix in every layer); {whole}"
        )
    if not user.gate:
        return f"Several groups of soft prompts side by side have no form in PEFT; {whole}"
    return (
        "A gate weighs all groups of soft prompts for each sequence. Such a soft mixture has no form in PEFT; "
        f"{whole} `{ADAPTER}` has each group as a task: with `task_ids`, the group of the largest weight, each "
        "sequence sees that group alone (hard routing), which is an approximation: other groups are left out, and in "
        f"the mixture a group of weight 1 counts {len(user.groups)} times in attention, alone once."
    )


def _write_tasks(folder: Path, user: TrainedPrompts, base: Base) -> None:
    """PEFT multiplies shared embeddings with columns times rows of a task: ones, the identity, and the group."""
    groups, tokens, width = user.groups.shape
    tensors = {
        "prompt_embeddings": np.ones((tokens, width), np.float32),
        "prefix_task_cols": np.tile(np.eye(tokens, dtype=np.float32), (groups, 1, 1)),
        "prefix_task_rows": user.groups,
    }
    settings = {"num_tasks": groups, "num_ranks": tokens}
    _write_adapter(folder, "MULTITASK_PROMPT_TUNING", settings, tensors, base)


def _write_adapter(
    folder: Path, kind: str, settings: dict[str, int], tensors: dict[str, np.ndarray], base: Base
) -> None:
    tokens, width = tensors["prompt_embeddings"].shape
    config = {
        "peft_type": kind,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.folder),
        "num_virtual_tokens": tokens,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "prompt_tuning_init": "RANDOM",
        "inference_mode": True,
    }
    save = needed("safetensors.numpy", "export").save
    folder.mkdir()
    written = (
        json.dumps(config | settings, indent=2).encode() + b"\n",
        save(tensors, metadata={"format": "pt"}),
    )
    for name, data in zip(FILES, written):
        (folder / name).write_bytes(data)


def _write_parts(folder: Path, run: Run, user: TrainedPrompts, base: Base) -> dict[str, str]:
    """Groups, gate and mixture.json; what each is, in words."""
    save = needed("safetensors.numpy", "export").save
    (folder / PROMPTS).write_bytes(save({"prompts": user.groups}))
    contents = {PROMPTS: "the groups [group, token, width]"}
    if user.gate:
        (folder / GATE).write_bytes(save(user.gate))
        contents[GATE] = "the gate: two linear layers, GELU (tanh) between them"
    text = json.dumps(_description(run, user, base), indent=2, ensure_ascii=False)
    (folder / MIXTURE).write_text(text + "\n", encoding="utf-8")
    return contents | {MIXTURE: "what they make together"}


def _description(run: Run, user: TrainedPrompts, base: Base) -> dict[str, object]:
    """mixture.json, as docs/export.md has it."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "user": user.name,
        "method": run.method,
        "base": base.identity,
        "prompt_layer": user.layer,
        "prompt_tokens": user.groups.shape[1],
        "prompts": PROMPTS,
        "gate": "sequence" if user.gate else "equal",
        "router": GATE if user.gate else None,
        "adapter": ADAPTER if user.has_tasks else None,
        "experts": [{"shared": kind.role == "generalist", "number": kind.number} for kind in user.kinds],
    }
