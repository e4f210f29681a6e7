"""Every row of the table of methods for two rounds on four ranks: what is equal, what is not, what never moved."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers.tiny import CHOICES, GATED, PLAIN, RUN, alone, data_set, train

USERS = range(4)
ROUNDS = RUN["--rounds"]
Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """What a method must leave behind. `equal`: experts alike for all users; `factors`: which of their factors."""

    method: str
    attention: bool = True  # alike for all users
    equal: tuple[int, ...] = ()
    factors: str = "AB"  # alike, of what is shared
    still: str = ""  # factors that never move
    routers: bool = False

    def __str__(self) -> str:
        return self.method


ROWS = [
    Row("centralized", equal=(0, 1)),
    Row("local", attention=False),
    Row("fedavg", equal=(0, 1)),
    Row("ffa-lora", equal=(0, 1), still="A"),
    Row("fedsa-lora", equal=(0, 1), factors="A"),
    Row("pcl", equal=(0, 1)),
    Row("local-moe", routers=True),
    Row("fedavg-moe", equal=(0, 1), routers=True),
    Row("pfedmoe", equal=(0,), routers=True),
    Row("local-moe-tr", routers=True),
    Row("fedavg-moe-tr", equal=(0, 1), routers=True),
    Row("comigs-1g1s-tr", equal=(0,), routers=True),
    Row("comigs-2s", routers=True),
    Row("comigs-2g", equal=(0, 1), routers=True),
    Row("comigs-1g1s", equal=(0,), routers=True),
    Row("comigs-1gxs", equal=(0,), routers=True),
    Row("comigs-mgxs", equal=(0, 1), routers=True),
    Row("hetlora", equal=(0,)),
    Row("flexlora", equal=(0,)),
]


@pytest.fixture(scope="module", params=ROWS, ids=str)
def finished(request, run_of) -> tuple[Row, Path]:
    row = request.param
    return row, run_of(row.method, *PLAIN, *CHOICES.get(row.method, ()))


def stored(path: Path, round_: int, user: int, role: str) -> Weights:
    """A user's stored arrays of one role by their path below the user."""
    found: Weights = {}
    with h5py.File(path) as file:
        place = file.get(f"{role}/weights/{round_}/user_{user}")
        if place is not None:
            place.visititems(
                lambda name, item: (
                    found.update({name: item[()]})
                    if isinstance(item, h5py.Dataset) and "layer" in name
                    else None
                ),
            )
    return found


def alike(path: Path, round_: int, role: str, chosen: Callable[[str], bool]) -> set[bool]:
    """For every chosen array and every user but the first: whether it has the first user's bits."""
    first = {name: value for name, value in stored(path, round_, 0, role).items() if chosen(name)}
    assert first or role == "router"
    return {
        np.array_equal(stored(path, round_, user, role)[name], value)
        for user in USERS[1:]
        for name, value in first.items()
    }


def is_factor(name: str, factors: str) -> bool:
    return name[-1] in factors


def expert_of(name: str) -> int:
    return int(name.split("expert_")[1].split("/")[0])


def test_what_is_shared_is_equal_and_what_is_own_is_not(finished):
    row, path = finished
    shared, own = row.factors, {"AB": "", "A": "B"}[row.factors]
    attention = alike(path, ROUNDS, "attention", lambda name: is_factor(name, shared))
    assert attention == {row.attention}
    experts = {expert_of(name) for name in stored(path, ROUNDS, 0, "expert")}
    for expert in experts:
        here = alike(path, ROUNDS, "expert", lambda n, e=expert: expert_of(n) == e and is_factor(n, shared))
        assert here == {expert in row.equal}, expert
    if own:
        assert alike(path, ROUNDS, "attention", lambda name: is_factor(name, own)) == {False}
        assert alike(path, ROUNDS, "expert", lambda name: is_factor(name, own)) == {False}


def test_routers_are_everyone_s_own(finished):
    row, path = finished
    assert alike(path, ROUNDS, "router", lambda name: True) == ({False} if row.routers else set())
    assert bool(stored(path, ROUNDS, 0, "router")) == row.routers


def test_everything_that_is_trained_moves_and_nothing_else(finished):
    row, path = finished
    for user in USERS:
        for role in ("attention", "expert", "router"):
            before, after = (stored(path, round_, user, role) for round_ in (0, ROUNDS))
            for name, value in after.items():
                moves = role == "router" or not is_factor(name, row.still or "-")
                assert np.array_equal(before[name], value) != moves, (user, role, name)


def test_shared_parts_begin_alike(finished):
    row, path = finished
    if row.attention:
        assert alike(path, 0, "attention", lambda name: True) == {True}
    for expert in row.equal:
        assert alike(path, 0, "expert", lambda name, e=expert: expert_of(name) == e) == {True}


