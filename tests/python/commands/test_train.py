"""`comigs train` on four ranks: what its results file holds, against independent computation of the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from tests.helpers.plain_model import PlainModel, Setting, evaluate, frozen_weights
from tests.helpers.tiny import (
    LAYERS,
    PLAIN,
    POSITIONS,
    RUN,
    USERS,
    WIDTH,
    Trace,
    gpt2,
    run_options,
    tokens_of,
    trace_steps,
)

EXPERTS = [4, 2, 1, 1]
RANK, ALPHA, CONTEXT = (RUN[name] for name in ("--lora-rank", "--lora-alpha", "--context-tokens"))
SPLITS = ("train", "validation", "test")
SPARSE = ("--rounds", 3, "--evaluate-every", 2)
MIXED = ("--experts", "4,2,1,1", "--weights-every", 1)


@pytest.fixture(scope="module")
def results(run_of: Callable[..., Path]) -> Callable[..., Path]:
    return run_of


@pytest.fixture(scope="module")
def mixed(results) -> Path:
    return results("comigs-1gxs", *MIXED)


def group(path: Path, name: str | None) -> xr.Dataset:
    with xr.open_dataset(path, group=name, engine="h5netcdf") as dataset:
        return dataset.load()


def factors(path: Path, round_: int, user: int) -> dict[str, np.ndarray]:
    """A user's stored LoRA factors by "layer_0/expert_1/up_A"."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        stored = file[f"expert/weights/{round_}/user_{user}"]
        stored.visititems(
            lambda name, item: found.update({name: item[()]}) if name.count("/") == 2 else None,
        )
    return found


# The file ---------------------------------------------------------------------------------------------------


def test_file_opens_with_labels(mixed):
    perplexity = group(mixed, "perplexity")
    for split in SPLITS:
        assert perplexity[split].dims == ("round", "user") and perplexity[split].shape == (3, 4)
        np.testing.assert_allclose(perplexity[split], np.exp(group(mixed, "loss")[split]), rtol=1e-12)
    assert np.isfinite(perplexity.to_array()).all()
    assert perplexity["user"].values.tolist() == list(USERS) and perplexity["round"].values.tolist() == [
        0,
        1,
        2,
    ]
    users = group(mixed, "users")
    assert users["experts"].values.tolist() == EXPERTS and users["generalists"].values.tolist() == [1] * 4
    assert users["top_k"].values.tolist() == [2, 2, 1, 1] and users["lora_rank"].values.tolist() == [RANK] * 4
    assert users["train_tokens"].values.tolist() == [400, 407, 414, 421]
    assert users["test_tokens"].values.tolist() == [120, 127, 134, 141]
    attributes = group(mixed, None).attrs
    assert attributes["method"] == "comigs-1gxs" and attributes["N"] == 4 and attributes["seed"] == 5
    assert attributes["data_set"] == "tiny" and "experts = 4" in attributes["configuration"]
    assert len(attributes["base_digest"]) == 64 and list(attributes["devices"]) == ["cpu, 1 thread"] * 4


def test_experts_that_a_user_lacks_are_nan(mixed):
    routing, norm = group(mixed, "routing"), group(mixed, "expert")["update_norm"]
    assert routing["score"].dims == ("round", "user", "layer", "expert")
    assert routing["score"].shape == (3, 4, LAYERS, 4) and norm.shape == (3, 4, LAYERS, 4, 2)
    for user, count in enumerate(EXPERTS):
        for array in (routing["score"], routing["load"], norm):
            assert np.isfinite(array[:, user, :, :count]).all()
            assert np.isnan(array[:, user, :, count:]).all()
        np.testing.assert_allclose(routing["score"][:, user, :, :count].sum("expert"), 1, rtol=1e-5)
        np.testing.assert_allclose(
            routing["load"][:, user, :, :count].sum("expert"), min(count, 2), rtol=1e-5
        )
    assert (routing["entropy"][:, :2] > 0).all() and (routing["entropy"][:, 2:] == 0).all()
    assert (norm[0, :, :, 0] == 0).all() and (norm[1:, :, :, 0] > 0).all()


