"""A user's exported mixture on a model of transformers, by peft's own layers: of any family, GPT-2 too.

model = load_mixture("export-dutch", AutoModelForCausalLM.from_pretrained("models/gpt2"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from analysis.export.base import FAMILIES
from analysis.export.folder import FORMAT, FORMAT_VERSION, MIXTURE
from console.small_files import json_of


def load_mixture(folder: str | Path, model: nn.Module) -> PeftModel:
    """`model`: the base, from transformers; its MLPs are replaced. Raises ValueError where the folder holds no
    mixture of this version."""
    folder = Path(folder)
    mixture = json_of(folder / MIXTURE)
    if (mixture.get("format"), mixture.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"{folder / MIXTURE}: expected {FORMAT}, version {FORMAT_VERSION}")
    names = [expert["folder"] for expert in mixture["experts"]]
    mixed = PeftModel.from_pretrained(model, folder / names[0], adapter_name=names[0])
    for name in names[1:]:
        mixed.load_adapter(folder / name, adapter_name=name)
    mixed.set_adapter(names[0])  # attention's LoRA is the same in all
    routers = load_file(folder / mixture["router"]) if mixture["router"] else {}
    blocks = mixed.base_model.model.get_submodule(FAMILIES[mixture["base"]["model_type"]].layers)
    for layer, block in enumerate(blocks):
        router = routers.get(f"layers.{layer}.router.weight")
        block.mlp = MixtureMlp(block.mlp, names, router, mixture["top_k"])
    return mixed.eval()


class MixtureMlp(nn.Module):
    """sum_e g_e MLP_e(x), where MLP_e is the frozen block with the adapter of expert e. `router` [E, C], None where
    all weights are 1/E."""

    def __init__(self, mlp: nn.Module, names: Sequence[str], router: Tensor | None, top_k: int) -> None:
        super().__init__()
        self.mlp, self.names, self.top_k = mlp, names, top_k
        self.register_buffer("router", router)
        self._adapted = [module for module in mlp.modules() if isinstance(module, BaseTunerLayer)]

    def gate(self, x: Tensor) -> Tensor:
        """[..., E], float32: softmax over the k largest logits; for k = 1 the probability of that one."""
        if self.router is None:
            return x.new_full((*x.shape[:-1], len(self.names)), 1 / len(self.names), dtype=torch.float32)
        logits = x.float() @ self.router.to(x.device).T
        chosen = logits.topk(self.top_k, dim=-1).indices
        gate = torch.zeros_like(logits).scatter(-1, chosen, logits.softmax(-1).gather(-1, chosen))
        return gate if self.top_k == 1 else gate / gate.sum(-1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x).to(x.dtype)
        outputs = []
        for expert, name in enumerate(self.names):
            for module in self._adapted:
                module.set_adapter(name, inference_mode=True)
            outputs.append(gate[..., expert : expert + 1] * self.mlp(x))
        return torch.stack(outputs).sum(0)
