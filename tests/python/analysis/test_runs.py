"""The analysis room: the report's numbers against hand-computed ones, and the page as a browser reads it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from analysis.cli import main
from analysis.read.results import open_run
from tests.helpers.built_program import run_program
from tests.helpers.results_fixture import default_perplexity, write_results

# Loading ----------------------------------------------------------------------------------------------------


def test_arrays_are_labelled_as_xarray_itself_reads_them(tmp_path):
    path = write_results(tmp_path / "run")
    run = open_run(tmp_path / "run")
    test = run["perplexity"]["test"]
    assert test.dims == ("round", "user")
    assert float(test.sel(round=3, user="Dutch")) == 26.0
    with xr.open_dataset(path, group="perplexity", engine="h5netcdf") as dataset:
        assert dataset["test"].dims == test.dims
        assert dataset["user"].values.tolist() == ["German", "Dutch"]
        np.testing.assert_array_equal(dataset["test"].values, test.values)
    assert run["routing"]["score"].dims == ("round", "user", "layer", "expert")
    assert run["routing"]["score"].coords["expert"].values.tolist() == [0, 1]
    assert float(run["time"]["total"].sel(round=1, user="Dutch")) == 20.0


def test_run_tells_what_it_is(tmp_path):
    write_results(tmp_path / "run", seed=7, experts=[3, 1], generalists=[1, 1])
    run = open_run(tmp_path / "run" / "results.h5")
    assert (run.method, run.attribute("seed"), run.name, run.planned_rounds) == ("comigs-1g1s", "7", "run", 3)
    assert run.attribute("hosts").splitlines() == ["node-a", "node-b"]
    assert run.attribute("devices").splitlines() == ["cpu", "cpu"]
    assert run.expert_roles("German") == ["generalist", "specialist", "specialist"]
    assert run.expert_roles("Dutch") == ["generalist"]
    assert run.settings["method.experts"] == "3,1"
    assert not run.is_unfinished


def test_files_of_the_program_read_like_those_of_version_0_1(tmp_path):
    run_program("results_writer_demo", tmp_path / "results.h5", "four", 3)
    run, older = open_run(tmp_path), open_run(write_results(tmp_path / "older"))
    assert run.attribute("schema_version") == "2" and older.attribute("schema_version") == "1"
    for one in (run, older):
        assert one["time"]["total"].dims == ("round", "user") and "round" in one["time"].coords
    np.testing.assert_allclose(run["time"]["total"].isel(user=0), [0.7, 1.7, 2.7])
    np.testing.assert_allclose(run["time"]["writing"].isel(user=0), [0.6, 1.6, 2.6])
    np.testing.assert_array_equal(
        older["time"]["total"].isel(user=0), [2.0, *[10.0] * (len(older.rounds) - 1)]
    )


def test_array_without_a_finite_value_or_rows_is_absent(tmp_path):
    path = write_results(tmp_path / "run", router=False)
    with h5py.File(path, "a") as file:
        file["memory/peak"].resize(0, axis=0)
    run = open_run(path)
    assert run.array("routing", "score") is None
    assert run.array("memory", "peak") is None
    assert run.array("nothing", "here") is None
    assert run.array("perplexity", "test").sizes["round"] == 4


def test_only_rows_that_every_array_has_count(tmp_path):
    path = write_results(tmp_path / "run")
    with h5py.File(path, "a") as file:
        file["perplexity/test"].resize(5, axis=0)
        file["time/experts"].resize(3, axis=0)
    run = open_run(path)
    assert run.rounds.tolist() == [0, 1, 2]
    assert run["perplexity"].sizes["round"] == 3


def test_mixing_matrix_gets_two_names_for_its_users(tmp_path):
    path = write_results(tmp_path / "run")
    weights = np.arange(16.0).reshape(4, 2, 2)
    with h5py.File(path, "a") as file:
        dataset = file.create_dataset("aggregation/weight", data=weights)
        for axis, name in enumerate(("round", "user", "user")):
            dataset.dims[axis].attach_scale(file[name])
    weight = open_run(path)["aggregation"]["weight"]
    assert weight.dims == ("round", "user", "source_user")
    assert float(weight.sel(round=1, user="German", source_user="Dutch")) == 5.0


def test_users_of_one_name_are_told_apart(tmp_path):
    write_results(tmp_path / "run", users=("German", "German"))
    run = open_run(tmp_path / "run")
    assert run.users == ["German", "German (2)"]
    assert float(run["perplexity"]["test"].sel(round=0, user="German (2)")) == 101.0


# Bad input --------------------------------------------------------------------------------------------------


def _no_file(folder: Path) -> Path:
    return folder / "nowhere"


def _empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _text_file(folder: Path) -> Path:
    (folder / "results.h5").write_text("not HDF5 at all")
    return folder / "results.h5"


def _truncated(folder: Path) -> Path:
    path = write_results(folder / "run")
    path.write_bytes(path.read_bytes()[:5000])
    return path


def _foreign(folder: Path) -> Path:
    with h5py.File(folder / "other.h5", "w") as file:
        file["data"] = [1, 2, 3]
    return folder / "other.h5"


def _without_users(folder: Path) -> Path:
    return write_results(folder / "run", omit=["user"])


def _later_schema(folder: Path) -> Path:
    return write_results(folder / "run", attributes={"schema_version": 3})


def _no_rounds(folder: Path) -> Path:
    return write_results(folder / "run", rounds=0, planned=3, perplexity=default_perplexity(2, 0))


def _no_scale(folder: Path) -> Path:
    path = write_results(folder / "run")
    with h5py.File(path, "a") as file:
        file["perplexity/extra"] = [[1.0, 2.0]]
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_no_file, "no such file or folder"),
        (_empty_folder, "holds no results.h5"),
        (_text_file, "not an HDF5 file"),
        (_truncated, "cannot be read as HDF5"),
        (_foreign, "not a comigs results file (the attribute 'schema_version' is missing)"),
        (_without_users, "not a comigs results file ('/user' is missing)"),
        (_later_schema, "schema version '3' found, version 1 or 2 expected"),
        (_no_rounds, "no finished round yet"),
        (_no_scale, "'/perplexity/extra' has no dimension scale on axis 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, make, words):
    path = make(tmp_path)
    output = tmp_path / "page.html"
    assert main(["report", str(path), "--output", str(output)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {path}") and message.count("\n") == 1
    assert words in message
    assert not output.exists()


def test_output_must_be_an_html_file(tmp_path, capsys):
    write_results(tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path)]) == 2
    assert "expected FILE.html" in capsys.readouterr().err