def test_costs(mixed):
    """Bytes by hand: every user hands in its attention LoRA and its one generalist, in float32."""
    attention = RANK * (WIDTH + 3 * WIDTH) + RANK * (WIDTH + WIDTH)
    expert = RANK * (WIDTH + 4 * WIDTH) + RANK * (4 * WIDTH + WIDTH)
    sent = group(mixed, "communication")["bytes"]
    assert sent[0].values.tolist() == [0] * 4
    assert sent[1:].values.tolist() == [[4 * LAYERS * (attention + expert)] * 4] * 2
    weight = group(mixed, "aggregation")["weight"]
    assert np.isnan(weight[0]).all()  # before any training nothing is averaged
    np.testing.assert_allclose(weight[1:].sum("source_user"), 1, rtol=1e-6)
    np.testing.assert_allclose(weight[1:], 0.25)
    checkpoint = group(mixed, "time")["checkpoint"].values
    assert np.isnan(checkpoint[[0, -1]]).all()  # nothing to go on from, nothing to go on to
    assert (checkpoint[1:-1] > 0).all()
    seconds = group(mixed, "time")
    parts = sum(seconds[part] for part in ("experts", "routers", "aggregation", "evaluation", "writing"))
    assert (seconds["experts"][1:] > 0).all() and (seconds["routers"][1:, :2] > 0).all()
    assert (seconds["writing"] > 0).all()
    assert (parts <= seconds["total"] * 1.01).all()
    assert (group(mixed, "memory")["peak"] > 10**7).all()


def test_training_text_is_told_of_by_the_steps_themselves(results, mixed):
    """Unless it is asked for: of every round, before its updates; the other splits are as ever."""
    unsaid = results("comigs-1gxs", *MIXED, "--evaluate-every", 2, "--train-evaluation-tokens", "auto")
    train = group(unsaid, "perplexity")["train"]
    assert "each before its update" in train.attrs["long_name"]
    assert np.isnan(train[0]).all() and np.isfinite(train[1:]).all()
    np.testing.assert_allclose(train, np.exp(group(unsaid, "loss")["train"]), rtol=1e-12)
    # Of the first round's batches; a few small steps in, not far from what the base has on the whole text.
    np.testing.assert_allclose(train[1], group(mixed, "perplexity")["train"][0], rtol=0.2)
    for split in ("validation", "test"):
        ours = group(unsaid, "perplexity")[split].sel(round=2)
        assert ours.values.tolist() == group(mixed, "perplexity")[split].sel(round=2).values.tolist()


def test_rounds_that_are_not_evaluated_are_nan(results):
    path = results("fedavg", *SPARSE)
    for split in SPLITS:
        missing = np.isnan(group(path, "perplexity")[split])
        assert missing.all("user").values.tolist() == [False, True, False, False] and missing.sum() == 4
    assert np.isnan(group(path, "expert")["update_norm"]).all(("user", "layer", "expert", "projection"))[1]
    assert np.isnan(group(path, "routing")["score"]).all()  # in no round: nothing is routed
    with h5py.File(path) as file:
        assert list(file["expert/weights"]) == ["3"]


# Who shares what --------------------------------------------------------------------------------------------


def test_generalists_are_bit_equal_and_specialists_differ(mixed):
    for round_ in (0, 1, 2):
        own = [factors(mixed, round_, user) for user in range(4)]
        for name, value in own[0].items():
            holders = [user for user in range(1, 4) if name in own[user]]
            assert holders == [
                user for user in range(1, 4) if int(name.split("expert_")[1][0]) < EXPERTS[user]
            ]
            for user in holders:
                alike = "expert_0" in name or (round_ == 0 and name.endswith("_B"))
                assert np.array_equal(own[user][name], value) == alike, (round_, user, name)

    first, last = factors(mixed, 0, 2), factors(mixed, 2, 2)
    assert all((first[name] == 0).all() for name in first if name.endswith("_B"))
    assert all((last[name] != first[name]).any() for name in first)


@pytest.mark.parametrize(
    ("method", "options", "equal"),
    [
        ("local", PLAIN, ()),
        ("comigs-2s", PLAIN, ()),
        ("fedavg", SPARSE, (0, 1)),
        ("comigs-2g", PLAIN, (0, 1)),
        ("comigs-1g1s", PLAIN, (0,)),
    ],
)
def test_shared_experts_of_each_method(results, method, options, equal):
    path = results(method, *options)
    own = [factors(path, 3 if options == SPARSE else 2, user) for user in range(4)]
    assert len(own[0]) == LAYERS * 2 * 4
    for name, value in own[0].items():
        shared = int(name.split("expert_")[1][0]) in equal
        for user in (1, 2, 3):
            assert np.array_equal(own[user][name], value) == shared, (user, name)
    weight = group(path, "aggregation")["weight"][1:]
    np.testing.assert_allclose(
        weight, np.broadcast_to(np.eye(4) if method == "local" else 0.25, weight.shape)
    )
    assert (group(path, "communication")["bytes"][1:] > 0).all() == (method != "local")


