"""gate_targets = clusters as whole runs: gates learn planted clusters, whatever the number of groups; runs that are stopped,
what plan promises, what is refused and told."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers import planted
from tests.helpers.broken_runs import Running, arguments, differing, finish, rounds_in
from tests.helpers.tiny import ONE_STEP, alone, gpt2_folder, train

CLUSTERS = ("--gate-targets", "clusters")


@pytest.fixture(scope="module")
def told_apart(tmp_path_factory) -> Path:
    """Four categories whose instructions have three tokens of four in common: clusters of what gates read."""
    return planted.examples(tmp_path_factory.mktemp("planted") / "data", markers=3)


@pytest.mark.parametrize(
    ("method", "groups"), [("mop", 3), ("mop", 4), ("mop-centralized", 6), ("mop-own-gate", 4)]
)
def test_gates_tell_planted_clusters_apart(method, groups, told_apart, tiny_base, tmp_path):
    """Most of what can be known of them with so many groups. A gate that users share knows it only where a cluster has
    the same number for all of them."""
    output = tmp_path / "run"
    options = ("--method", method, "--experts", groups, "--prompt-tokens", 2, "--gate-width", 16, *CLUSTERS)
    options += ("--rounds", 2, "--local-steps", 40, "--gate-warmup-rounds", 1, "--router-learning-rate", 0.02)
    options += ("--batch-sequences", 8, "--context-tokens", planted.LENGTH - 1, "--seed", 2)
    train("--data", told_apart, "--model", tiny_base, "--output", output, *options)
    with h5py.File(output / "results.h5") as file:
        weight, accuracy = file["prompt/weight"][()], file["prompt/warmup_accuracy"][()]
        assert file.attrs["gate_targets"] == "clusters"
    assert np.isnan(accuracy).all()  # it is of categories
    # With three groups two of the four share one.
    most = planted.entropy(np.array([0.5, 0.25, 0.25]) if groups == 3 else np.full(4, 0.25))
    for user in range(4):
        assert planted.information(weight[0, user]) == pytest.approx(0, abs=1e-6)
        assert planted.information(weight[1, user]) > 0.8 * most


@pytest.mark.parametrize("method", ["mop", "mop-centralized"])
def test_a_run_that_is_stopped_in_its_warm_up_ends_the_same(method, tiny_base, tiny_examples, tmp_path):
    given = ("--data", tiny_examples, "--model", tiny_base, "--method", method, "--rounds", 6, "--seed", 3)
    given += ("--local-steps", 20, "--batch-sequences", 4, "--experts", 4, "--prompt-tokens", 2, *CLUSTERS)
    given += ("--context-tokens", 12, "--gate-warmup-rounds", 4)
    finish(arguments(*given, "--output", tmp_path / "whole"))
    output = tmp_path / "run"
    with Running(*arguments(*given, "--output", output)) as run:
        run.wait_for_round(1)
        assert run.signal(1, signal.SIGUSR1), run.output()
        done = run.end()
    assert done.code == 3, done.output + done.errors
    assert 0 < rounds_in(output / "results.h5") < 4
    other = arguments(*given, "--output", output, "--resume", "auto", "--gate-targets", "categories")
    assert "gate_targets" in finish(other, code=2).errors
    finish(arguments(*given, "--output", output, "--resume", "auto"))
    assert differing(tmp_path / "whole" / "results.h5", output / "results.h5") == []


def test_more_groups_than_different_instructions(tiny_base, tmp_path):
    """The others are no example's: the run goes through."""
    data = planted.examples(tmp_path / "data", users=1, markers=4)  # four instructions
    options = ("--method", "mop-local", "--experts", 7, "--prompt-tokens", 2, "--gate-width", 16, *CLUSTERS)
    options += ("--rounds", 2, "--local-steps", 60, "--gate-warmup-rounds", 1, "--router-learning-rate", 0.05)
    options += ("--batch-sequences", 8, "--context-tokens", planted.LENGTH - 1)
    train("--data", data, "--model", tiny_base, "--output", tmp_path / "run", *options, ranks=1)
    with h5py.File(tmp_path / "run" / "results.h5") as file:
        weight = file["prompt/weight"][1, 0]  # [category, group]
    assert sorted(weight.argmax(1)) == [0, 1, 2, 3] and weight[:, 4:].max() < 0.1


def test_peak_memory_with_clusters_is_within_15_percent_of_the_run_s(tmp_path):
    """Where it is what is clustered: 30,000 examples of width 1024, of which the embedding alone is read."""
    base = gpt2_folder(tmp_path / "base", layers=1, width=1024)
    data = planted.examples(tmp_path / "data", users=1, train=30_000)
    options = ("--data", data, "--model", base, "--output", tmp_path / "run", "--method", "mop-local")
    options += (*ONE_STEP[4:-2], "--rounds", 2, "--local-steps", 1, "--gate-warmup-rounds", 1)
    options += ("--experts", 2, "--prompt-tokens", 2, "--prompt-layer", 0, *CLUSTERS)
    done = alone("plan", *options, "--device", "cpu", "--threads", 1, "--json")
    assert done.code == 0, done.errors
    promised = json.loads(done.output)["users"][0]["memory_bytes"]
    assert promised["activations"] > 30_000 * 1024 * 4
    train(*options, ranks=1)
    with h5py.File(tmp_path / "run" / "results.h5") as file:
        assert promised["total"] == pytest.approx(file["memory/peak"][()].max(), rel=0.15)


def test_what_is_refused_and_what_is_told(tiny_base, tiny_examples, tmp_path):
    where = ("--data", tiny_examples, "--model", tiny_base, "--output", tmp_path / "run", "--method", "mop")
    given = (*where, "--context-tokens", 12, "--prompt-tokens", 2, "--experts", 3, "--rounds", 3)

    def refusal(*options: object) -> str:
        done = alone("plan", *given, *options)
        assert done.code == 2 and done.errors.count("\n") == 1, done.output + done.errors
        return done.errors

    assert "--gate-targets: found 'none'" in refusal("--gate-targets", "none")
    assert "gate_targets = clusters or gate_warmup_rounds = 0" in refusal("--gate-targets", "categories")
    assert "no round would be left" in refusal(*CLUSTERS, "--gate-warmup-rounds", 3)
    done = alone("plan", *given, *CLUSTERS, "--json")
    assert done.code == 0 and json.loads(done.output)["remark"] is None, done.errors
    done = alone("plan", *given, *CLUSTERS, "--gate-warmup-rounds", 0, "--json")
    assert "gate_warmup_rounds is 0" in json.loads(done.output)["remark"]
