"""Mixtures of prompts as whole runs: who shares what, what results.h5 says of categories and groups, runs that are stopped,
what plan promises, what is refused."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.helpers.broken_runs import Running, arguments, differing, finish, rounds_in
from tests.helpers.plain_model import Setting, frozen_weights
from tests.helpers.plain_prompts import GATE, PromptedGpt2
from tests.helpers.tiny import (
    CHOICES,
    GATED,
    PLAIN,
    RUN,
    USERS,
    alone,
    comigs,
    examples_of,
    run_options,
)

ROUNDS, STEPS, WIDTH, H, M, LAYER = RUN["--rounds"], RUN["--local-steps"], 32, 8, 2, 1
LEARNING = (*PLAIN, "--expert-learning-rate", 0.05, "--router-learning-rate", 0.02)
# Groups, of which so many are shared, and whether the gate is.
ROWS = {
    "mop-centralized": (4, 4, True),
    "mop": (4, 4, True),
    "mop-local": (4, 0, False),
    "mop-own-gate": (4, 4, False),
    "mop-1g1s": (2, 1, False),
    "mop-1gxs": (3, 1, False),
    "mop-mgxs": (3, 2, False),
}
JOINT = [method for method, (groups, _, _) in ROWS.items() if groups == 4]


def gate_numbers(groups: int) -> int:
    return WIDTH * H + H + H * groups + groups


@pytest.fixture(scope="module", params=ROWS)
def finished(request, run_of) -> tuple[str, Path]:
    return request.param, run_of(request.param, *LEARNING, *CHOICES[request.param])


def stored(path: Path, round_: int, user: int) -> dict[str, np.ndarray]:
    """Groups by their numbers, and the gate's tensors."""
    found = {}
    with h5py.File(path) as file:
        groups = file[f"expert/weights/{round_}/user_{user}/layer_{LAYER}"]
        for name, group in groups.items():
            found[name] = group["prompt"][()]
        gate = file[f"router/weights/{round_}/user_{user}/layer_{LAYER}"]
        for name in GATE:
            found[name] = gate[name][()]
    return found


def test_every_gated_method_is_here():
    assert set(ROWS) == set(GATED)


def test_groups_and_gates_are_shared_as_their_row_says(finished):
    """mop.md check 11, of what is equal."""
    method, path = finished
    groups, shared, gate_shared = ROWS[method]
    for round_ in range(ROUNDS + 1):
        users = [stored(path, round_, user) for user in range(4)]
        assert list(users[0]) == [f"expert_{e}" for e in range(groups)] + list(GATE)
        for name, value in users[0].items():
            alike = {np.array_equal(other[name], value) for other in users[1:]}
            is_shared = int(name[7:]) < shared if name.startswith("expert") else gate_shared
            # What begins as zero is alike by chance.
            assert alike == {is_shared} or (round_ < 2 and not value.any()), (round_, name)
    with h5py.File(path) as file:
        sent = file["communication/bytes"][1:]
        assert (file["users/generalists"][()] == shared).all()
    numbers = shared * M * WIDTH + (gate_numbers(groups) if gate_shared else 0)
    if method != "mop-centralized":
        assert (sent == 4 * numbers).all()
    else:  # gradients at every step; in the warm-up the gate's alone
        assert sent[:, 0].tolist() == [4 * STEPS * gate_numbers(groups), 4 * STEPS * numbers]


def test_the_gate_alone_is_trained_first(finished):
    """mop.md check 4."""
    method, path = finished
    for user in range(4):
        rounds = [stored(path, round_, user) for round_ in range(ROUNDS + 1)]
        for name, value in rounds[0].items():
            is_gate = name in GATE
            still = not is_gate and method in JOINT
            # A weighted mean of the same numbers may differ from them by a rounding.
            assert np.allclose(rounds[1][name], value, rtol=1e-6, atol=1e-7) == still, name
            assert not np.array_equal(rounds[2][name], rounds[1][name]), name
    with h5py.File(path) as file:
        accuracy, shift = file["prompt/warmup_accuracy"][()], file["prompt/shift"][()]
        assert file.attrs["gate_warmup_rounds"] == (1 if method in JOINT else 0)
    assert np.isfinite(accuracy[: 2 if method in JOINT else 0]).all() and np.isnan(accuracy[2:]).all()
    assert (shift[0] == 0).all() and (shift[2] > 0).all()