def test_mixing_weights_and_bytes(finished):
    row, path = finished
    with h5py.File(path) as file:
        weight = file["aggregation/weight"][1:]
        sent = file["communication/bytes"][1:]
        ranks = file["aggregation/lora_rank"][()]
    np.testing.assert_allclose(weight.sum(-1), 1, rtol=1e-6)
    if row.method == "local":
        np.testing.assert_allclose(weight, np.broadcast_to(np.eye(4), weight.shape))
    elif row.method not in ("hetlora", "flexlora"):
        np.testing.assert_allclose(weight, 0.25)
    assert (sent > 0).all() == (row.method != "local")
    assert (ranks == 4).all() or row.method == "hetlora"


def test_the_table_lists_every_row_that_is_tested_here():
    done = alone("methods")
    assert done.code == 0
    names = [line.split()[0] for line in done.output.split("\n\n")[0].splitlines()[2:]]
    assert names[0] == "pretrained"
    assert set(names[1:]) == {row.method for row in ROWS} | {"fdlora", *PROMPTS, *GATED}


# Of these, which groups are alike for all users; nobody has attention or routers.
PROMPTS = {"prompt-local": 0, "fedprompt": 1, "prompt-centralized": 1, "mop-equal": 3}


@pytest.mark.parametrize("method", PROMPTS)
def test_prompts_are_shared_as_their_row_says(method, run_of):
    given = ("--experts", 3) if method == "mop-equal" else ()
    path = run_of(method, *PLAIN, *given, "--prompt-tokens", 2, "--expert-learning-rate", 0.05)
    shared, groups = PROMPTS[method], max(PROMPTS[method], 1)
    with h5py.File(path) as file:
        assert set(file["expert/weights"]) == {str(round_) for round_ in range(ROUNDS + 1)}
        assert "attention/weights" not in file and "router/weights" not in file
        sent, weight = file["communication/bytes"][1:], file["aggregation/weight"][1:]
        norms = file["expert/update_norm"][()]
        ranks = file["users/lora_rank"][()]
    for round_ in range(ROUNDS + 1):
        for group in range(groups):
            there = alike(path, round_, "expert", lambda name, e=group: expert_of(name) == e)
            assert there == {group < shared}
    prompts = [stored(path, round_, 0, "expert") for round_ in (0, ROUNDS)]
    assert list(prompts[0]) == [f"layer_1/expert_{group}/prompt" for group in range(groups)]
    for group, (before, after) in enumerate(zip(*(found.values() for found in prompts))):
        assert before.shape == (2, 32) and not np.array_equal(before, after)
        assert norms[0, 0, 1, group, 0] == pytest.approx(np.linalg.norm(before), rel=1e-6)
    step = RUN["--local-steps"] if method == "prompt-centralized" else 1
    assert (sent == 4 * 2 * 32 * shared * step).all() and (ranks == 0).all()
    np.testing.assert_allclose(weight.sum(-1), 1, rtol=1e-6)


def test_fdlora_is_fedavg_whose_last_mean_is_fused_with_what_users_trained(run_of):
    learning = (*PLAIN, "--local-steps", 20, "--expert-learning-rate", 0.02)
    fused, means = run_of("fdlora", *learning), run_of("fedavg", *learning)
    for role in ("attention", "expert"):
        for user in USERS:
            first, last = (stored(fused, round_, user, role) for round_ in (ROUNDS - 1, ROUNDS))
            for name, value in stored(means, ROUNDS - 1, user, role).items():
                np.testing.assert_array_equal(first[name], value)
                assert last[name].shape == value.shape
    with h5py.File(fused) as file:
        weight = file["aggregation/weight"][ROUNDS].astype(np.float64)
    average = 4 * np.where(np.eye(4) > 0, np.nan, weight)  # off the diagonal a quarter of the mean's
    np.testing.assert_allclose(np.nanmin(average, 1), np.nanmax(average, 1), atol=1e-6)
    w_mean = np.nanmean(average, 1)
    w_own = np.diag(weight) - w_mean / 4
    assert np.all(np.abs(np.stack([w_mean, w_own])) <= 1) and np.any(w_own != 0)
    # What users had trained, as the fused values tell it, has the mean that FedAvg made.
    if np.all(w_own != 0):
        for name, mean in stored(means, ROUNDS, 0, "expert").items():
            values = [stored(fused, ROUNDS, user, "expert")[name] for user in USERS]
            own = [(values[user] - w_mean[user] * mean) / w_own[user] for user in USERS]
            np.testing.assert_allclose(np.mean(own, 0), mean, atol=1e-5)


