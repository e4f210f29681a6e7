"""What experts and routers learnt: subspaces, words, gaps against closed forms, and the page."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from analysis.cli import main
from analysis.insight import drawing, words
from analysis.insight.subspaces import (
    directions,
    overlap,
    principal_angles,
    similarities,
)
from analysis.measure.groups import Group
from analysis.read.results import ResultsError, open_run
from tests.helpers.report_page import Page
from tests.helpers.results_fixture import (
    default_perplexity,
    two_experts,
    write_factors,
    write_probe,
    write_results,
)

RANDOM = np.random.default_rng(0)

# Principal angles -------------------------------------------------------------------------------------------


def test_directions_are_those_of_the_product():
    down, up = RANDOM.standard_normal((3, 7)), RANDOM.standard_normal((11, 3))
    found = directions(down, up)
    left, strength, right = np.linalg.svd(up @ down)
    assert (found.output.shape, found.input.shape) == ((11, 3), (7, 3))
    np.testing.assert_allclose(found.output @ found.output.T, left[:, :3] @ left[:, :3].T, atol=1e-12)
    np.testing.assert_allclose(found.input @ found.input.T, right[:3].T @ right[:3], atol=1e-12)


def test_a_lost_rank_and_an_untrained_update_have_fewer_directions():
    down, up = RANDOM.standard_normal((3, 7)), RANDOM.standard_normal((11, 3))
    down[2] = down[0] + down[1]
    assert directions(down, up).output.shape == (11, 2)
    nothing = directions(down, np.zeros((11, 3)))
    assert nothing.output.shape == (11, 0) and math.isnan(overlap(nothing.output, nothing.output))


def test_angles_of_identical_orthogonal_and_rotated_planes():
    plane = np.eye(6)[:, :2]
    # Another basis of the same plane: arccos near 1 keeps half of the digits.
    mixed = plane @ np.array([[0.6, -0.8], [0.8, 0.6]])
    np.testing.assert_allclose(principal_angles(plane, mixed), 0.0, atol=1e-7)
    np.testing.assert_allclose(principal_angles(plane, np.eye(6)[:, 2:4]), math.pi / 2)
    assert (overlap(plane, mixed), overlap(plane, np.eye(6)[:, 2:4])) == pytest.approx((1.0, 0.0))
    for theta in (0.1, 0.7, 1.5):
        rotated = plane.copy()
        rotated[:, 1] = math.cos(theta) * np.eye(6)[1] + math.sin(theta) * np.eye(6)[4]
        np.testing.assert_allclose(principal_angles(plane, rotated), [0.0, theta], atol=1e-7)
        assert overlap(plane, rotated) == pytest.approx((1 + math.cos(theta) ** 2) / 2)


def test_similarities_between_users_experts(tmp_path):
    """The generalist writes along axis 0, German's specialist 60 degrees from it, Dutch's along axis 1."""
    write_results(tmp_path / "run", layers=1)
    read = np.eye(5)[:1]
    writes = {
        "g": np.eye(4)[:, :1],
        "German": np.array([[0.5], [0.0], [math.sqrt(0.75)], [0.0]]),
        "Dutch": np.eye(4)[:, 1:2],
    }
    for user, name in enumerate(("German", "Dutch")):
        write_factors(tmp_path / "run", 3, user, 0, 0, 2.0 * read, 3.0 * writes["g"])
        write_factors(tmp_path / "run", 3, user, 0, 1, -read, writes[name])
    run = open_run(tmp_path / "run")
    found = similarities(run)
    assert [expert.name for expert in found.experts] == ["generalist", "German", "Dutch"]
    expected = [[1.0, 0.25, 0.0], [0.25, 1.0, 0.0], [0.0, 0.0, 1.0]]
    np.testing.assert_allclose(found.overlap["output"][0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(found.overlap["input"][0, 0], 1.0, atol=1e-6)
    between = found.between()
    assert list(between) == ["specialist and generalist", "specialists of two users"]
    assert between["specialist and generalist"]["output"][0, 0] == pytest.approx(0.125)
    assert between["specialists of two users"]["output"][0, 0] == pytest.approx(0.0, abs=1e-9)
    assert found.chance == pytest.approx({"output": 0.25, "input": 0.2})


def test_a_gated_expert_has_three_projections(tmp_path):
    """Specialist and generalist write alike in `up` and `down`, orthogonally in `gate`."""
    write_results(tmp_path / "run", users=("German",), experts=[2], generalists=[1], layers=1)
    read, axes = np.eye(5)[:1], np.eye(4)
    for expert in (0, 1):
        write_factors(tmp_path / "run", 3, 0, 0, expert, read, axes[:, :1])
        write_factors(tmp_path / "run", 3, 0, 0, expert, read, axes[:, expert : expert + 1], ["gate"])
    found = similarities(open_run(tmp_path / "run"))
    assert found.overlap["output"][0, 0, 0, 1] == pytest.approx(2 / 3)
    assert found.overlap["input"][0, 0, 0, 1] == pytest.approx(1.0)
    with h5py.File(tmp_path / "run" / "results.h5", "a") as file:
        del file["expert/weights/3/user_0/layer_0/expert_1/gate_A"]
    with pytest.raises(ResultsError, match="expert_1' lacks gate_A or _B"):
        similarities(open_run(tmp_path / "run"))


def held(folder: Path, generalist: list[list[int]], values: list[list[float]]) -> list[tuple]:
    """Name, holders, user and number of the distinct experts whose factors all hold `values`."""
    users = ("German", "Dutch", "French")
    count = [len(own) for own in values]
    padded = [own + [-1] * (max(count) - len(own)) for own in generalist]
    # As many are shared as the counts say, whichever they are.
    shared = [sum(number >= 0 for number in own) for own in generalist]
    write_results(folder, users=users, layers=2, experts=count, generalists=shared, generalist=padded)
    for user, own in enumerate(values):
        for number, value in enumerate(own):
            for layer in range(2):
                # The first layer is the same for all: one layer that differs makes another expert.
                factors = np.full((1, 3), value if layer else 1.0), np.full((4, 1), 1.0)
                write_factors(folder, 3, user, layer, number, *factors)
    found = similarities(open_run(folder)).experts
    return [(one.name, *one.holders, one.user, one.number) for one in found]


def test_generalists_are_told_apart_by_number_and_each_is_there_once(tmp_path):
    """Generalist 1 is German's expert 1 and Dutch's expert 0; it happens to equal generalist 0."""
    found = held(tmp_path / "run", [[0, 1], [1, -1], [0, -1]], [[5, 5], [5, 7], [5, 8]])
    assert found == [
        ("generalist 0", "German", "French", 0, 0),
        ("generalist 1", "German", "Dutch", 0, 1),
        ("Dutch", "Dutch", 1, 1),
        ("French", "French", 2, 1),
    ]
    assert main(["insight", str(tmp_path / "run")]) == 0
    page = Page((tmp_path / "run" / "insight.html").read_text(encoding="utf-8"))
    assert "held by some users: generalist 0 by German, French; generalist 1 by German, Dutch." in page.text


def test_a_generalist_that_differs_by_user_is_an_entry_a_version(tmp_path):
    found = held(tmp_path / "run", [[0], [0], [0]], [[5], [6], [5]])
    assert found == [("g0 German", "German", "French", 0, 0), ("g0 Dutch", "Dutch", 1, 0)]


def test_generalists_are_known_by_their_numbers(tmp_path):
    """Both have one generalist, as the counts say, but not the same one."""
    write_results(tmp_path / "run", experts=[3, 2], generalist=[[0, -1, -1], [1, -1, -1]])
    run = open_run(tmp_path / "run")
    assert run.experts("German") == [("generalist", 0), ("specialist", 0), ("specialist", 1)]
    assert run.experts("Dutch") == [("generalist", 1), ("specialist", 0)]
    assert run.expert_roles("Dutch") == ["generalist", "specialist"]


# Words ------------------------------------------------------------------------------------------------------


def test_frequency_classes_by_rank():
    counts = np.zeros(2000, dtype=int)
    counts[:1200] = 5000 - np.arange(1200)  # token i has rank i + 1
    ids = np.array([0, 9, 10, 29, 30, 99, 100, 299, 300, 999, 1000, 1199, 1500, 99999])
    assert words.frequency_classes(ids, counts).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5, 5]
    # Equal counts share the best rank.
    assert words.frequency_classes(np.array([3, 40]), np.full(50, 7)).tolist() == [0, 0]
    assert words.frequency_names()[0] == "1–10" and words.frequency_names()[-1] == "over 1,000"


def test_word_classes_put_pieces_together():
    texts = ["The", " ko", "ala", " and", " an", "y", ",", " 7", " of", "\n", "the"]
    function, content, other = range(3)
    expected = [
        function,
        content,
        content,
        function,
        function,
        function,
        other,
        other,
        function,
        other,
        function,
    ]
    assert words.word_classes(texts, "unknown").tolist() == expected
    assert words.word_classes([" die", " Mutter"], "German").tolist() == [function, content]
    assert words.word_classes([" die", " mother"], "English").tolist() == [content, content]


def test_training_counts_need_the_very_data(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    np.array([1, 1, 2], dtype=np.uint16).tofile(data / "a.bin")
    np.array([0, 3], dtype=np.uint16).tofile(data / "b.bin")
    users = [
        {"name": name, "splits": {"train": {"file": file}}}
        for name, file in (("German", "a.bin"), ("Dutch", "b.bin"))
    ]
    text = json.dumps({"dtype": "uint16", "users": users}).encode()
    (data / "manifest.json").write_bytes(text)
    digest = hashlib.sha256(text).hexdigest()
    for name, known in (("same", digest), ("other", "0" * 64)):
        write_results(tmp_path / name, folders=(str(data), "base"), attributes={"data_digest": known})
    counts = words.training_counts(open_run(tmp_path / "same"))
    assert [one.tolist() for one in counts] == [[0, 2, 1], [1, 0, 0, 1]]
    assert words.training_counts(open_run(tmp_path / "other")) is None
    cut = {"train_tokens": [2, 1]}
    write_results(
        tmp_path / "cut", folders=(str(data), "base"), attributes={"data_digest": digest}, users_extra=cut
    )
    assert [one.tolist() for one in words.training_counts(open_run(tmp_path / "cut"))] == [[0, 2], [1]]


def test_means_by_class():
    values = np.array([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]])
    means = words.mean_by_class(values, np.array([0, 0, 2]), 3)
    np.testing.assert_array_equal(means, [[2.0, 20.0], [np.nan, np.nan], [5.0, 50.0]])


# Gaps and aggregation ---------------------------------------------------------------------------------------


def test_gap_is_zero_at_the_start_and_counts_in_nats(tmp_path):
    test = np.array([[100.0, 90.0], [80.0, 80.0], [60.0, 60.0]])
    validation = np.array([[50.0, 90.0], [40.0, 40.0], [60.0 / math.e, 60.0]])
    write_results(
        tmp_path / "run", rounds=3, perplexity={"test": test, "validation": validation, "train": test}
    )
    group = Group("x", [open_run(tmp_path / "run")])
    gap = drawing.gap_since_start(group, "German", "validation")
    np.testing.assert_allclose(gap.values, [0.0, 0.0, 1.0 - math.log(2.0)], atol=1e-12)
    gap = drawing.gap_since_start(group, "Dutch", "validation")
    np.testing.assert_allclose(gap.values, [0.0, math.log(2.0), 0.0], atol=1e-12)


def test_only_weights_that_change_are_drawn(tmp_path):
    constant = np.full((4, 2, 2), 0.5)
    changing = constant.copy()
    changing[3] = np.eye(2)
    for name, weights in (("constant", constant), ("changing", changing)):
        write_results(tmp_path / name, arrays={"aggregation/weight": ("round user user", weights)})
    groups = {name: Group(name, [open_run(tmp_path / name)]) for name in ("constant", "changing")}
    assert drawing.weights_that_vary(groups["constant"]) is None
    found = drawing.weights_that_vary(groups["changing"])
    titles = [axes.get_title(loc="left") for axes in drawing.aggregation_weights(found).axes]
    assert titles[:2] == ["round 1", "round 3"]


# The page ---------------------------------------------------------------------------------------------------


def test_page_with_everything(tmp_path):
    entropy = np.full((4, 2, 3), 0.5)
    load = np.full((4, 2, 3, 4), 0.5)
    write_results(
        tmp_path / "run",
        method="comigs-1gxs",
        experts=[4, 2],
        users=("German", "<script>x</script>"),
        perplexity=default_perplexity(2, 4),
        arrays={
            "routing/entropy": ("round user layer", entropy),
            "routing/load": ("round user layer expert", load),
        },
    )
    score = np.full((2, 2, 3, 4), np.nan)
    score[0], score[1, ..., :2] = 0.25, two_experts(1, 2, 3, 0.5)[0]
    write_probe(tmp_path / "run", "text", ["the", " word"], score, owner="German")
    for user, experts in enumerate((4, 2)):
        for layer in range(3):
            for expert in range(experts):
                factors = RANDOM.standard_normal((2, 6)), RANDOM.standard_normal((9, 2))
                write_factors(tmp_path / "run", 3, user, layer, expert, *factors)
    output = tmp_path / "insight.html"
    assert main(["insight", str(tmp_path / "run"), "--output", str(output)]) == 0
    page = Page(output.read_text(encoding="utf-8"))
    names = {path.stem for path in (tmp_path / "insight_figures").glob("*.png")}
    assert names == {"entropy", "load", "words", "overlap", "overlap_pairs", "gaps"}
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert sum(tag == "svg" for tag, _ in page.tags) == len(names)


def test_page_of_a_run_with_little_says_what_is_missing(tmp_path):
    write_results(tmp_path / "run", method="local", router=False, generalists=[0, 0])
    assert main(["insight", str(tmp_path / "run")]) == 0
    page = Page((tmp_path / "run" / "insight.html").read_text(encoding="utf-8"))
    for words_ in (
        "no routing entropy",
        "no tokens of a user",
        "no weights of two",
        "the same in every round",
    ):
        assert words_ in page.text


def test_shared_axes_hold_every_panel(tmp_path):
    """The second user's entropy, and what is read, are far above what the first panel has."""
    entropy = np.full((4, 2, 3), 0.1)
    entropy[:, 1] = 3.0
    write_results(tmp_path / "run", layers=3, arrays={"routing/entropy": ("round user layer", entropy)})
    same, reads = np.eye(40)[:2], np.eye(3)[:2]
    for user in range(2):
        for layer in range(3):
            for expert in range(2):
                write_factors(
                    tmp_path / "run", 3, user, layer, expert, reads, np.roll(same, 2 * user + expert, 1).T
                )
    run = open_run(tmp_path / "run")
    for drawn, highest in (
        (drawing.entropy_over_rounds(Group("x", [run])), 3.0),
        (drawing.overlaps_by_layer(similarities(run)), 1.0),
    ):
        assert all(axes.get_ylim()[0] == 0 and axes.get_ylim()[1] >= highest for axes in drawn.axes)
