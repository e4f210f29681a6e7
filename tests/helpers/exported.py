"""Finished runs to be exported, made once, and what their users' models are by plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from analysis.cli import main
from analysis.export.loader import load_mixture
from tests.helpers.llamas import PlainLlama, llama_folder
from tests.helpers.plain_model import PlainModel, Setting, frozen_weights, windows
from tests.helpers.routed import stored_parameters
from tests.helpers.tiny import alone, data_set, gpt2_folder, tokens_of, train

RANK, ALPHA, CONTEXT, ROUNDS = 8, 6.0, 12, 1
OPTIONS = ["--lora-rank", RANK, "--lora-alpha", ALPHA, "--context-tokens", CONTEXT]
OPTIONS += ["--local-steps", 4, "--batch-sequences", 2, "--router-every", 2, "--router-steps", 4]
# Large steps, so that a forgotten factor shows.
OPTIONS += ["--expert-learning-rate", 0.02, "--router-learning-rate", 0.05]


@dataclass(frozen=True)
class Made:
    """A finished run, and what its users have."""

    base: Path
    data: Path
    results: Path
    experts: int
    top_k: int
    routed: bool

    def plain(self, user: int = 0, change: Callable[[dict[str, Tensor]], object] = dict) -> PlainModel:
        """The user's model in float64 from results.h5; `change` may alter its numbers before."""
        parameters = stored_parameters(self.results, ROUNDS, user)
        change(parameters)
        held = {name.split(".expert.")[1].split(".")[0] for name in parameters if ".expert." in name}
        attention = next(
            value for name, value in parameters.items() if ".expert." not in name and name.endswith(".A")
        )
        setting = Setting(
            len(held), ALPHA / math.sqrt(RANK), self.top_k, self.routed,
            attention_scale=ALPHA / math.sqrt(len(attention)),
        )  # fmt: skip
        if (self.base / "config.json").read_text().find("GPT2") >= 0:
            return PlainModel(frozen_weights(self.base), parameters, setting)
        weights = {name: value.double() for name, value in load_file(self.base / "model.safetensors").items()}
        return PlainLlama(self.base, weights, parameters, setting)


METHODS = {
    "comigs-1gxs": ("--experts", 3),
    "comigs-1gxs, top 1": ("--experts", 3, "--top-k", 1),
    "fedavg": ("--experts", 3),
    "ffa-lora": ("--experts", 1),
    "comigs-1gxs, attention": ("--experts", 2, "--attention-rank", 3),
    "fedavg, attention": ("--experts", 1, "--attention-rank", 12),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[..., Made]:
    """made(member, method): a run of one user, made once; not to be written to."""

    @cache
    def run(member: str, method: str = "comigs-1gxs", users: int = 1) -> Made:
        folder = tmp_path_factory.mktemp("export")
        base = gpt2_folder(folder / "base") if member == "gpt2" else llama_folder(folder / "base", member)
        data = data_set(folder / "data", users=["German", "日本 語/x"][:users])
        options = [*METHODS[method], "--method", method.partition(",")[0], "--rounds", ROUNDS, *OPTIONS]
        options += ["--data", data, "--model", base, "--output", folder / "run"]
        if users > 1:
            train(*options, ranks=users)
        else:
            done = alone("train", *options, "--device", "cpu", "--threads", 1)
            assert done.code == 0, done.errors
        experts = int(METHODS[method][1])
        top_k = 1 if "top 1" in method else 2
        return Made(base, data, folder / "run" / "results.h5", experts, top_k, method.startswith("comigs"))

    return run


def export(results: Path, output: Path, *options: object, user: str = "German") -> Path:
    words = ["export", results, "--user", user, "--output", output, *options]
    assert main([str(word) for word in words]) == 0
    return output


def tokens() -> Tensor:
    return torch.randint(0, 97, (3, CONTEXT), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def distance(model: torch.nn.Module, reference: PlainModel) -> float:
    """The largest difference of logits, relative to the largest of them."""
    expected = reference.logits(tokens())[0]
    return ((model(tokens()).logits.double() - expected).abs().max() / expected.abs().max()).item()


def opened(folder: Path, run: Made) -> torch.nn.Module:
    return load_mixture(folder, AutoModelForCausalLM.from_pretrained(run.base))


@torch.no_grad()
def perplexity(model: torch.nn.Module, run: Made, user: int) -> float:
    """Of the user's test split, in windows as comigs evaluates it."""
    text = torch.from_numpy(tokens_of(run.data, user, "test"))
    nats = 0.0
    for inputs, targets in windows(text, CONTEXT):
        logits = model(inputs.unsqueeze(0)).logits[0].double()
        nats -= logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).sum().item()
    return math.exp(nats / (len(text) - 1))


def drop(beginning: str) -> Callable[[dict[str, Tensor]], None]:
    """Zeroes all B whose name has it."""

    def change(parameters: dict[str, Tensor]) -> None:
        for name in parameters:
            if beginning in name and name.endswith(".B"):
                parameters[name] = 0 * parameters[name]

    return change


def keep(expert: int) -> Callable[[dict[str, Tensor]], None]:
    """Leaves one expert, as the only one."""

    def change(parameters: dict[str, Tensor]) -> None:
        for name in [name for name in parameters if ".expert." in name]:
            value = parameters.pop(name)
            if f".expert.{expert}." in name:
                kept[name.replace(f".expert.{expert}.", ".expert.0.")] = value
        parameters |= kept

    kept: dict[str, Tensor] = {}
    return change


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What an export that is refused says, in one line."""
    capsys.readouterr()
    assert main(["export", *map(str, words)]) == 2
    found = capsys.readouterr()
    assert found.out == "" and found.err.startswith("error: ") and found.err.count("\n") == 1
    return found.err
