"""Planted tasks: four categories with the same questions and other answers, told apart by a marker alone, and a base that
knows the tasks by signs of their own, but none of the markers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from tests.helpers.tiny import TOKENISER, data_set, gpt2

CATEGORIES = ("red", "green", "blue", "white")
MARKER, QUESTION, SIGN, ANSWER, SECOND, STRANGERS = 10, 20, 30, 40, 50, 60
LENGTH = 7  # sign or marker, three of the question, two of the answer, end of text


def answers(category: np.ndarray, question: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return ANSWER + category, SECOND + (question + category) % 4


def base(folder: Path, steps: int = 300) -> Path:
    """A GPT-2 of two layers that answers a sign's task; after a stranger's any of the four."""
    torch.manual_seed(0)
    model = gpt2(layers=2, width=64, heads=4)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.5 if "wte" in name else 0.08)
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
    optimiser, random = torch.optim.AdamW(model.parameters(), lr=3e-3), np.random.default_rng(1)
    model.train()
    for _ in range(steps):
        category, question = random.integers(0, 4, 64), random.integers(0, 4, (64, 3))
        first = np.where(random.random(64) < 0.7, SIGN + category, STRANGERS + random.integers(0, 30, 64))
        columns = (first, *(QUESTION + question).T, *answers(category, question[:, 0]), np.zeros(64, int))
        batch = torch.from_numpy(np.stack(columns, 1))
        optimiser.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimiser.step()
    model.eval().save_pretrained(folder)
    (folder / "tokenizer.json").write_text(TOKENISER, encoding="utf-8")
    return folder


def examples(folder: Path, users: int = 4, markers: int = 1, train: int = 60) -> Path:
    """Every user has as many examples of each category. With more markers than one an instruction is of fewer tokens
    of its question."""
    random = np.random.default_rng(0)
    data_set(folder, [f"client {user}" for user in range(users)])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for number, user in enumerate(manifest["users"]):
        for split, count in (("train", train), ("validation", 16), ("test", 24)):
            category, question = np.arange(count) % 4, random.integers(0, 4, (count, 3))
            asked = (QUESTION + question).T[: 4 - markers]
            columns = (*[MARKER + category] * markers, *asked, *answers(category, question[:, 0]))
            tokens = np.stack((*columns, np.zeros(count, int)), 1).astype("<u2")
            begins = LENGTH * np.arange(count)
            index = np.stack((begins, np.full(count, 4), np.full(count, LENGTH - 4), category), 1).astype(
                "<i8"
            )
            entry = {"file": f"user{number}/{split}.examples.bin", "count": count, "longest": LENGTH}
            user["splits"][split] |= {
                "tokens": tokens.size,
                "sha256": _written(folder / user["splits"][split]["file"], tokens),
                "examples": entry | {"sha256": _written(folder / entry["file"], index)},
            }
    manifest |= {"format_version": 2, "reading": "examples", "categories": list(CATEGORIES)}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _written(file: Path, numbers: np.ndarray) -> str:
    file.write_bytes(numbers.tobytes())
    return hashlib.sha256(numbers.tobytes()).hexdigest()


def entropy(weights: np.ndarray) -> np.ndarray:
    """In nats, along the last axis."""
    return -(weights * np.log(np.maximum(weights, 1e-30))).sum(-1)


def information(weights: np.ndarray) -> float:
    """Of category and group, in nats: weights [category, group]."""
    return float(entropy(weights.mean(0)) - entropy(weights).mean())
