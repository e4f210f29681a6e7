"""results.h5 as xarray, netCDF4, h5py and ncdump see it: labelled, whole while written and after kill -9.

The values are those of tests/results/results_writer_demo.cpp.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

from tests.helpers.built_program import built_program, run_program

USERS = ["German", "Français", "日本語", "Dutch"]
EXPERTS = [4, 2, 1, 2]
ROUNDS = 3
ENGINES = ("h5netcdf", "netcdf4")
GROUPS = (
    "users",
    "perplexity",
    "loss",
    "routing",
    "expert",
    "aggregation",
    "time",
    "communication",
    "memory",
    "before_aggregation/perplexity",
    "before_aggregation/loss",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("results") / "results.h5"
    printed = run_program("results_writer_demo", path, "four", ROUNDS)
    assert printed.split() == ["round", "0", "round", "1", "round", "2"]
    assert [file.name for file in path.parent.iterdir()] == ["results.h5"]
    return path


def open_group(path: Path, group: str | None, engine: str = "h5netcdf") -> xr.Dataset:
    with xr.open_dataset(path, group=group, engine=engine) as dataset:
        return dataset.load()


def loss(round_: int, user: int, split: int) -> float:
    return 1.0 + 0.1 * user + 0.01 * round_ + 0.001 * split


# Labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_every_dimension_has_its_labels_in_every_group(results, engine):
    expected = {
        "round": list(range(ROUNDS)),
        "user": USERS,
        "source_user": USERS,
        "layer": [0, 1],
        "expert": [0, 1, 2, 3],
        "projection": ["up", "down"],
    }
    for group in GROUPS:
        dataset = open_group(results, group, engine)
        assert dataset.data_vars, group
        for name, array in dataset.data_vars.items():
            for dimension in array.dims:
                assert dataset[dimension].values.tolist() == expected[dimension], (group, name)


@pytest.mark.parametrize("engine", ENGINES)
def test_values_come_back_by_label(results, engine):
    perplexity = open_group(results, "perplexity", engine)
    test = perplexity["test"]
    assert float(test.sel(round=2, user="日本語")) == pytest.approx(np.exp(loss(2, 2, 3)), rel=1e-14)
    assert float(perplexity["validation"].sel(round=0, user="Dutch")) == pytest.approx(np.exp(loss(0, 3, 2)))
    assert np.isnan(perplexity["train"].sel(round=0)).all()
    assert float(perplexity["train"].sel(round=1, user="German")) == pytest.approx(np.exp(loss(1, 0, 1)))
    losses = open_group(results, "loss", engine)
    np.testing.assert_allclose(np.exp(losses["test"]), perplexity["test"])
    expert = open_group(results, "expert", engine)["update_norm"]
    assert expert.dims == ("round", "user", "layer", "expert", "projection")
    place = {"round": 1, "user": "Français", "layer": 1, "expert": 0, "projection": "down"}
    assert float(expert.sel(place)) == 100 + 2 * 2 + 1
    weight = open_group(results, "aggregation", engine)["weight"]
    assert float(weight.sel(round=0, user="Dutch", source_user="Français")) == 31
    before = open_group(results, "before_aggregation/perplexity", engine)
    assert float(before["test"].sel(user="German")) == pytest.approx(np.exp(loss(2, 0, 5)))


@pytest.mark.parametrize("engine", ENGINES)
def test_experts_that_a_user_lacks_are_nan(results, engine):
    routing = open_group(results, "routing", engine)
    score = routing["score"]
    assert score.dims == ("round", "user", "layer", "expert") and score.dtype == np.float32
    for user, (name, experts) in enumerate(zip(USERS, EXPERTS)):
        own = score.sel(round=2, user=name).values
        # The demo's user with one expert routes nothing.
        have = experts if experts > 1 else 0
        expected = 2000 + 100 * user + 10 * np.arange(2)[:, None] + np.arange(have)
        np.testing.assert_array_equal(own[:, :have], expected)
        assert np.isnan(own[:, have:]).all()
    np.testing.assert_array_equal(routing["load"], -score)
    assert np.isnan(routing["entropy"].sel(user="日本語")).all()
    norm = open_group(results, "expert", engine)["update_norm"].sel(user="日本語")
    assert np.isfinite(norm.sel(expert=0)).all() and np.isnan(norm.sel(expert=[1, 2, 3])).all()


def test_costs_and_users(results):
    seconds = open_group(results, "time")
    assert sorted(seconds.variables) == sorted(
        ["round", "user", "experts", "routers", "aggregation", "evaluation", "checkpoint", "writing", "total"]
    )
    assert seconds["total"].dims == ("round", "user")
    np.testing.assert_allclose(seconds["total"].sel(user="Français"), [0.7, 1.7, 2.7])
    np.testing.assert_allclose(seconds["writing"].sel(round=1), [1.6] * 4)
    np.testing.assert_allclose(seconds["checkpoint"].sel(user="Dutch"), [0.5, 1.5, 2.5])
    sent = open_group(results, "communication")["bytes"]
    assert sent.dtype == np.int64 and int(sent.sel(round=1, user="Dutch")) == 10**12 + 3
    assert int(open_group(results, "memory")["peak"].sel(round=1, user="Dutch")) == 2 * 10**12 + 3
    users = open_group(results, "users")
    assert users["experts"].values.tolist() == EXPERTS
    assert users["generalists"].values.tolist() == [1, 1, 1, 1]
    assert users["top_k"].values.tolist() == [2, 2, 1, 2]
    assert users["lora_rank"].values.tolist() == [2, 2, 2, 2]
    assert int(users["test_tokens"].sel(user="Français")) == 201


@pytest.mark.parametrize("engine", ENGINES)
def test_whole_file_opens_as_one_tree(results, engine):
    tree = xr.open_datatree(results, engine=engine)
    assert float(tree["loss/test"].sel(round=1, user="German")) == pytest.approx(loss(1, 0, 3))
    assert tree["expert/weights/2/user_3/layer_1/expert_1/up_A"].shape == (2, 3)
    tree.close()


# What the file says of itself -------------------------------------------------------------------------------


def arrays_of(file: h5py.File) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return {name: item for name, item in found.items() if not item.is_scale}


def test_every_array_is_named_and_described(results):
    with h5py.File(results) as file:
        arrays = arrays_of(file)
        assert len(arrays) > 25
        for name, array in arrays.items():
            assert array.attrs["units"] and array.attrs["long_name"], name
            assert all(len(dimension) == 1 for dimension in array.dims), name
            if array.dtype.kind == "f":
                assert np.isnan(array.attrs["_FillValue"]).all() and np.isnan(array.fillvalue), name
        assert arrays["perplexity/test"].maxshape == (None, 4)
        assert "the first 1000 tokens of the training split" in arrays["perplexity/train"].attrs["long_name"]
        assert arrays["time/total"].attrs["units"] == "s"
        assert file["round"].maxshape == (None,)
        assert file["perplexity/user"] == file["user"]  # a link, not a copy
        assert file["before_aggregation"].attrs["round"] == ROUNDS - 1


@pytest.mark.parametrize("engine", ENGINES)
def test_run_is_described(results, engine):
    attributes = open_group(results, None, engine).attrs
    assert attributes["title"] == "made-up run"
    assert attributes["configuration"] == "[run]\nseed = 7\n"
    assert attributes["created"] == "2025-01-02T03:04:05Z"
    assert attributes["seed"] == 7 and attributes["N"] == 4 and attributes["schema_version"] == 2
    assert list(attributes["hosts"]) == ["host-0", "host-1", "host-2", "host-3"]
    assert list(attributes["devices"]) == ["cpu"] * 4
    assert attributes["library_versions"][0] == "Open MPI 4.1.4"
    assert attributes["library_versions"][1].startswith("HDF5 1.")
    expected = {"program_version", "git_commit", "method", "data_set", "base_model", "base_digest"}
    assert expected <= attributes.keys()


def test_factors_are_stored_at_the_last_round(results):
    with h5py.File(results) as file:
        assert list(file["expert/weights"]) == ["2"]
        for user, experts in enumerate(EXPERTS):
            for layer in range(2):
                group = file[f"expert/weights/2/user_{user}/layer_{layer}"]
                assert list(group) == [f"expert_{expert}" for expert in range(experts)]
        expert = file["expert/weights/2/user_1/layer_0/expert_1"]
        assert list(expert) == ["up_A", "up_B", "down_A", "down_B"]
        np.testing.assert_array_equal(expert["up_A"], 100 + np.arange(6).reshape(2, 3))
        np.testing.assert_array_equal(expert["down_B"], -100 - np.arange(6).reshape(3, 2))
    factors = open_group(results, "expert/weights/2/user_1/layer_0/expert_1")
    assert factors["up_A"].dims == ("lora_rank", "width")
    assert factors["up_B"].dims == ("up_B_row", "up_B_column")


def test_netcdf_library_reads_all_of_it(results):
    with netCDF4.Dataset(results) as file:
        assert file.dimensions["round"].isunlimited() and len(file.dimensions["round"]) == ROUNDS
        assert file["routing"]["score"].dimensions == ("round", "user", "layer", "expert")
        assert file["routing"]["user"][:].tolist() == USERS
        assert file["perplexity"]["test"].units == "1"
        assert np.ma.getmaskarray(file["perplexity"]["train"][0]).all()


@pytest.mark.skipif(shutil.which("ncdump") is None, reason="ncdump is not installed (netcdf-bin)")
def test_ncdump_shows_all_of_it(results):
    done = subprocess.run(["ncdump", results], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert "float score(round, user, layer, expert) ;" in done.stdout
    assert "double total(round, user) ;" in done.stdout
    assert "round = UNLIMITED ; // (3 currently)" in done.stdout


@pytest.mark.parametrize("engine", ENGINES)
def test_groups_merge_by_round(results, engine):
    """Curves against seconds."""
    merged = xr.merge(
        [
            open_group(results, group, engine)[name]
            for group, name in (("perplexity", "test"), ("time", "total"))
        ]
    )
    assert merged["total"].dims == merged["test"].dims == ("round", "user")
    frame = merged.to_dataframe()
    assert frame.loc[(2, "Dutch"), "total"] == pytest.approx(2.7)


def test_all_arrays_of_a_round_are_one_row(results):
    """All arrays grow at once: they are views of the file's own rows."""
    with h5py.File(results) as file:
        rows, growing = file["time/rows/values"], [file["round"]]
        growing += [
            array for array in arrays_of(file).values() if array.maxshape[0] is None and array != rows
        ]
        assert rows.shape[0] == ROUNDS and len(growing) > 20
        for array in growing:
            (source,) = array.virtual_sources()
            assert (source.file_name, source.dset_name) == (".", "/time/rows/values")
        row = np.concatenate([np.ravel(array[1]).astype(float) for array in growing])
        assert sorted(row[~np.isnan(row)]) == sorted(rows[1][~np.isnan(rows[1])])


