"""Figures and table of a mixture of prompts, from results files with numbers that can be worked out by hand."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from analysis.cli import main
from analysis.measure import categories
from analysis.paper import mop_table, prompt_weights
from analysis.paper.items import ITEMS
from analysis.read.results import open_run
from tests.helpers.results_fixture import Sweep, write_results

USERS = ("client_0", "client_1")
CATEGORIES = ("open_qa", "closed_qa", "summary", "poem")
ROUNDS, WARM_UP = 7, 2  # rounds 0 to 6; pretrained after 2, half-way after 4


def gate(sharpness: float) -> np.ndarray:
    """Uniform at 0, a group a category at 1."""
    return (1 - sharpness) / 4 + sharpness * np.eye(4)


def weights(own: bool = False) -> np.ndarray:
    """[round, user, category, group]: sharper by the round; a user with a gate of its own is half as sharp."""
    by_round = np.stack([gate(number / (ROUNDS - 1)) for number in range(ROUNDS)])
    other = np.stack([gate(number / (ROUNDS - 1) / 2) for number in range(ROUNDS)]) if own else by_round
    return np.stack([by_round, other], axis=1)


def instruction_arrays(weight: np.ndarray | None) -> dict[str, tuple[str, np.ndarray]]:
    loss = np.log(np.array([10.0, 20.0, 40.0, 80.0]))
    arrays = {
        "category/loss_test": ("round user category", np.tile(loss, (ROUNDS, 2, 1))),
        "users/train_examples": ("user category", np.array([[30, 10, 0, 0], [0, 0, 5, 5]])),
        "users/test_examples": ("user category", np.tile([12, 8, 1200, 5], (2, 1))),
    }
    return arrays | ({} if weight is None else {"prompt/weight": ("round user category expert", weight)})


PRUNED = json.dumps({"method": "sparsegpt", "zeros": 7, "of": 8})


def results(
    folder: Path, weight: np.ndarray | None, method: str = "mop", pruned: str = PRUNED, **more
) -> Path:
    attributes = {
        "gate_warmup_rounds": WARM_UP,
        "base_pruning": pruned,
    }
    arguments = {
        "users": USERS,
        "rounds": ROUNDS,
        "experts": [4, 4],
        "generalists": [4, 4],
        "router": False,
        "categories": CATEGORIES,
        "users_extra": {"prompt_tokens": [10, 10], "prompt_layer": [4, 4]},
        "arrays": instruction_arrays(weight),
    }
    attributes |= more.pop("attributes", {})
    return write_results(folder, method=method, attributes=attributes, **arguments | more)


@pytest.fixture
def run(tmp_path):
    return open_run(results(tmp_path, weights()))


def array(table: np.ndarray) -> xr.DataArray:
    return xr.DataArray(table, dims=("category", "expert"))


def test_mutual_information_of_gates_with_closed_forms():
    assert categories.mutual_information(array(gate(0.0))) == pytest.approx(0.0, abs=1e-12)
    assert categories.mutual_information(array(np.eye(4))) == pytest.approx(math.log(4))
    # Two categories share a group each: log 2 of the four groups' log 4.
    halves = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=float)
    assert categories.mutual_information(array(halves)) == pytest.approx(math.log(2))
    # A gate that is sure of one group whatever the category says nothing of it.
    assert categories.mutual_information(array(np.tile([1.0, 0.0], (4, 1)))) == pytest.approx(0.0)
    # As the definition from joint probabilities says: sum p(c, g) log(p(c, g) / (p(c) p(g))).
    table = np.random.default_rng(0).dirichlet(np.ones(5), 3)
    joint = table / 3
    expected = (joint * np.log(joint / (joint.sum(0) * joint.sum(1, keepdims=True)))).sum()
    assert categories.mutual_information(array(table)) == pytest.approx(expected)


def test_what_is_missing_does_not_count_for_mutual_information():
    table = np.full((5, 6), np.nan)
    table[:4, :4] = gate(0.5)
    assert categories.mutual_information(array(table)) == pytest.approx(
        categories.mutual_information(array(gate(0.5)))
    )


def test_stages_are_before_during_and_after_training(run):
    found = categories.stages(run, categories.gate_weights(run))
    assert [stage.round for stage in found] == [0, 2, 4, 6]
    assert [stage.name for stage in found][1] == "gate pretrained"


def test_stages_are_the_nearest_rounds_that_were_evaluated(tmp_path):
    weight = weights()
    weight[[1, 2, 4, 5]] = np.nan
    run = open_run(results(tmp_path, weight))
    assert [stage.round for stage in categories.stages(run, categories.gate_weights(run))] == [0, 3, 3, 6]


def test_without_a_warm_up_the_start_is_shown_once(tmp_path):
    weight = weights()
    weight[1] = np.nan  # as with every second round evaluated
    run = open_run(results(tmp_path, weight, attributes={"gate_warmup_rounds": 0}))
    found = categories.stages(run, categories.gate_weights(run))
    assert [(stage.name, stage.round) for stage in found][:2] == [("before training", 0), ("early", 2)]


def test_the_mean_over_users_and_who_has_a_gate_of_its_own(tmp_path):
    shared, own = (
        categories.gate_weights(open_run(results(tmp_path / str(is_own), weights(is_own))))
        for is_own in (False, True)
    )
    assert not categories.differ_between_users(shared) and categories.differ_between_users(own)
    last = categories.over_users(own.sel(round=6))
    np.testing.assert_allclose(last, (gate(1.0) + gate(0.5)) / 2, atol=1e-6)
    np.testing.assert_allclose(last.sum("expert"), 1.0, atol=1e-6)


def test_perplexity_in_domain_is_that_of_the_own_mixture(run, tmp_path):
    # Three quarters of 10 and one of 20, geometric; half of 40 and of 80.
    np.testing.assert_allclose(categories.in_domain(run), [10 * 2**0.25, 40 * 2**0.5], rtol=1e-6)
    assert categories.in_domain(open_run(write_results(tmp_path / "plain"))) is None


def test_both_readings_of_a_pattern_are_told():
    said = prompt_weights.pruning
    assert said("") == "not pruned"
    for text in ("none", "[]", '{"method": "$x$", "share": 0.5}', '{"method": "wanda"}', "[" * 100_000):
        assert said(text) == "pruned, its record is damaged"
    for text in (
        '"share": "half"',
        '"share": null',
        '"zeros": 3, "of": 0',
        '"zeros": [3], "of": 4',
        '"of": 4',
    ):
        assert said(f'{{"method": "wanda", {text}}}') == "pruned, its record is damaged"
    assert said('{"method": "wanda", "share": 0.75}') == "pruned by wanda: 75 % zeros, unstructured"
    three = said('{"method": "sparsegpt", "zeros": 3, "of": 4}')
    assert "3 zeros of every 4 inputs (75 % zeros)" in three and "read as kept, it would be 25 %" in three
    assert "87.5 % zeros" in said(PRUNED) and "read as kept, it would be 12.5 %" in said(PRUNED)
    assert "its caption says 50 %" in said(PRUNED)
    assert "in either reading" in said('{"method": "magnitude", "zeros": 2, "of": 4}')


# The commands -------------------------------------------------------------------------------------------------


def swept(folder: Path, bases: tuple[str, ...] = ("instructions-75", "instructions-7of8")) -> Sweep:
    """Three seeds of prompt tuning (50, 52, 54) and a mixture (40, 39, 54), federated; one of the centralised."""
    made = Sweep(folder)
    finals = {"fedprompt": (50.0, 52.0, 54.0), "mop": (40.0, 39.0, 54.0), "mop-own-gate": (41.0, 41.0, 41.0)}
    for base in bases:
        for method, values in finals.items():
            for seed, value in enumerate(values):
                add(made, base, method, seed, "Federated", value)
        add(made, base, "mop-centralized", 0, "Centralised", 30.0)
        add(made, base, "prompt-centralized", 0, "Centralised", 40.0)
    return made


def add(made: Sweep, base: str, method: str, seed: int, section: str, value: float) -> None:
    is_gated = method.startswith("mop")
    test = np.full((ROUNDS, 2), value)
    folder = made.add(
        base, method, seed, [("mop-table", method.upper(), section, {})],
        perplexity={"test": test, "validation": test, "train": test}, rounds=ROUNDS,
    )  # fmt: skip
    weight = weights(method == "mop-own-gate") if is_gated else None
    experts = [4, 4] if is_gated else [1, 1]
    extra = {"prompt_tokens": [10 if is_gated else 40] * 2, "prompt_layer": [4, 4]}
    results(
        folder, weight, method, seed=seed, experts=experts, attributes={"data_set": base}, users_extra=extra,
        perplexity={"test": test, "validation": test, "train": test}, generalists=experts,
    )  # fmt: skip


def drawn(folder: Path, item: str, *more: str) -> dict[str, Path]:
    assert main([item, "--index", str(folder / "index.json"), *more]) == 0
    return {path.name: path for path in (folder / "paper").iterdir()}


def test_a_figure_s_csv_has_every_weight(tmp_path):
    swept(tmp_path)
    files = drawn(tmp_path, "mop-figure10")
    assert {"mop-figure10.svg", "mop-figure10.png", "mop-figure10.csv"} <= set(files)
    assert "mop-figure10_users.png" not in files
    with files["mop-figure10.csv"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == prompt_weights.COLUMNS
    assert len(rows) == 3 * 4 * 3 * 4 * 4  # seeds, stages, two users and their mean, categories, groups
    assert {row["base"] for row in rows} == {"7 zeros of 8"} and {row["group"] for row in rows} == {
        "G0", "G1", "G2", "G3",
    }  # fmt: skip
    expected = {0: gate(0), 2: gate(1 / 3), 4: gate(2 / 3), 6: gate(1)}
    for row in rows:
        place = CATEGORIES.index(row["category"]), int(row["group"][1:])
        assert float(row["weight"]) == pytest.approx(expected[int(row["round"])][place], abs=1e-6)
    assert {(row["category"], row["test_examples"]) for row in rows} == {
        ("open_qa", "12"), ("closed_qa", "8"), ("summary", "1200"), ("poem", "5"),
    }  # fmt: skip


def test_gates_of_their_own_have_a_panel_a_user(tmp_path):
    swept(tmp_path, ("instructions-75",))
    files = drawn(tmp_path, "mop-weights", "--bars")
    own = "mop-weights_instructions-75_mop-own-gate"
    assert {f"{own}.svg", f"{own}_users.svg", "mop-weights_instructions-75_mop.svg"} <= set(files)
    assert not any("fedprompt" in name for name in files)
    shared = "mop-weights_instructions-75_mop_users.svg"
    assert shared not in files


def test_the_caption_tells_what_was_run(run):
    words = prompt_weights.caption(run)
    for expected in (
        "Federated, 2 users, seed 0, prompts enter block 4, gate pretrained on categories for 2 rounds",
        "base small-base, pruned by sparsegpt: 7 zeros of every 8",
    ):
        assert expected in words
    assert "values are not known" in prompt_weights.UNKNOWN


def test_the_table_has_means_changes_and_the_published_ranges_as_words(tmp_path):
    swept(tmp_path)
    text = drawn(tmp_path, "mop-table")["mop-table.md"].read_text(encoding="utf-8")
    whole, in_domain, change = text.split("### ")[1:]
    assert "| 75 % zeros | 7 zeros of 8 |" in " ".join(whole.split())
    assert "**40.00" not in whole and "44.33 (8.39)" in whole and "52.00 (2.00)" in whole
    mean = (10 * 2**0.25 + 40 * 2**0.5) / 2
    assert f"{mean:.2f} (0.00)" in in_domain
    # -20 %, -25 %, 0 %: mean -15, sample deviation sqrt((25 + 100 + 225) / 2).
    assert f"-15.00 ({math.sqrt(175):.2f})" in change and "-25.00" in change
    assert "9 to 70 %" in change and "9 to 70 %" not in whole
    assert not any(word in text for word in ("published (", "prompts a user, compared"))
    with (tmp_path / "paper" / "mop-table.csv").open(encoding="utf-8", newline="") as file:
        assert {row["source"] for row in csv.DictReader(file)} == {"measured, scale small"}


def test_unequal_numbers_of_prompts_are_told(tmp_path):
    made = Sweep(tmp_path)
    add(made, "instructions", "mop", 0, "Federated", 40.0)
    add(made, "instructions", "fedprompt", 0, "Federated", 50.0)
    folder = tmp_path / made.runs[1]["folder"]
    results(folder, None, "fedprompt", experts=[1, 1])
    text = drawn(tmp_path, "mop-table")["mop-table.md"].read_text(encoding="utf-8")
    assert "MOP on dense: 40 prompts a user, compared with 10." in text


def test_one_command_makes_all_that_there_is(tmp_path, capsys):
    made = Sweep(tmp_path)
    for method in ("mop", "mop-centralized"):
        add(made, "instructions-75", method, 0, "", 40.0)
    drawn(tmp_path, "mop-figure1", "--bars")  # is replaced
    files = drawn(tmp_path, "mop")
    there = {"mop-table.md", "mop-weights_instructions-75_mop.png", "mop-figure1.png", "mop-figure7.png"}
    assert there <= set(files) and "mop-figure2.png" not in files
    assert "note: mop-figure2: " in capsys.readouterr().out


def test_nothing_finished_is_an_error(tmp_path, capsys):
    made = Sweep(tmp_path)
    made.add("instructions-75", "mop", 0, [("mop-table", "MoP")], status="missing")
    for item in ("mop-figure7", "mop-table", "mop"):
        assert main([item, "--index", str(tmp_path / "index.json")]) == 2
        assert "no finished run of" in capsys.readouterr().err


def test_every_published_figure_has_its_item():
    assert {f"mop-figure{number}" for number in range(1, 13)} < set(ITEMS)
    settings = [setting for setting, _ in prompt_weights.FIGURES.values()]
    assert settings == ["centralised"] * 6 + ["federated"] * 6
    assert len(set(prompt_weights.FIGURES.values())) == 12
    assert set(mop_table.PAIRS) > set(mop_table.OURS)
