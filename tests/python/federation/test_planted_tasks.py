"""mop.md check 23: whether a gate that begins uniform finds out by itself that there are four tasks."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import pytest

from tests.helpers import planted
from tests.helpers.tiny import train


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> tuple[object, ...]:
    folder = tmp_path_factory.mktemp("planted")
    return "--data", planted.examples(folder / "data"), "--model", planted.base(folder / "base")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_task_gets_its_own_groups(seed, material, tmp_path):
    output: Path = tmp_path / "run"
    options = ("--method", "mop", "--experts", 4, "--prompt-tokens", 4, "--prompt-layer", 1, "--seed", seed)
    options += ("--gate-warmup-rounds", 0, "--expert-learning-rate", 0.05, "--router-learning-rate", 0.005)
    sizes = (
        "--rounds",
        16,
        "--local-steps",
        20,
        "--batch-sequences",
        16,
        "--context-tokens",
        planted.LENGTH - 1,
    )
    train(*material, *options, *sizes, "--evaluate-every", 16, "--output", output)
    with h5py.File(output / "results.h5") as file:
        weight, loss = file["prompt/weight"][()].mean(1), file["loss/test"][()].mean(1)
    found = planted.information(weight[-1])
    print(
        f"seed {seed}: {found:.2f} of {math.log(4):.2f} nats; loss {loss[0]:.2f}, in the end {loss[-1]:.2f}"
    )
    assert planted.information(weight[0]) == pytest.approx(0, abs=1e-6)
    assert found > 0.5 * math.log(4)
    assert loss[-1] < 0.5 * loss[0]