def test_weights_by_category(finished, tiny_examples):
    """mop.md check 16: sums, and every weight once more from the stored parameters."""
    method, path = finished
    groups = ROWS[method][0]
    with h5py.File(path) as file:
        weight, entropy = file["prompt/weight"][()], file["prompt/entropy"][()]
        loss, tokens = file["category/loss_test"][()], file["category/tokens_test"][()]
        examples = file["users/test_examples"][()]
        np.testing.assert_allclose((loss * tokens).sum(2) / tokens.sum(1), file["loss/test"][()], rtol=1e-6)
        np.testing.assert_allclose(file["category/perplexity_test"][()], np.exp(loss), rtol=1e-6)
        score, load = file["routing/score"][()], file["routing/load"][()]
        names = [name.decode() for name in file["category/category"][()]]
        norm = file["prompt/norm"][()]
        assert file["prompt/weight"].dims[2].keys() == ["category"]
    assert names == list(USERS) and (examples > 0).all()
    np.testing.assert_allclose(weight.sum(3), 1, rtol=1e-6)
    np.testing.assert_allclose(weight[0], 1 / groups, atol=1e-6)  # uniform before any training
    np.testing.assert_allclose(entropy[0], math.log(groups), atol=1e-6)
    assert np.abs(weight[ROUNDS] - 1 / groups).max() > 1e-3
    # Over all examples, in the layer that prompts enter.
    mean = (weight * examples[None, :, :, None]).sum(2) / examples.sum(1)[None, :, None]
    np.testing.assert_allclose(score[:, :, LAYER], mean, rtol=1e-5)
    assert np.isnan(score[:, :, 0]).all() and np.isnan(load[:, :, 0]).all()
    np.testing.assert_allclose(load[:, :, LAYER].sum(2), 1, rtol=1e-6)
    for user in range(4):
        kept = stored(path, ROUNDS, user)
        expected = gate_weights(path, tiny_examples, user, kept, groups)
        np.testing.assert_allclose(weight[ROUNDS, user], expected, rtol=2e-6, atol=2e-6)
        for group in range(groups):
            assert norm[ROUNDS, user, group] == pytest.approx(
                np.linalg.norm(kept[f"expert_{group}"]), rel=1e-6
            )


@torch.no_grad()
def gate_weights(path: Path, data: Path, user: int, kept: dict[str, np.ndarray], groups: int) -> np.ndarray:
    with h5py.File(path) as file:
        base = Path(str(file.attrs["base_model"]))
    parameters = {f"{LAYER}.router.{name}": torch.from_numpy(kept[name]).double() for name in GATE}
    parameters |= {
        f"{LAYER}.expert.{e}.prompt": torch.from_numpy(kept[f"expert_{e}"]).double() for e in range(groups)
    }
    model = PromptedGpt2(frozen_weights(base), parameters, Setting(groups, 1.0, routed=False))
    index = np.fromfile(data / f"user{user}/test.examples.bin", dtype="<i8").reshape(-1, 4)
    sums = np.zeros((4, groups))
    for (instruction, _), category in zip(examples_of(data, user, "test"), index[:, 3]):
        model.reads(torch.tensor([len(instruction)]))
        x = model._below(torch.tensor([instruction]), LAYER)
        sums[category] += model._gate_logits(x, LAYER)[0].softmax(-1).numpy()
    return sums / np.bincount(index[:, 3], minlength=4)[:, None]


def test_users_with_other_numbers_of_groups(run_of):
    """Who has one group needs no gate: its weight is 1."""
    path = run_of("mop-1gxs", *LEARNING, "--prompt-tokens", M, "--gate-width", H, "--experts", "4,3,2,1")
    with h5py.File(path) as file:
        weight, entropy = file["prompt/weight"][()], file["prompt/entropy"][()]
        score = file["routing/score"][ROUNDS]
        assert file["users/gate_width"][()].tolist() == [H, H, H, 0]
        assert "user_3" not in file[f"router/weights/{ROUNDS}"] or not list(
            file[f"router/weights/{ROUNDS}/user_3"]
        )
        groups = [
            file[f"expert/weights/{ROUNDS}/user_{u}/layer_{LAYER}/expert_0/prompt"][()] for u in range(4)
        ]
    for user, count in enumerate((4, 3, 2, 1)):
        np.testing.assert_allclose(weight[:, user, :, :count].sum(2), 1, rtol=1e-6)
        assert np.isnan(weight[:, user, :, count:]).all() and np.isnan(score[user, LAYER, count:]).all()
        np.testing.assert_allclose(score[user, LAYER, :count].sum(), 1, rtol=1e-6)
        assert np.array_equal(groups[user], groups[0])
    assert (weight[:, 3, :, 0] == 1).all() and (entropy[:, 3] == 0).all()