def test_pretrained_has_round_0_only(results, mixed):
    path = results("pretrained")
    perplexity = group(path, "perplexity")
    assert perplexity["round"].values.tolist() == [0]
    for split in SPLITS:
        np.testing.assert_allclose(perplexity[split][0], group(mixed, "perplexity")[split][0], rtol=1e-6)
    assert group(path, "users")["experts"].values.tolist() == [0] * 4


# The numbers ------------------------------------------------------------------------------------------------


@torch.no_grad()
def brute_force_perplexity(tokens: np.ndarray) -> float:
    """transformers, a token at a time: each but the first from those before it in its window of CONTEXT."""
    model, nats = gpt2(), 0.0
    ids = torch.from_numpy(tokens)
    for position in range(1, len(ids)):
        begin = (position - 1) // CONTEXT * CONTEXT
        logits = model(ids[begin:position].unsqueeze(0)).logits[0, -1].double()
        nats -= logits.log_softmax(-1)[ids[position]].item()
    return math.exp(nats / (len(ids) - 1))


@pytest.mark.parametrize("split", SPLITS)
def test_round_0_is_the_base_model_by_brute_force(mixed, tiny_data, split):
    """With B = 0 no expert, router or attention LoRA changes anything."""
    assert CONTEXT < POSITIONS
    found = group(mixed, "perplexity")[split].sel(round=0).values
    for user in (0, 3):
        expected = brute_force_perplexity(tokens_of(tiny_data, user, split))
        print(
            f"user {user}, {split}: {found[user]:.6f}, relative difference {found[user] / expected - 1:.1e}"
        )
        assert found[user] == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def one_round(results) -> Path:
    return results("comigs-1gxs", "--rounds", 1, "--experts", "4,2,1,1")


@pytest.fixture(scope="module")
def traces(tiny_base, tiny_data, tmp_path_factory) -> list[Trace]:
    """Each user's local steps of that one round from the same initial parameters, before any averaging."""
    options = ["--data", tiny_data, "--model", tiny_base, "--output", "unused", "--method", "comigs-1gxs"]
    options += run_options("--rounds", 1, "--experts", "4,2,1,1")
    folder = tmp_path_factory.mktemp("traces")
    return [trace_steps(folder / f"{user}.safetensors", options, 4, user, deviation=0) for user in range(4)]


def is_shared(name: str) -> bool:
    return "attn" in name or "expert.0." in name


def ends(traces: list[Trace]) -> tuple[list[dict[str, torch.Tensor]], list[dict[str, torch.Tensor]]]:
    """Every user's parameters before and after the mean, which is taken here."""
    before = [
        {n: v.double() for n, v in trace.unpack(trace.tensors["values"][-1]).items()} for trace in traces
    ]
    mean = {name: torch.stack([own[name] for own in before]).mean(0) for name in before[2] if is_shared(name)}
    return before, [own | mean for own in before]


def test_generalist_is_the_mean_over_all_users_and_specialists_stay(one_round, traces):
    """Users with one expert take part."""
    _, after = ends(traces)
    for user in range(4):
        stored = factors(one_round, 1, user)
        assert len(stored) == LAYERS * EXPERTS[user] * 4
        for name, value in stored.items():
            layer, expert, factor = name.replace("layer_", "").replace("expert_", "").split("/")
            expected = after[user][f"{layer}.expert.{expert}.{factor.replace('_', '.')}"].float().numpy()
            if expert == "0":
                np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-8)
            else:
                np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("user", range(4))
