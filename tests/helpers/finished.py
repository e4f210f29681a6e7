"""Commands on finished models: what they print as JSON, how they refuse, and a plain perplexity."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.helpers.tiny import alone

HERE = ("--device", "cpu", "--threads", 1)


def asked(command: str, *arguments: object) -> dict[str, Any]:
    done = alone(command, *arguments, *(HERE if command != "inspect" else ()), "--json")
    assert done.code == 0, done.output + done.errors
    assert not done.errors, done.errors
    return json.loads(done.output)


def refused(command: str, *arguments: object) -> str:
    """Its one line."""
    done = alone(command, *arguments)
    assert done.code == 2 and not done.output, (done.code, done.output, done.errors)
    assert len(done.errors.splitlines()) == 1, done.errors
    return done.errors


@torch.no_grad()
def windowed_perplexity(logits: Any, ids: Sequence[int], context: int) -> float:
    """Each token but the first after those before it in its window; `logits` of tokens [1, T]: [1, T, V]."""
    loss = 0.0
    for begin in range(0, len(ids) - 1, context):
        window = torch.tensor(ids[begin : begin + context + 1])
        said: Tensor = logits(window[None, :-1])[0].double()
        loss += torch.nn.functional.cross_entropy(said, window[1:], reduction="sum").item()
    return math.exp(loss / (len(ids) - 1))