def test_averages_by_examples(run_of, tiny_examples):
    path = run_of("mop", *LEARNING, *CHOICES["mop"], "--averaging", "examples")
    counts = [len(examples_of(tiny_examples, user, "train")) for user in range(4)]
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["users/train_examples"][()].sum(1), counts)
        weight = file["aggregation/weight"][1:]
    np.testing.assert_allclose(
        weight, np.broadcast_to(np.array(counts) / sum(counts), weight.shape), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("method", "options", "rounds"),
    [("mop", ("--gate-warmup-rounds", 4), 1), ("mop", ("--gate-warmup-rounds", 1), 2), ("mop-1gxs", (), 1)],
    ids=["warm-up", "joint", "in turn"],
)
def test_a_run_that_is_stopped_ends_the_same(method, options, rounds, tiny_base, tiny_examples, tmp_path):
    """mop.md check 13."""
    given = ("--data", tiny_examples, "--model", tiny_base, "--method", method, "--rounds", 6, "--seed", 3)
    given += ("--local-steps", 20, "--router-every", 7, "--router-steps", 2, "--batch-sequences", 4)
    given += ("--experts", 4, "--prompt-tokens", 2, "--context-tokens", 12, *options)
    finish(arguments(*given, "--output", tmp_path / "whole"), ranks=4)
    output = tmp_path / "run"
    with Running(*arguments(*given, "--output", output), ranks=4) as run:
        run.wait_for_round(rounds)
        assert run.signal(1, signal.SIGUSR1), run.output()
        done = run.end()
    assert done.code == 3, done.output + done.errors
    assert 0 < rounds_in(output / "results.h5") < 6
    finish(arguments(*given, "--output", output, "--resume", "auto"), ranks=4)
    assert differing(tmp_path / "whole" / "results.h5", output / "results.h5") == []


def test_a_plan_is_what_the_run_takes(run_of, tiny_base, tiny_examples, tmp_path):
    """mop.md check 26, of numbers and bytes."""
    where = ("--data", tiny_examples, "--model", tiny_base, "--output", tmp_path / "run", "--device", "cpu")
    sizes = run_options(*LEARNING, "--experts", 4, "--prompt-tokens", M, "--gate-width", H)

    def planned(warmup: int = 1, *options: object) -> dict:
        given = (*sizes, "--gate-warmup-rounds", warmup, *options)
        done = alone("plan", *where, "--method", "mop", *given, "--json")
        assert done.code == 0, done.errors
        return json.loads(done.output)["users"][0]

    user = planned()
    numbers = 4 * M * WIDTH + gate_numbers(4)
    assert (user["parameters"], user["bytes_round"]) == (numbers, 4 * numbers)
    with h5py.File(run_of("mop", *LEARNING, *CHOICES["mop"])) as file:
        assert (file["communication/bytes"][1:] == 4 * numbers).all()
    # Below the prompts nothing goes backward, and a warm-up stops there.
    assert user["flops_round"] < planned(1, "--prompt-layer", 0)["flops_round"]
    assert user["flops_round"] < planned(0)["flops_round"]


