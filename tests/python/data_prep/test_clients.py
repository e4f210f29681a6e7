"""`python -m data_prep instructions --clients N`: what is dealt to whom, against a reference that knows sizes alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_prep.clients import Deal, dealt
from data_prep.documents import Corpus, Example
from data_prep.errors import DataError
from data_prep.splits import SPLITS, Assigned, Plan
from tests.helpers.data_set_reader import DataSet, made, refused, write_jsonl

SIZES = {"asked": 700, "told": 400, "sung": 900, "drawn": 330}
PLAN = Plan({"train": 0.8, "validation": 0.1, "test": 0.1}, 0.2, 0.05, 0)


def example(category: str, number: int, key: str) -> Example:
    return Example(f"{category} {number}: yes", key, category, f"{category} {number}: ", "yes")


def corpus(sizes: dict[str, int] = SIZES, about: int = 1) -> Corpus:
    """`about`: so many examples of a category are about the same passage; every eleventh passage is one of all."""

    def key(category: str, number: int) -> str:
        passage = number // about
        return f"passage {passage}" if about > 1 and passage % 11 == 0 else f"{category} passage {passage}"

    return Corpus(
        {name: [example(name, i, key(name, i)) for i in range(count)] for name, count in sizes.items()}
    )


def counted(assigned: Assigned, *splits: str) -> dict[str, Counter[str]]:
    return {
        client: Counter(one.category for split in splits for one in held[split])
        for client, held in assigned.users.items()
    }


def tenth(count: float) -> int:
    """Rounded half up."""
    return int(count / 10 + 0.5)


def check(assigned: Assigned, deal: Deal, held: dict[str, int]) -> None:
    """`held`: examples of each category that are in nobody's base. Test is a tenth of them; of the others so many as
    asked for, or all, are dealt: of each category n, u = floor(n / (heavy + N - 1)) to N - 1 clients, n - u (N - 1) to
    one; validation is a tenth of a part, at least one, or if common the second tenth of a category."""
    names = [f"client_{number}" for number in range(deal.clients)]
    assert list(assigned.users) == names
    assert all(users["test"] == assigned.users["client_0"]["test"] for users in assigned.users.values())
    test = Counter(one.category for one in assigned.users["client_0"]["test"])
    assert test == {name: tenth(count) for name, count in held.items()}
    own = deal.validation == "own"
    parts = counted(assigned, "train", "validation") if own else counted(assigned, "train")
    left = {name: count - tenth(count if own else 2 * count) for name, count in held.items()}
    drawn = {name: sum(part[name] for part in parts.values()) for name in held}
    assert sum(drawn.values()) == min(deal.samples, sum(left.values()))
    for name, n in drawn.items():
        assert n <= left[name]
        u = n // (deal.heavy + deal.clients - 1)
        sizes = sorted(part[name] for part in parts.values())
        assert sizes == [u] * (deal.clients - 1) + [n - u * (deal.clients - 1)]
    if own:
        for client, counts in counted(assigned, "validation").items():
            for name, part in parts[client].items():
                assert counts[name] == (max(1, tenth(part)) if part > 1 else 0)


def check_apart(assigned: Assigned) -> None:
    """No passage is in two splits, whoever's, and the base's documents are nobody's."""
    keys: dict[str, set[str]] = {
        split: {one.key for users in assigned.users.values() for one in users[split]} for split in SPLITS
    }
    assert assigned.base is not None
    keys["base"] = {one.key for documents in assigned.base.values() for one in documents}
    assert sum(map(len, keys.values())) == len(set.union(*keys.values()))
    trained = [one.text for users in assigned.users.values() for one in users["train"]]
    assert len(trained) == len(set(trained))


@pytest.mark.parametrize("validation", ["own", "common"])
@pytest.mark.parametrize("samples", [1000, 5000])
def test_sizes_of_2_to_50_clients(validation, samples):
    held = {name: count - round(0.2 * count) for name, count in SIZES.items()}
    for clients in range(2, 51):
        deal = Deal(clients, samples, 15, validation)
        assigned = dealt(corpus(), PLAN, deal)
        check(assigned, deal, held)
        check_apart(assigned)


