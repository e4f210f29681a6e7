"""A user's exported soft prompts on a model of transformers: in front of any layer, weighed by their gate.

model = load_prompts("export-dutch", AutoModelForCausalLM.from_pretrained("models/gpt2"))
logits = model(input_ids, instruction_tokens).logits

A reference: plain to read, every sequence runs all prompts once more, and nothing is cached for generation.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from analysis.export.base import FAMILIES
from analysis.export.prompts import FORMAT, FORMAT_VERSION, MIXTURE
from console.small_files import json_of


def load_prompts(folder: str | Path, model: nn.Module) -> PromptMixture:
    """`model`: the base, from transformers; it is not changed. Raises ValueError where the folder holds no soft prompts
    of this version, or the model's attention takes no additive mask."""
    folder = Path(folder)
    mixture = json_of(folder / MIXTURE)
    if (mixture.get("format"), mixture.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"{folder / MIXTURE}: expected {FORMAT}, version {FORMAT_VERSION}")
    attention = model.config._attn_implementation
    if attention not in ("eager", "sdpa"):
        raise ValueError(
            f"attention '{attention}' takes no additive mask; load the base with 'sdpa' or 'eager'"
        )
    groups = load_file(folder / mixture["prompts"])["prompts"]
    gate = Gate(load_file(folder / mixture["router"])) if mixture["router"] else None
    blocks = FAMILIES[mixture["base"]["model_type"]].layers
    return PromptMixture(model, blocks, mixture["prompt_layer"], groups, gate).eval()