def test_collaboration_weights_come_from_validation_data(tiny_base, tmp_path):
    """From round 5 on: each user's validation text is in the language that the next one trains on."""
    data = data_set(tmp_path / "data")
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    splits = [user["splits"] for user in manifest["users"]]
    validation = [split["validation"] for split in splits]
    for user in USERS:
        splits[user]["validation"] = validation[(user + 1) % 4]
    (data / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    options = ("--method", "pcl", "--rounds", 6, "--local-steps", 20, "--expert-learning-rate", 0.02)
    sizes = ("--batch-sequences", 4, "--context-tokens", 12, "--lora-rank", 4, "--weights-every", 1)
    train("--data", data, "--model", tiny_base, "--output", tmp_path / "run", *options, *sizes)
    path = tmp_path / "run" / "results.h5"
    with h5py.File(path) as file:
        weight = file["aggregation/weight"][()]
    np.testing.assert_allclose(weight[1:].sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(weight[1:5], 0.25)
    assert (weight[5][USERS, [1, 2, 3, 0]] > 0.9).all() and (weight[6] == weight[5]).all()
    assert alike(path, 4, "expert", lambda name: True) == {True}
    assert alike(path, 5, "expert", lambda name: True) == {False}


# Users with other ranks --------------------------------------------------------------------------------------

RANKS = (6, 4, 4, 2)


@pytest.fixture(scope="module", params=("hetlora", "flexlora"))
def unequal(request, tiny_base, tiny_data, tmp_path_factory) -> tuple[str, Path]:
    output = tmp_path_factory.mktemp(request.param)
    options = ("--lora-rank", ",".join(map(str, RANKS)), "--lora-alpha", 8, "--rounds", 1, "--local-steps", 2)
    where = ("--data", tiny_data, "--model", tiny_base, "--output", output)
    train(*where, "--method", request.param, *options, "--batch-sequences", 4, "--context-tokens", 12)
    return request.param, output / "results.h5"


def test_users_of_other_ranks_get_the_leading_part_of_one_common_result(unequal):
    """HetLoRA hands out leading ranks; FlexLoRA's leading components differ by sqrt(gamma) of the user."""
    method, path = unequal
    gamma = [8 / np.sqrt(rank) for rank in RANKS]
    for role in ("attention", "expert"):
        own = [stored(path, 1, user, role) for user in USERS]
        for name, value in own[0].items():
            for user in USERS[1:]:
                rank = RANKS[user]
                leading = value[:rank] if name.endswith("A") else value[:, :rank]
                scale = np.sqrt(gamma[0] / gamma[user]) if method == "flexlora" else 1
                np.testing.assert_allclose(own[user][name], scale * leading, rtol=1e-4, atol=1e-7)


def test_hetlora_shrinks_ranks_and_says_so(tiny_base, tiny_data, tmp_path):
    """A large regulariser makes tails shrink: ranks fall by one where they do, and pruned ranks stay zero."""
    options = ("--method", "hetlora", "--lora-rank", 4, "--rank-regulariser", 10, "--rounds", 6)
    sizes = ("--local-steps", 4, "--batch-sequences", 4, "--context-tokens", 12, "--weights-every", 1)
    train("--data", tiny_data, "--model", tiny_base, "--output", tmp_path / "run", *options, *sizes)
    with h5py.File(tmp_path / "run" / "results.h5") as file:
        ranks = file["aggregation/lora_rank"][()]
    assert (ranks[0] == 4).all() and (ranks[-1] < 4).any()
    assert (np.diff(ranks, axis=0) <= 0).all() and (np.diff(ranks, axis=0) >= -1).all()
    for user in USERS:
        for round_ in range(1, 7):
            for name, value in stored(tmp_path / "run" / "results.h5", round_, user, "expert").items():
                rows = value if name.endswith("A") else value.T
                assert (rows[ranks[round_, user] :] == 0).all() and (rows[: ranks[round_, user]] != 0).any()


def test_token_budgets_and_shares(tiny_base, tiny_data, tmp_path):
    options = ("--method", "fedavg", "--averaging", "tokens", "--train-tokens", "100,0,200,0")
    options += ("--train-share", "1,0.5,1,1", "--rounds", 1, "--local-steps", 1)
    sizes = (
        "--batch-sequences",
        "2,3,4,5",
        "--context-tokens",
        12,
        "--expert-learning-rate",
        "1e-3,2e-3,1e-4,1e-5",
    )
    train("--data", tiny_data, "--model", tiny_base, "--output", tmp_path / "run", *options, *sizes)
    used = [100, 203, 200, 421]  # of 400, 407, 414, 421
    with h5py.File(tmp_path / "run" / "results.h5") as file:
        assert file["users/train_tokens"][()].tolist() == used
        np.testing.assert_allclose(file["aggregation/weight"][1, 2], np.array(used) / sum(used), rtol=1e-6)