@pytest.mark.parametrize("validation", ["own", "common"])
@pytest.mark.parametrize("about", [2, 3, 7])
def test_passages_with_several_examples_stay_in_one_split(validation, about):
    for clients in (2, 5, 17):
        deal = Deal(clients, 5000, 15, validation)
        assigned = dealt(corpus(about=about), PLAN, deal)
        check_apart(assigned)
        for name, sizes in assigned.clients["categories"].items():
            parts = counted(assigned, "train", *(["validation"] if validation == "own" else []))
            expected = [sizes["partition"]] * (clients - 1) + [sizes["heavy"]]
            assert sorted(part[name] for part in parts.values()) == expected


def heavy_clients(seed: int) -> list[str]:
    plan = Plan(PLAN.fractions, 0.2, 0.05, seed)
    parts = counted(dealt(corpus(), plan, Deal(10, 1000, 15, "own")), "train")
    return [max(parts, key=lambda client: parts[client][name]) for name in SIZES]


def test_categories_have_orders_of_their_own():
    """Over seeds every client is a category's heavy one about as often as another: 60 draws of 10."""
    found = [heavy_clients(seed) for seed in range(60)]
    assert all(len(set(heavy)) > 1 for heavy in found[:3])
    for place in range(len(SIZES)):
        often = Counter(heavy[place] for heavy in found)
        assert len(often) == 10 and max(often.values()) <= 16


def test_samples_are_drawn_in_proportion_and_by_seed():
    deal = Deal(4, 800, 15, "own")
    drawn = []
    for seed in range(20):
        assigned = dealt(corpus(), Plan(PLAN.fractions, 0.2, 0.05, seed), deal)
        drawn.append(sum(counted(assigned, "train", "validation").values(), Counter()))
    left = {name: 0.72 * count for name, count in SIZES.items()}
    for name, count in left.items():
        expected = 800 * count / sum(left.values())
        assert abs(np.mean([one[name] for one in drawn]) - expected) < 4  # a draw's deviation is below 10
    assert len({tuple(sorted(one.items())) for one in drawn}) > 10


def test_too_many_clients_are_refused_with_the_largest_number_that_works():
    sizes = {"asked": 400, "told": 60}
    with pytest.raises(DataError, match=r"category told has (\d+) samples.*at most (\d+) clients") as error:
        dealt(corpus(sizes), PLAN, Deal(40, 5000, 15, "common"))
    most = int(str(error.value).split("at most ")[1].split()[0])
    assert 2 <= most < 40
    assigned = dealt(corpus(sizes), PLAN, Deal(most, 5000, 15, "common"))
    assert min(part["told"] for part in counted(assigned, "train").values()) == 1
    with pytest.raises(DataError, match=f"at most {most} clients"):
        dealt(corpus(sizes), PLAN, Deal(most + 1, 5000, 15, "common"))
    with pytest.raises(DataError, match="a lower --heavy"):
        dealt(corpus(sizes), PLAN, Deal(2, 5000, 300, "common"))


# The command --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    rows = [
        {"category": name, "instruction": f"{name} {number}: what is it?", "response": f"it is {number}"}
        for name, count in {"asked": 260, "told": 200}.items()
        for number in range(count)
    ]
    return write_jsonl(tmp_path_factory.mktemp("source") / "records.jsonl", rows)


def prepared(source: Path, folder: Path, *more: object) -> tuple[DataSet, str]:
    told = made("instructions", "--source", source, "--vocabulary", 300, "--output", folder, *more)
    return DataSet(folder), told