def refused(*options: object, ranks: int = 1) -> str:
    done = comigs("train", *options, ranks=ranks) if ranks > 1 else alone("plan", *options)
    assert done.code == 2, done.output + done.errors
    assert done.errors.startswith("comigs: ") and done.errors.count("\n") == 1, done.errors
    return done.errors


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("mop", "--experts", 3), "[user.0] experts = 3: the gate's warm-up tells the 4 categories"),
        (
            ("mop", "--experts", "4,4,3,4", "--gate-warmup-rounds", 0),
            "[user.2] experts = 3, gate_width = 128, but",
        ),
        (("mop", "--experts", 4, "--gate-width", "8,8,8,9"), "shares the gate"),
        (("mop", "--experts", 4, "--rounds", 2), "gate_warmup_rounds = 2, but [run] rounds = 2"),
        (
            ("mop-centralized", "--experts", 4, "--router-learning-rate", "1e-3,1e-3,1e-2,1e-3"),
            "needs them alike",
        ),
        (("mop-1g1s", "--experts", 3), "'mop-1gxs' takes any number"),
        (("mop", "--experts", 4, "--generalists", "0+1"), "'mop-mgxs' does"),
        (("mop-local", "--experts", 4, "--averaging", "examples"), "averages nothing"),
        (("mop", "--experts", 4, "--prompt-layer", 2), "layers 0 to 1"),
        (("mop", "--experts", 4, "--gate-width", 0), "--gate-width: found '0'"),
    ],
)
def test_what_does_not_go_together_is_refused(options, expected, tiny_base, tiny_examples, tmp_path):
    """mop.md check 28."""
    method, *rest = options
    where = ("--data", tiny_examples, "--model", tiny_base, "--output", tmp_path / "run")
    sizes = ("--prompt-tokens", 2, "--context-tokens", 12, *(() if "--rounds" in rest else ("--rounds", 4)))
    assert expected in refused(*where, "--method", method, *sizes, *rest)


def test_a_gate_needs_instructions(tiny_base, tiny_data, tmp_path):
    where = ("--data", tiny_data, "--model", tiny_base, "--output", tmp_path / "run", "--context-tokens", 12)
    assert "is plain text" in refused(*where, "--method", "mop", "--prompt-tokens", 2, ranks=4)
    assert "averaging = examples, but" in refused(*where, "--method", "fedavg", "--averaging", "examples")
    assert not (tmp_path / "run" / "results.h5").exists()


def test_what_has_no_effect_is_said(tiny_base, tiny_examples, tmp_path):
    where = ("--data", tiny_examples, "--model", tiny_base, "--output", tmp_path / "run", "--json")
    given = (*where, "--context-tokens", 12, "--prompt-tokens", 2, "--experts", 4, "--rounds", 4)

    def remark(*options: object) -> str:
        done = alone("plan", *given, *options)
        assert done.code == 0, done.errors
        return json.loads(done.output)["remark"]

    assert "a gate by sequence weighs all groups" in remark("--method", "mop", "--top-k", 2)
    assert "is not balanced" in remark("--method", "mop", "--load-balancing-weight", 0.1)
    assert "trained in turn" in remark("--method", "mop-1gxs", "--gate-warmup-rounds", 1)
    assert "the method trains LoRA" in remark("--method", "fedavg", "--gate-width", 3)


def test_models_are_routed_evaluated_and_inspected(run_of, tiny_examples):
    """By example: all tokens of one have the weights of its instruction."""
    path = run_of("mop", *LEARNING, *CHOICES["mop"])
    done = alone("route", path, "--tokens", 60)
    assert done.code == 0, done.errors
    with h5py.File(path) as file:
        score = file["tokens/user_0/score"][()]  # [user, token, layer, expert]
        final = file["loss/test"][ROUNDS, 0]
    np.testing.assert_allclose(score[:, :, LAYER].sum(2), 1, rtol=1e-5)
    assert np.isnan(score[:, :, 0]).all()  # below the prompts
    begin = 0
    for instruction, response in examples_of(tiny_examples, 0, "test"):
        end = begin + len(instruction) + len(response)
        if end > score.shape[1]:
            break
        assert (score[0, begin:end, LAYER] == score[0, begin, LAYER]).all()
        begin = end
    assert begin > 0
    done = alone("evaluate", path, "--users", USERS[0], "--device", "cpu", "--json")
    assert done.code == 0, done.errors
    by_user = [e for e in json.loads(done.output)["evaluations"] if e["texts"] == USERS[0]]
    assert by_user[0]["loss"] == pytest.approx(final, rel=1e-6)
    done = alone("inspect", path, "--json")
    assert done.code == 0, done.errors
    user = json.loads(done.output)["users"][0]
    assert (user["experts"], user["prompt_tokens"]) == (4, M) and "lora_rank" not in user