def test_one_user_with_one_expert(tmp_path):
    path = tmp_path / "results.h5"
    run_program("results_writer_demo", path, "one", 2)
    for engine in ENGINES:
        assert open_group(path, "perplexity", engine)["test"].shape == (2, 1)
        assert open_group(path, "routing", engine)["score"].shape == (2, 1, 2, 1)
        assert np.isnan(open_group(path, "routing", engine)["score"]).all()
        weight = open_group(path, "aggregation", engine)["weight"]
        assert weight.sizes == {"round": 2, "user": 1, "source_user": 1}


def test_same_run_gives_the_same_bytes(results, tmp_path):
    run_program("results_writer_demo", tmp_path / "results.h5", "four", ROUNDS)
    assert (tmp_path / "results.h5").read_bytes() == results.read_bytes()


def test_existing_file_is_refused(results):
    content = results.read_bytes()
    message = run_program("results_writer_demo", results, "four", ROUNDS, code=2)
    assert message.startswith(f"error: '{results}' is there already") and message.count("\n") == 1
    assert results.read_bytes() == content


# While it is written, and after a crash ---------------------------------------------------------------------


def check_rounds(path: Path, at_least: int) -> int:
    """Every array has the same rounds, each of them whole; returns how many."""
    with h5py.File(path, "r") as file:
        rounds = file["round"][:]
        assert rounds.tolist() == list(range(len(rounds))) and len(rounds) >= at_least
        for name, array in arrays_of(file).items():
            if array.maxshape[0] is None:
                assert len(array) == len(rounds), name
        test = file["loss/test"][:]
    expected = np.array([[loss(round_, user, 3) for user in range(4)] for round_ in rounds]).reshape(-1, 4)
    np.testing.assert_allclose(test, expected, rtol=1e-14)
    return len(rounds)