def test_final_perplexity_and_routing(one_round, traces, tiny_base, tiny_data, user):
    """The models that users end up with, put together here and run by the plain reference."""
    before, after = ends(traces)
    setting = Setting(EXPERTS[user], ALPHA / math.sqrt(RANK))
    models = [PlainModel(frozen_weights(tiny_base), own[user], setting) for own in (before, after)]
    worst = 0.0
    for split in SPLITS:
        tokens = torch.from_numpy(tokens_of(tiny_data, user, split))
        expected, statistics = evaluate(models[1], tokens, CONTEXT)
        found = group(one_round, "perplexity")[split].sel(round=1).values[user]
        worst = max(worst, abs(found / expected - 1))
        if split != "train":
            earlier = group(one_round, "before_aggregation/perplexity")[split].values[user]
            worst = max(worst, abs(earlier / evaluate(models[0], tokens, CONTEXT)[0] - 1))
            assert abs(found / earlier - 1) > 1e-4  # the mean did change the model
    print(f"user {user}: relative difference of perplexities {worst:.1e}")
    assert worst <= 1e-5
    routing = group(one_round, "routing").isel(round=1, user=user)
    for layer, means in enumerate(statistics):  # of the test split, the last evaluated
        for name, value in means.items():
            stored = routing[name].sel(layer=layer)
            own = stored if name == "entropy" else stored.sel(expert=list(range(EXPERTS[user])))
            np.testing.assert_allclose(own, value, atol=1e-5)
    norms = group(one_round, "expert")["update_norm"].isel(round=1, user=user)
    for layer in range(LAYERS):
        for expert in range(EXPERTS[user]):
            for projection in ("up", "down"):
                A, B = (after[user][f"{layer}.expert.{expert}.{projection}.{factor}"] for factor in "AB")
                expected_norm = setting.scale * torch.linalg.norm(B @ A).item()
                found_norm = float(norms.sel(layer=layer, expert=expert, projection=projection))
                assert found_norm == pytest.approx(expected_norm, rel=1e-4)


# Repetition -------------------------------------------------------------------------------------------------


def data_of(path: Path) -> dict[str, np.ndarray]:
    """All arrays but those that tell of the machine."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return {name: value for name, value in found.items() if not name.startswith(("time/", "memory/"))}


def test_same_command_gives_the_same_bits(results, mixed):
    one, two = data_of(mixed), data_of(results("comigs-1gxs", *MIXED, again=True))
    assert one.keys() == two.keys() and len(one) > 100
    for name, value in one.items():
        assert (
            value.tobytes() == two[name].tobytes() or value.dtype == object and (value == two[name]).all()
        ), name


def test_an_order_of_sums_left_to_mpi_changes_rounding_only(results, mixed):
    any_order = results("comigs-1gxs", *MIXED, "--reproducible", "false")
    for split in SPLITS:
        found, ordered = (group(path, "perplexity")[split] for path in (any_order, mixed))
        np.testing.assert_allclose(found, ordered, rtol=1e-4)
    # Open MPI adds pairs of ranks first, so that some of the last bits differ.
    one, two = factors(any_order, 1, 0), factors(mixed, 1, 0)
    assert any((one[name] != two[name]).any() for name in two)


def test_bf16_communication_halves_the_bytes_and_rounds_the_shared_part(results, mixed):
    narrow = results("comigs-1gxs", *MIXED, "--communication", "bf16")
    sent = group(narrow, "communication")["bytes"]
    np.testing.assert_array_equal(sent * 2, group(mixed, "communication")["bytes"])
    for split in SPLITS:
        found = group(narrow, "perplexity")[split]
        np.testing.assert_allclose(found, group(mixed, "perplexity")[split], rtol=2e-2)
    # What was sent last has eight significant bits: the lower half of each float32 is zero.
    stored = group(narrow, "expert/weights/2/user_0/layer_0/expert_0")["up_A"].values
    assert (stored.view(np.uint32) & 0xFFFF == 0).all()
    own = group(narrow, "expert/weights/2/user_0/layer_0/expert_1")["up_A"].values
    assert (own.view(np.uint32) & 0xFFFF != 0).any()


def test_a_memory_budget_makes_micro_batches(results, tiny_base):
    """Beside the base model and what is trained there is room for two of the four sequences' activations."""
    base = (tiny_base / "model.safetensors").stat().st_size
    limited = results("fedavg", *PLAIN, "--memory", f"{(base + 420_000) / 2**30:.6f}")
    whole, halves = results("fedavg", *PLAIN), results("fedavg", *PLAIN, "--micro-batch-sequences", 2)
    found, one, two = (group(path, "perplexity")["test"].values for path in (limited, whole, halves))
    np.testing.assert_array_equal(found, two)
    assert (found[1:] != one[1:]).any()
    np.testing.assert_allclose(found, one, rtol=1e-4)


def test_another_seed_gives_another_run(results):
    one, two = (group(results("comigs-1g1s", *PLAIN, *seed), "perplexity") for seed in ((), ("--seed", 6)))
    for split in SPLITS:
        # The base, which no seed changes; but another gate mixes the same activations with other rounding.
        np.testing.assert_allclose(one[split][0], two[split][0], rtol=1e-6)
        assert (one[split][1:] != two[split][1:]).all()
