"""Federated fine-tuning as it is simulated in PyTorch today: users trained in turn in one process, each with
its own copy of the model, all threads for whoever is at work.

python -m tests.bench.simulator RESULTS --threads N

does what the comigs-1g1s run in RESULTS (results.h5) did, on random batches of its own: the same data, base,
sizes, steps, schedule and evaluations. Prints the users' last perplexities by split.
"""

from __future__ import annotations

import argparse
import configparser
import json
import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from .plain import Sizes, is_shared
from .plain_gpt2 import PlainGpt2

EVALUATION_SEQUENCES = 32  # as many windows at a time as comigs takes


class User:
    """Its text, its model and the state of its two optimisers."""

    def __init__(self, splits: dict[str, Tensor], model: PlainGpt2, job: Job) -> None:
        self.splits, self.model, self.job = splits, model, job
        betas = (job.number("optimiser", "beta1"), job.number("optimiser", "beta2"))
        settings = {
            "betas": betas,
            "eps": job.number("optimiser", "epsilon"),
            "weight_decay": job.number("optimiser", "weight_decay"),
            "fused": True,
        }
        self.optimisers = {
            phase: torch.optim.AdamW(model.trained(phase).values(), lr=job.rate(phase), **settings)
            for phase in ("experts", "routers")
        }

    def batch(self, split: str) -> tuple[Tensor, Tensor]:
        """Windows that begin anywhere in the split, and the tokens that follow."""
        text, context = self.splits[split], self.job.context
        starts = torch.randint(len(text) - context, (self.job.batch_sequences, 1))
        windows = text[starts + torch.arange(context + 1)]
        return windows[:, :-1], windows[:, 1:]

    def step(self, phase: str, rate: float) -> None:
        optimiser = self.optimisers[phase]
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        losses = self.model.losses(*self.batch("train" if phase == "experts" else "validation"))
        self.model.total(*losses).backward()
        optimiser.step()

    def train_round(self, iteration: int) -> None:
        """Expert steps from number `iteration` of the run on, and router steps where they are due."""
        job = self.job
        self.model.trained("experts")
        for step in range(iteration, iteration + job.local_steps):
            self.step("experts", job.scheduled_rate(step))
            if (step + 1) % job.router_every == 0:
                self.model.trained("routers")
                for _ in range(job.router_steps):
                    self.step("routers", job.rate("routers"))
                self.model.trained("experts")

    @torch.no_grad()
    def perplexity(self, split: str, tokens: int = 0) -> float:
        """Each of the split's leading tokens but the first predicted once, in windows that do not overlap."""
        text, context = self.splits[split], self.job.context
        text = text[: tokens or len(text)]
        padding = -(len(text) - 1) % context
        inputs = torch.cat([text[:-1], text.new_zeros(padding)]).view(-1, context)
        targets = torch.cat([text[1:], text.new_full((padding,), -1)]).view(-1, context)
        nats = 0.0
        for rows, expected in zip(
            inputs.split(EVALUATION_SEQUENCES), targets.split(EVALUATION_SEQUENCES), strict=True
        ):
            nats += self.model.losses(rows, expected)[0].item() * int((expected >= 0).sum())
        return math.exp(nats / (len(text) - 1))


class Job:
    """The configuration that a run of comigs has written into its results."""

    def __init__(self, results: Path) -> None:
        with h5py.File(results) as file:
            self.configuration = configparser.ConfigParser()
            self.configuration.read_string(file.attrs["configuration"])
        self.rounds = int(self.number("run", "rounds"))
        self.evaluate_every = int(self.number("run", "evaluate_every"))
        if self.configuration["run"]["train_evaluation_tokens"] == "auto":
            raise SystemExit("simulator: expected a run with --train-evaluation-tokens")
        self.train_evaluation_tokens = int(self.number("run", "train_evaluation_tokens"))
        self.router_every = int(self.number("method", "router_every"))
        self.router_steps = int(self.number("method", "router_steps"))
        self.local_steps = int(self.number("user", "local_steps"))
        self.batch_sequences = int(self.number("user", "batch_sequences"))
        self.context = int(self.number("user", "context_tokens"))
        self.data = Path(self.configuration["data"]["folder"])
        self.base = Path(self.configuration["model"]["folder"])

    def number(self, section: str, name: str) -> float:
        return float(self.configuration[section][name])

    def rate(self, phase: str) -> float:
        """The peak of the experts' learning rate, or the routers' constant one."""
        return self.number("user", "expert_learning_rate" if phase == "experts" else "router_learning_rate")

    def scheduled_rate(self, step: int) -> float:
        """The cosine from the peak to its final fraction over all expert steps of the run."""
        final = self.number("optimiser", "final_fraction")
        height = (1 + math.cos(math.pi * step / max(self.rounds * self.local_steps - 1, 1))) / 2
        return self.rate("experts") * (final + (1 - final) * height)

    def users(self) -> list[User]:
        """All of the data set, with the same base and the same start of what they share."""
        manifest = json.loads((self.data / "manifest.json").read_text(encoding="utf-8"))
        config = json.loads((self.base / "config.json").read_text(encoding="utf-8"))
        sizes = Sizes(
            heads=config["n_head"],
            experts=int(self.number("user", "experts")),
            top_k=int(self.number("user", "top_k")),
            rank=int(self.number("user", "lora_rank")),
            scale=self.number("user", "lora_alpha") / math.sqrt(self.number("user", "lora_rank")),
            balancing_weight=self.number("method", "load_balancing_weight"),
        )
        users = []
        for entry in manifest["users"]:
            splits = {
                split: torch.from_numpy(
                    np.fromfile(self.data / place["file"], dtype=manifest["dtype"]).astype(np.int64)
                )
                for split, place in entry["splits"].items()
            }
            model = PlainGpt2(self.base, sizes)
            model.initialise()
            users.append(User(splits, model, self))
        with torch.no_grad():
            share(users, lambda tensors: tensors[0])
        return users

    def evaluate(self, users: list[User]) -> dict[str, list[float]]:
        return {
            "train": [user.perplexity("train", self.train_evaluation_tokens) for user in users],
            "validation": [user.perplexity("validation") for user in users],
            "test": [user.perplexity("test") for user in users],
        }

    def run(self) -> dict[str, list[float]]:
        """All rounds; the users' last perplexities by split."""
        users = self.users()
        self.evaluate(users)
        for round_number in range(1, self.rounds + 1):
            for user in users:
                user.train_round((round_number - 1) * self.local_steps)
            last = round_number == self.rounds
            if last:  # what the last average changes
                for user in users:
                    user.perplexity("validation")
                    user.perplexity("test")
            with torch.no_grad():
                share(users, lambda tensors: torch.stack(tensors).mean(0))
            if last or round_number % self.evaluate_every == 0:
                perplexities = self.evaluate(users)
        return perplexities


def share(users: list[User], choose: Callable[[list[Tensor]], Tensor]) -> None:
    """Every user gets what is chosen from all users' attention LoRA and expert 0."""
    parameters = [dict(user.model.named_parameters()) for user in users]
    for name in filter(is_shared, parameters[0]):
        chosen = choose([own[name] for own in parameters])
        for own in parameters:
            own[name].copy_(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    torch.manual_seed(0)
    print(json.dumps(Job(wanted.results).run(), indent=1))


if __name__ == "__main__":
    main()