class Gate(nn.Module):
    """From the stream that enters the prompts' layer to the logarithm of each group's weight in each sequence."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor, instruction_tokens: Tensor) -> Tensor:
        """x [B, T, C] -> [B, E], float32. Of each sequence the leading tokens, its instruction, are read."""
        count = instruction_tokens.to(x.device).unsqueeze(1)
        is_read = torch.arange(x.shape[1], device=x.device) < count
        mean = (x.float() * is_read.unsqueeze(-1)).sum(1) / count
        feature = functional.layer_norm(mean, mean.shape[-1:])
        hidden = functional.linear(feature, self.hidden_weight, self.hidden_bias)
        inner = functional.gelu(hidden, approximate="tanh")
        return functional.linear(inner, self.output_weight, self.output_bias).log_softmax(-1)


class PromptMixture(nn.Module):
    """The model with `groups` [E, m, C] in front of the text from layer `first` on. `blocks`: where in the model its
    layers are."""

    def __init__(self, model: nn.Module, blocks: str, first: int, groups: Tensor, gate: Gate | None) -> None:
        super().__init__()
        self.model, self.blocks, self.first, self.log_gate = model, blocks, first, gate
        self.register_buffer("groups", groups)
        self.to(next(model.parameters()).device)

    def forward(self, input_ids: Tensor, instruction_tokens: Tensor | None = None) -> Any:
        """What the model returns, of the text alone. input_ids [B, T], padded on the right where at all;
        `instruction_tokens` [B], for the gate: how many of them, from the first on, are the instruction."""
        with self._run(instruction_tokens) as run:
            return run.through(input_ids)

    def gate(self, input_ids: Tensor, instruction_tokens: Tensor) -> Tensor:
        """[B, E], the groups' weights in each sequence; the largest is the task of PEFT's multitask prompt tuning."""
        if self.log_gate is None:
            return input_ids.new_full(
                (len(input_ids), len(self.groups)), 1 / len(self.groups), dtype=torch.float32
            )
        with self._run(instruction_tokens) as run:
            run.through(input_ids)
        return run.log_gate.exp()

    @contextmanager
    def _run(self, instruction_tokens: Tensor | None) -> Iterator[_Run]:
        if self.log_gate is not None and instruction_tokens is None:
            raise ValueError(
                "instruction_tokens: the gate reads the instruction alone, so it must know its length"
            )
        run = _Run(self, instruction_tokens)
        above = self.model.get_submodule(self.blocks)[self.first :]
        with ExitStack() as hooks:
            for block in above:
                hooks.enter_context(block.register_forward_pre_hook(run.before, with_kwargs=True))
            hooks.enter_context(above[0].register_forward_pre_hook(run.enter, with_kwargs=True, prepend=True))
            hooks.enter_context(above[-1].register_forward_hook(run.leave))
            yield run


class _Run:
    """One pass of a batch. From the first layer on the stream is [prompts of all groups | text], with a mask that says
    who sees whom and what the gate adds."""

    log_gate: Tensor
    mask: Tensor
    angles: tuple[Tensor, Tensor] | None

    def __init__(self, mixture: PromptMixture, instruction_tokens: Tensor | None) -> None:
        self._mixture, self._instruction_tokens = mixture, instruction_tokens
        self._groups, self._tokens, _ = mixture.groups.shape
        self._decoder = mixture.model.get_submodule(mixture.blocks.rpartition(".")[0])

    @property
    def _in_front(self) -> int:
        return self._groups * self._tokens

    def through(self, input_ids: Tensor) -> Any:
        shift = self._tokens if self._mixture.first == 0 else 0
        positions = torch.arange(input_ids.shape[1], device=input_ids.device) + shift
        return self._mixture.model(input_ids, position_ids=positions.unsqueeze(0), use_cache=False)

    def enter(self, block: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        call = inspect.signature(block.forward).bind(*args, **kwargs)
        text = call.arguments["hidden_states"]
        prompts = self._placed().to(text.dtype).flatten(0, 1).expand(len(text), -1, -1)
        self.mask = self._mask(text)
        call.arguments["hidden_states"] = torch.cat([prompts, text], dim=1)
        own = torch.arange(self._tokens, device=text.device).repeat(self._groups)
        behind = self._tokens + torch.arange(text.shape[1], device=text.device)
        rotary = getattr(self._decoder, "rotary_emb", None)
        self.angles = rotary(text, torch.cat([own, behind]).unsqueeze(0)) if rotary else None
        return call.args, call.kwargs

    def before(self, block: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        call = inspect.signature(block.forward).bind(*args, **kwargs)
        call.arguments["attention_mask"] = self.mask
        if self.angles is not None:
            call.arguments["position_embeddings"] = self.angles
        return call.args, call.kwargs

    def leave(self, block: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return output[:, self._in_front :]

    def _placed(self) -> Tensor:
        """Learnt positions are added where the text gets them, in front of layer 0."""
        learnt = getattr(self._decoder, "wpe", None)
        if self._mixture.first > 0 or learnt is None:
            return self._mixture.groups
        return self._mixture.groups + learnt.weight[: self._tokens]

    def _mask(self, text: Tensor) -> Tensor:
        """[B, 1, P + T, P + T], added to logits of attention: a prompt sees its own group up to itself, the text all
        prompts and itself so far."""
        P, size = self._in_front, self._in_front + text.shape[1]
        sees = torch.ones(size, size, dtype=torch.bool, device=text.device).tril()
        alone = torch.ones(self._tokens, self._tokens, dtype=torch.bool, device=text.device)
        sees[:P, :P] &= torch.block_diag(*[alone] * self._groups)
        mask = torch.zeros(len(text), 1, size, size, device=text.device)
        mask[:, :, P:, :P] = self._bias(text).repeat_interleave(self._tokens, dim=1)[:, None, None]
        return mask.masked_fill(~sees, -math.inf).to(text.dtype)

    def _bias(self, text: Tensor) -> Tensor:
        """[B, E]: log(E g), so that attention paid to a group is in proportion to its weight."""
        if self._mixture.log_gate is None or self._instruction_tokens is None:
            return text.new_zeros(len(text), self._groups, dtype=torch.float32)
        self.log_gate = self._mixture.log_gate(text, self._instruction_tokens)
        return self.log_gate + math.log(self._groups)
