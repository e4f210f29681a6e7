"""`comigs route`: every token's gate weights against the plain reference, and the file that they go to."""

from __future__ import annotations

import shutil
from itertools import accumulate
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from tokenizers import Tokenizer

from tests.helpers.finished import HERE
from tests.helpers.routed import (
    CONTEXTS,
    EXPERTS,
    OPTIONS,
    ROUNDS,
    TOKENS,
    VOCABULARY,
    mixed,
    place,
    probe,
    reference_gates,
    route,
    stored_model,
    trained,
)
from tests.helpers.tiny import (
    LAYERS,
    USERS,
    alone,
    comigs,
    cut_into_examples,
    data_set,
    examples_of,
    know_tokeniser,
    tokens_of,
)

__all__ = ["mixed", "place"]  # fixtures for tests here


# The numbers ------------------------------------------------------------------------------------------------


def test_scores_of_every_model_on_every_text(mixed, place):
    done = route(mixed, "--tokens", TOKENS)
    assert done.output.rstrip().splitlines()[-1].startswith(f"tokens: {mixed}/results.h5")
    worst = 0.0
    for owner, name in enumerate(USERS):
        found = probe(mixed, f"user_{owner}")
        ids = tokens_of(place / "data", owner, "test")[:TOKENS].tolist()
        assert found.attrs["owner"] == name and found["ids"].values.tolist() == ids
        assert found["score"].dims == ("user", "token", "layer", "expert")
        assert found["score"].shape == (4, TOKENS, LAYERS, 4) and found["score"].dtype == np.float32
        assert found["user"].values.tolist() == list(USERS)
        for user in (0, 1):
            score = found["score"].values[user]
            model = stored_model(mixed / "results.h5", place / "base", user)
            expected = reference_gates(model, ids, CONTEXTS[user])
            worst = max(worst, np.abs(score[..., : EXPERTS[user]] - expected).max())
            assert np.isnan(score[..., EXPERTS[user] :]).all()
            assert ((expected == 0).sum(-1) == max(0, EXPERTS[user] - 2)).all()  # top-2
            for wrong in (
                reference_gates(
                    stored_model(mixed / "results.h5", place / "base", user, lora=False), ids, CONTEXTS[user]
                ),
                reference_gates(model, ids, CONTEXTS[user] + 1),
            ):
                assert np.abs(wrong - expected).max() > 0.01  # so the model and its windows matter
        score = found["score"].values[2:]
        assert (score[..., 0] == 1).all() and np.isnan(score[..., 1:]).all()
    print(f"largest difference of a gate weight: {worst:.1e}")
    assert worst <= 2e-5


def test_table_tells_the_generalists_share(mixed):
    done = route(mixed, "--tokens", TOKENS)
    lines = [line.split() for line in done.output.splitlines() if line.startswith("  user_")]
    assert len(lines) == 4
    for owner, (name, tokens, of, *shares) in enumerate(lines):
        assert (name, tokens, of) == (f"user_{owner}", str(TOKENS), USERS[owner])
        expected = probe(mixed, name)["score"].sel(expert=0).mean(("token", "layer")).values
        np.testing.assert_allclose(list(map(float, shares)), expected, atol=5.1e-4)


def test_examples_do_not_see_each_other(place, tmp_path):
    data = data_set(tmp_path / "data", USERS[:1], vocabulary=VOCABULARY)
    shutil.copy(place / "data" / "tokenizer.json", data)
    know_tokeniser(data)
    cut_into_examples(data, 9)
    given = ["--data", data, "--model", place / "base", "--output", tmp_path / "run", "--context-tokens", 12]
    done = alone("train", *given, "--method", "comigs-1gxs", "--experts", EXPERTS[0], *OPTIONS, *HERE)
    assert done.code == 0, done.errors
    route(tmp_path / "run", "--tokens", TOKENS)
    found = probe(tmp_path / "run", "user_0")
    whole = [instruction + response for instruction, response in examples_of(data, 0, "test")]
    examples = [ids for ids, end in zip(whole, accumulate(map(len, whole))) if end <= TOKENS]
    assert found["ids"].values.tolist() == sum(examples, [])
    model = stored_model(tmp_path / "run" / "results.h5", place / "base", 0)
    expected = np.concatenate([reference_gates(model, ids, 12) for ids in examples])
    np.testing.assert_allclose(found["score"].values[0], expected, atol=2e-5)
    assert np.abs(reference_gates(model, sum(examples, []), 12) - expected).max() > 0.01


@pytest.mark.parametrize(("method", "share"), [("fedavg", 0.5), ("flexlora", 1.0)])
def test_experts_without_a_router_are_alike(place, tmp_path, method, share):
    folder = tmp_path / "run"
    shutil.copytree(trained(place, method, method, "--context-tokens", 12), folder)
    route(folder, "--tokens", 9)
    score = probe(folder, "user_3")["score"]
    assert score.shape == (4, 9, LAYERS, round(1 / share)) and (score == share).all()


# The file ---------------------------------------------------------------------------------------------------


def data_of(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def test_the_rest_of_the_file_stays(mixed):
    path = mixed / "results.h5"
    before = data_of(path)
    route(mixed)
    route(mixed, "--tokens", 20)  # other lengths under the same names
    after = data_of(path)
    assert {name for name in after if not name.startswith("tokens/")} == set(before) and len(before) > 100
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert [entry.name for entry in mixed.iterdir()] == ["results.h5"]
    with h5py.File(path) as file:
        assert [len(item["ids"]) for item in file["tokens"].values()] == [20] * 4
        for label in ("user", "layer", "routing/expert"):  # points at nothing that is gone
            assert all(file[reference] for reference, _ in file[label].attrs["REFERENCE_LIST"])
        for name in ("ids", "text", "score"):
            array = file[f"tokens/user_0/{name}"]
            assert array.attrs["units"] == "1" and array.attrs["long_name"]
            assert all(len(dimension) == 1 for dimension in array.dims)
    for engine in ("h5netcdf", "netcdf4"):
        tree = xr.open_datatree(path, engine=engine)
        assert tree["tokens/user_1/score"].sizes == {"user": 4, "token": 20, "layer": LAYERS, "expert": 4}
        assert tree["perplexity/test"].sizes == {"round": ROUNDS + 1, "user": 4}
        tree.close()


def test_all_of_a_short_split_and_mpirun(mixed):
    done = comigs("route", mixed / "results.h5", "--tokens", 65536, "--threads", 1, "--device", "cpu")
    assert done.code == 0, done.errors
    assert [probe(mixed, f"user_{user}").sizes["token"] for user in range(4)] == [120, 127, 134, 141]


def test_texts_are_what_the_tokeniser_decodes(mixed, place):
    route(mixed, "--tokens", 65536)
    tokenizer = Tokenizer.from_file(str(place / "data" / "tokenizer.json"))
    seen = set()
    for user in range(4):
        found = probe(mixed, f"user_{user}")
        for token, text in zip(found["ids"].values.tolist(), found["text"].values.tolist()):
            expected = tokenizer.decode([token], skip_special_tokens=False)
            assert text == expected.replace("\x00", "\ufffd"), token
            seen.add(expected)
    assert len(seen) > 100 and {"\ufffd", " ", "\n"} <= seen
