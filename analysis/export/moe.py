"""The mixtures of experts that transformers has, and which of them computes what a user's mixture does.

Each is a softmax over the router's logits, the k largest of it, over MLPs with gated activations, as in comigs, and
its router sees what the MLPs see. Equal weights are a router of zeros with k = E.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.export.base import Base
from analysis.export.trained import TrainedUser
from analysis.read.results import ResultsError

Settings = dict[str, Any]
# Qwen2-MoE sends every token to one expert more. Here that is zeros, so wide that devices can share it out.
SHARED_WIDTH = 64
SHARED_EXPERT, SHARED_GATE = "mlp.shared_expert", "mlp.shared_expert_gate.weight"


@dataclass(frozen=True)
class MoeKind:
    """`block`, `projections`: what its files call the MLP and an expert's projections; `settings`: what its
    config.json says beside the base's, for E experts, top-k and the base; `renormalises`: always the weights of
    those chosen; `holds_biases`: of attention."""

    model_type: str
    class_name: str
    block: str
    projections: Mapping[str, str]
    settings: Callable[[int, int, Base], Settings]
    renormalises: bool = False
    holds_biases: bool = True
    has_shared_expert: bool = False


def _mixtral(experts: int, top_k: int, base: Base) -> Settings:
    return {"num_local_experts": experts, "num_experts_per_tok": top_k, "sliding_window": None}


def _qwen(experts: int, top_k: int, base: Base) -> Settings:
    return {
        "num_experts": experts,
        "num_experts_per_tok": top_k,
        "norm_topk_prob": top_k > 1,
        "moe_intermediate_size": base.setting("intermediate_size"),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    }


def _qwen2(experts: int, top_k: int, base: Base) -> Settings:
    shared = {"qkv_bias": True, "shared_expert_intermediate_size": SHARED_WIDTH}
    return _qwen(experts, top_k, base) | shared


_MIXTRAL = MoeKind(
    "mixtral",
    "MixtralForCausalLM",
    "block_sparse_moe",
    {"gate": "w1", "up": "w3", "down": "w2"},
    _mixtral,
    renormalises=True,
    holds_biases=False,
)
_AS_IN_BASE = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
_KINDS = {
    "llama": _MIXTRAL,
    "mistral": _MIXTRAL,
    "qwen2": MoeKind("qwen2_moe", "Qwen2MoeForCausalLM", "mlp", _AS_IN_BASE, _qwen2, has_shared_expert=True),
    "qwen3": MoeKind("qwen3_moe", "Qwen3MoeForCausalLM", "mlp", _AS_IN_BASE, _qwen),
}


def moe_kind(base: Base, user: TrainedUser) -> MoeKind:
    """Raises ResultsError, with what to do instead, where none computes what the user's mixture does."""
    kind = _KINDS.get(base.kind)
    instead = "; export without --mixture writes PEFT adapters, which analysis.export.loader puts together"
    if len(user.experts) == 1:
        raise ResultsError("--mixture: the user has one expert; without --mixture it is one PEFT adapter")
    if kind is None:
        raise ResultsError(f"--mixture: transformers has no mixture of {base.kind}'s blocks{instead}")
    if base.config.get("mlp_bias") or (base.config.get("attention_bias") and not kind.holds_biases):
        raise ResultsError(f"--mixture: the base has biases that {kind.class_name} cannot hold{instead}")
    if user.gate == "top-k" and user.top_k == 1 and kind.renormalises:
        raise ResultsError(
            f"--mixture: with top_k = 1 an expert is weighted with its probability, in {kind.class_name} with "
            f"1{instead}"
        )
    return kind


def moe_config(kind: MoeKind, base: Base, user: TrainedUser) -> Settings:
    """Its config.json, but for what the base's says of tokens and types."""
    top_k = user.top_k if user.gate == "top-k" else len(user.experts)
    shared = {name: value for name, value in base.config.items() if name != "mlp_bias"}
    return (
        shared
        | {"architectures": [kind.class_name], "model_type": kind.model_type}
        | kind.settings(len(user.experts), top_k, base)
    )