def test_files_and_manifest_say_what_was_dealt(source, tmp_path):
    data, told = prepared(source, tmp_path / "data", "--clients", 3, "--heavy", 4, "--samples", 300)
    assert data.users == ["client_0", "client_1", "client_2"]
    assert data.manifest["categories"] == ["asked", "told"]
    clients = data.manifest["splits"]["clients"]
    assert {name: clients[name] for name in ("count", "samples_asked", "samples", "heavy", "validation")} == {
        "count": 3, "samples_asked": 300, "samples": 300, "heavy": 4, "validation": "own",
    }  # fmt: skip
    table = {
        split: [data.files[user, split]["examples"]["by_category"] for user in data.users] for split in SPLITS
    }
    parts = np.array(table["train"]) + np.array(table["validation"])
    for number, name in enumerate(data.manifest["categories"]):
        sizes = clients["categories"][name]
        u, n = sizes["partition"], sizes["samples"]
        assert u == n // 6 and sizes["heavy"] == n - 2 * u and sizes["ratio"] == round(sizes["heavy"] / u, 3)
        assert sorted(parts[:, number]) == [u, u, sizes["heavy"]]
    assert len({data.files[user, "test"]["sha256"] for user in data.users}) == 1
    assert table["test"][0] == [21, 16]  # a tenth of the four fifths that are no base
    assert "300 samples to 3 clients" in told and "337 examples of at most 256 tokens" in told
    seen = {split: set(data.documents("client_0", split)) for split in SPLITS}
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]


def test_fewer_samples_than_asked_for_are_told(source, tmp_path):
    data, told = prepared(source, tmp_path / "data", "--clients", 2)
    clients = data.manifest["splits"]["clients"]
    assert clients["samples_asked"] == 5000 and clients["samples"] == 460 - 92 - 37
    assert "331 samples (5,000 asked for) to 2 clients" in told


def test_same_files_for_the_same_seed(source, tmp_path):
    digests = []
    for number, seed in enumerate((0, 0, 1)):
        data, _ = prepared(source, tmp_path / str(number), "--clients", 4, "--heavy", 2, "--seed", seed)
        digests.append({
            (*place, what): told["sha256"]
            for place, entry in data.files.items()
            for what, told in (("tokens", entry), ("index", entry.get("examples", entry)))
        })  # fmt: skip
    assert digests[0] == digests[1] != digests[2]
    assert "nothing to do" in prepared(source, tmp_path / "0", "--clients", 4, "--heavy", 2)[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--clients", 1], "--clients"),
        (["--clients", 4, "--heavy", 0], "--heavy"),
        (["--clients", 4, "--users", "asked"], "--clients and --users"),
        (["--samples", 100], "--samples: is for --clients only"),
        (["--validation", "own"], "--validation: is for --clients only"),
        (["--clients", 400], "at most 130 clients"),
    ],
)
def test_what_cannot_be_dealt_is_refused(source, tmp_path, options, expected):
    message = refused("instructions", "--source", source, *options, "--output", tmp_path / "data")
    assert expected in message and not (tmp_path / "data").exists()


def test_the_manifest_is_json_that_programs_of_version_2_read(source, tmp_path):
    data, _ = prepared(source, tmp_path / "data", "--clients", 2, "--validation", "common")
    told = json.loads((data.folder / "manifest.json").read_text())
    assert told["format_version"] == 2 and told["splits"]["clients"]["validation"] == "common"
    assert data.files["client_0", "validation"]["sha256"] == data.files["client_1", "validation"]["sha256"]


def test_the_sample_has_eight_tasks_of_paragraphs_of_their_own(tmp_path):
    made(
        "instructions",
        "--source",
        "sample",
        "--vocabulary",
        512,
        "--base-share",
        0,
        "--output",
        tmp_path / "d",
    )
    data = DataSet(tmp_path / "d")
    assert data.users == ["dutch", "french", "gap", "german", "heading", "italian", "language", "last_word"]
    assert {source["licence"] for source in data.manifest["sources"]} == {"MPL-2.0"}
    texts = {user: [text for split in SPLITS for text in data.documents(user, split)] for user in data.users}
    assert all(400 <= len(found) <= 500 for found in texts.values())
    passages = {user: {text.split("\n")[2] for text in found} for user, found in texts.items()}
    assert sum(map(len, passages.values())) - len(set.union(*passages.values())) <= 3
    languages = Counter(text.split("\n")[3] for text in texts["language"])
    assert set(languages) == {"German", "Dutch", "French", "Italian", "English"}
    assert min(languages.values()) > 60
    for text in texts["last_word"]:
        _, _, passage, answer = text.split("\n")
        assert passage.split()[-1] == answer
    for text in texts["gap"]:
        passage, answer = text.split("\n")[2:]
        assert passage.split().count("___") == 1 and answer
