"""Finished runs that train soft prompts, made once, and what their user's model is by plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.llamas import llama_folder
from tests.helpers.plain_model import Setting, frozen_weights
from tests.helpers.plain_prompts import GATE, PromptedGpt2, PromptedLlama
from tests.helpers.tiny import alone, cut_into_examples, data_set, examples_of, gpt2_folder

M, CONTEXT, ROUNDS = 3, 12, 1
OPTIONS = ["--prompt-tokens", M, "--context-tokens", CONTEXT, "--rounds", ROUNDS, "--seed", 3]
OPTIONS += ["--local-steps", 6, "--batch-sequences", 4, "--router-every", 2, "--router-steps", 4]
# Large steps, so that groups and gate matter.
OPTIONS += ["--expert-learning-rate", 0.2, "--router-learning-rate", 0.1]
GROUPS = {"prompt-local": 1, "mop-equal": 3, "mop-local": 3, "mop-1gxs": 3}


@dataclass(frozen=True)
class MadePrompts:
    base: Path
    data: Path
    results: Path
    layer: int
    groups: int
    gated: bool

    def parameters(self) -> dict[str, Tensor]:
        """The user's numbers in results.h5, named as in a trace, in float64."""
        place = f"weights/{ROUNDS}/user_0/layer_{self.layer}"
        names = {f"expert.{e}.prompt": f"expert/{place}/expert_{e}/prompt" for e in range(self.groups)} | {
            f"router.{name}": f"router/{place}/{name}" for name in GATE if self.gated
        }
        with h5py.File(self.results) as file:
            return {
                f"{self.layer}.{name}": torch.from_numpy(file[where][()]).double()
                for name, where in names.items()
            }

    def plain(self, change: Callable[[dict[str, Tensor]], object] = dict) -> PromptedGpt2 | PromptedLlama:
        """The model in float64; `change` may alter its numbers before."""
        parameters = self.parameters()
        change(parameters)
        groups = sum(".expert." in name for name in parameters)
        setting = Setting(groups, 1.0, routed=False)
        if "GPT2" in (self.base / "config.json").read_text():
            return PromptedGpt2(frozen_weights(self.base), parameters, setting)
        weights = load_file(self.base / "model.safetensors")
        doubles = {name: weight.double() for name, weight in weights.items()}
        return PromptedLlama(self.base, doubles, parameters, setting)

    def alone(self, group: int) -> PromptedGpt2 | PromptedLlama:
        """With that group as the only one."""

        def keep(parameters: dict[str, Tensor]) -> None:
            kept = parameters[f"{self.layer}.expert.{group}.prompt"]
            parameters.clear()
            parameters[f"{self.layer}.expert.0.prompt"] = kept

        return self.plain(keep)

    def recorded_perplexity(self) -> float:
        with h5py.File(self.results) as file:
            return float(file["perplexity/test"][-1, 0])


@pytest.fixture(scope="module")
def made_prompts(tmp_path_factory) -> Callable[..., MadePrompts]:
    """made_prompts(member, method, layer): a run of one user on examples, made once; not to be written to."""

    @cache
    def run(member: str, method: str, layer: int) -> MadePrompts:
        folder = tmp_path_factory.mktemp("prompts")
        base = gpt2_folder(folder / "base") if member == "gpt2" else llama_folder(folder / "base", member)
        data = cut_into_examples(data_set(folder / "data", users=["German"]), CONTEXT + 1)
        options = [*OPTIONS, "--method", method, "--prompt-layer", layer]
        gated = method not in ("prompt-local", "mop-equal")
        if method != "prompt-local":
            options += ["--experts", GROUPS[method]]
        if gated:
            options += ["--gate-width", 8]
        if method == "mop-local":  # a warm-up takes a group for each category
            options += ["--gate-warmup-rounds", 0]
        options += ["--data", data, "--model", base, "--output", folder / "run"]
        done = alone("train", *options, "--device", "cpu", "--threads", 1)
        assert done.code == 0, done.errors
        return MadePrompts(base, data, folder / "run" / "results.h5", layer, GROUPS[method], gated)

    return run


def batch() -> tuple[Tensor, Tensor]:
    """Tokens [4, CONTEXT], and how many of each sequence are its instruction."""
    ids = torch.randint(0, 97, (4, CONTEXT), generator=torch.Generator().manual_seed(2))
    return ids, torch.tensor([2, 5, 12, 1])


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest, relative to the largest number."""
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
def perplexity(logits_of: Callable[[Tensor, Tensor], Tensor], run: MadePrompts) -> float:
    """Of the user's test split, over the tokens of the responses."""
    nats, count = 0.0, 0
    for instruction, response in examples_of(run.data, 0, "test"):
        text = torch.tensor([instruction + response])
        logits = logits_of(text[:, :-1], torch.tensor([len(instruction)]))[0, -len(response) :].double()
        nats -= logits.log_softmax(-1).gather(-1, text[0, -len(response) :, None]).sum().item()
        count += len(response)
    return math.exp(nats / count)