def test_reported_rounds_survive_kill_9(tmp_path):
    random = np.random.default_rng(1)
    counts = []
    for attempt in range(25):
        path = tmp_path / f"run-{attempt}" / "results.h5"
        path.parent.mkdir()
        command = [built_program("results_writer_demo"), path, "four", "100000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "round 0\n"
            time.sleep(random.uniform(0.0, 0.2))
            process.kill()
            reported = process.stdout.read().split("\n")
        # A line cut short was not reported.
        complete = 1 + sum(line.startswith("round ") for line in reported[:-1])
        found = check_rounds(path, complete)
        assert found <= complete + 1
        counts.append(found)
    assert max(counts) > 2


def test_readers_may_open_it_at_any_time(tmp_path):
    path = tmp_path / "results.h5"
    command = [built_program("results_writer_demo"), path, "four", "500"]
    seen = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "round 0\n"
        while process.poll() is None:
            seen.append(check_rounds(path, at_least=1))
            with xr.open_dataset(path, group="perplexity", engine="h5netcdf") as held_open:
                assert held_open["test"].sizes["round"] >= seen[-1]
        reported = process.stdout.read().split("\n")
    assert process.returncode == 0 and reported[-2] == "round 499"
    assert seen == sorted(seen) and len(set(seen)) > 2
    assert check_rounds(path, 500) == 500
