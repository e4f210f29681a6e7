"""`comigs train` on a GPU; skipped where there is none, which COMIGS_REQUIRE_GPU=1 makes a failure."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers.tiny import comigs

OPTIONS = ("--rounds", 2, "--local-steps", 4, "--router-every", 2, "--router-steps", 3, "--seed", 5)
OPTIONS += ("--batch-sequences", 4, "--context-tokens", 12, "--lora-rank", 4)


def perplexity(data: Path, base: Path, output: Path, device: str) -> np.ndarray:
    places = ("--data", data, "--model", base, "--output", output, "--method", "comigs-1g1s")
    done = comigs("train", *places, *OPTIONS, "--device", device, ranks=4)
    if done.code == 2 and "--device cuda" in done.errors:
        reason = next(line for line in done.errors.splitlines() if "--device cuda" in line)
        (pytest.fail if os.environ.get("COMIGS_REQUIRE_GPU") == "1" else pytest.skip)(reason)
    assert done.code == 0, done.output + done.errors
    assert "CUDA graphs" not in done.errors
    with h5py.File(output / "results.h5") as results:
        return results["perplexity/test"][:]


def test_ranks_of_a_gpu_compute_what_the_cpu_computes(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    there = [perplexity(tiny_data, tiny_base, tmp_path / name, "cuda") for name in ("a", "b")]
    here = perplexity(tiny_data, tiny_base, tmp_path / "c", "cpu")
    np.testing.assert_array_equal(*there)
    np.testing.assert_allclose(there[0], here, rtol=1e-3)
