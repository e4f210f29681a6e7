"""What the analysis refuses or leaves out: an index that no sweep wrote, and damaged results files."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from analysis.cli import main
from analysis.read.index import read_index
from analysis.read.results import ResultsError, open_run
from tests.helpers.results_fixture import Sweep, final_test, write_results

FORMAT = {"format": "comigs-sweep-index", "format_version": 1, "scale": "small"}
PLACE = {"item": "table1", "row": "Local", "section": "", "alternative": {}}
RUN = {
    "folder": "ag_news/local-seed0",
    "dataset": "ag_news",
    "seed": 0,
    "options": {"method": "local"},
    "status": "done",
    "seconds": 1.0,
    "items": [PLACE],
}


def refusal(folder: Path, capsys, content: object, item: str = "table1") -> str:
    """What follows the index's path in the one line with which the item refuses it."""
    path = folder / "index.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    assert main([item, "--index", str(path)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and message.startswith(f"error: {path}")
    return message.strip().removeprefix(f"error: {path}").removeprefix(": ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"seed": ' + "1" * 5000 + "}", "not JSON"),
        ("[]", "not an index of a sweep"),
        ({**FORMAT, "format_version": 2, "runs": []}, "version 2 found, version 1"),
        ({**FORMAT, "format_version": "\ud800", "runs": []}, "version '\\ud800' found"),
        ({**FORMAT}, "lacks 'runs'"),
        ({**FORMAT, "runs": {}}, "'runs': {} found, a list expected"),
        ({**FORMAT, "runs": [RUN, []]}, "runs[1]: [] found, an object expected"),
        ({**FORMAT, "runs": [{}]}, "runs[0] lacks 'options'"),
        ({**FORMAT, "scale": ["small"], "runs": []}, "'scale': ['small'] found"),
        ({**FORMAT, "scale": "../small", "runs": []}, "'scale': '../small' found"),
        ({**FORMAT, "runs": []}, "no run of table1"),
    ],
)
def test_an_unusable_index_is_one_line_and_exit_code_2(tmp_path, capsys, content, words):
    assert words in refusal(tmp_path, capsys, content)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("folder", 5, "5"),
        ("folder", "a\0b", "'a\\x00b'"),
        ("dataset", None, "None"),
        ("dataset", ["ag_news"], "['ag_news']"),
        ("dataset", "../../escape", "'../../escape'"),
        ("dataset", "ag_news\n", "'ag_news\\n'"),
        ("dataset", "", "''"),
        ("dataset", "a" * 65, "'" + "a" * 12),
        ("seed", "1", "'1'"),
        ("seed", True, "True"),
        ("seed", float("inf"), "inf"),  # what 1e400 is read as
        ("options", ["--method", "local"], "['--method', 'local']"),
        ("options", {"method": ["local"]}, "{'method': ['local']}"),
        ("status", {}, "{}"),
        ("items", "table1", "'table1'"),
    ],
)
def test_a_runs_field_of_the_wrong_type_is_named(tmp_path, capsys, name, value, found):
    message = refusal(tmp_path, capsys, {**FORMAT, "runs": [RUN, {**RUN, name: value}]})
    assert message.startswith(f"runs[1], '{name}': {found}") and " expected" in message


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("item", 5, "5"),
        ("row", ["Local"], "['Local']"),
        ("row", "\ud800", "'\\ud800'"),
        ("row", " ", "' '"),
        ("row", "a\nerror: b", "'a\\nerror: b'"),
        ("section", {"a": 1}, "{'a': 1}"),
        ("alternative", ["a"], "['a']"),
        ("alternative", {"router_every": ["10", "30"]}, "{'router_every': ['10', '30']}"),
        ("alternative", {"\udfff": "1"}, "{'\\udfff': '1'}"),
    ],
)
def test_a_places_field_of_the_wrong_type_is_named(tmp_path, capsys, name, value, found):
    runs = [RUN, {**RUN, "items": [PLACE, {**PLACE, name: value}]}]
    message = refusal(tmp_path, capsys, {**FORMAT, "runs": runs})
    assert message.startswith(f"runs[1]: items[1], '{name}': {found} found, ")


@pytest.mark.parametrize("folder", ["/etc", "../other/run", "a/../../other", ".."])
def test_a_folder_outside_the_sweep_is_refused(tmp_path, capsys, folder):
    made = Sweep(tmp_path / "sweep")
    made.add("ag_news", "local", 0, [("table1", "Local")], perplexity=final_test(40), rounds=2)
    made.runs[0]["folder"] = folder
    assert "a folder below the index expected" in refusal(tmp_path, capsys, made.write().read_text())


def test_a_run_counts_once(tmp_path, capsys):
    made = Sweep(tmp_path)
    made.add("ag_news", "local", 0, [("table1", "Local")] * 2, perplexity=final_test(40), rounds=2)
    (cell,) = read_index(made.write()).cells("table1")
    assert [entry.seed for entry in cell.alternatives[()]] == [0]
    # The same folder under another spelling and another seed, then another folder with the same seed.
    (run,) = made.runs
    made.runs = [run, {**run, "folder": f"./x/../{run['folder']}", "seed": 1}]
    assert "runs[1] has the folder of runs[0]" in refusal(tmp_path, capsys, made.write().read_text())
    made.runs = [run, {**run, "folder": "elsewhere"}]
    message = refusal(tmp_path, capsys, made.write().read_text())
    assert "runs[1] is of seed 0 for table1's row 'Local' on ag_news, as runs[0] is" in message


def test_the_scale_is_the_one_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("paper", "small", "middle"):
        made = Sweep(tmp_path / "runs" / folder)  # all of scale small
        made.add("ag_news", "local", 0, [("table1", "Local")], perplexity=final_test(40), rounds=2)
    assert main(["table1", "--scale", "small"]) == 0
    assert "[measured, scale small]" in capsys.readouterr().out
    for arguments in ([], ["--index", "runs/small/index.json", "--scale", "paper"]):
        assert main(["table1", *arguments]) == 2
        assert "index.json: of scale 'small' (expected --scale paper)" in capsys.readouterr().err
    assert main(["table1", "--index", "runs/middle/index.json"]) == 0
    assert main(["table1", "--index", "runs/middle/index.json", "--scale", "middle"]) == 2


def test_index_reads_places_and_options(tmp_path):
    made = Sweep(tmp_path)
    made.add("ag_news", "local", 1, [("table1", "Local"), ("figure3", "Local")], rounds=2)
    index = read_index(tmp_path / "index.json")
    assert (index.scale, index.items) == ("small", ["table1", "figure3"])
    (cell,) = index.cells("figure3", "ag_news")
    assert (cell.row, cell.method, cell.alternatives[()][0].seed) == ("Local", "local", 1)
    assert index.cells("figure3", "multilingual") == []
    runs, problems = index.runs(cell.alternatives[()])
    assert problems == [] and np.isfinite(runs[0]["perplexity"]["test"].values).all()


# Damaged results --------------------------------------------------------------------------------------------


def damage(path: Path, name: str) -> None:
    """Overwrites the start of an object's header, as a bad sector would; the superblock stays."""
    with h5py.File(path) as file:
        place = h5py.h5o.get_info(file[name].id).addr
    content = bytearray(path.read_bytes())
    content[place : place + 16] = b"\xff" * 16
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "name", ["/", "round", "user", "perplexity", "perplexity/test", "routing/score", "time"]
)
def test_a_damaged_file_is_one_error_that_names_it(tmp_path, name):
    path = write_results(tmp_path / "run", rounds=2)
    damage(path, name)
    with pytest.raises(ResultsError) as found:
        open_run(path)
    assert str(found.value).startswith(f"{path}: ") and "\n" not in str(found.value)


@pytest.mark.parametrize("signature", [b"HEAP", b"SNOD", b"GCOL"])
def test_every_damaged_table_of_names_is_one_error(tmp_path, signature):
    """HDF5's groups keep their members' names in heaps and nodes; each kind fails in its own way."""
    path = write_results(tmp_path / "run", rounds=2)
    sound = path.read_bytes()
    refused, place = 0, sound.find(signature)
    while place >= 0:
        path.write_bytes(sound[:place] + b"\0" * 4 + sound[place + 4 :])
        with pytest.raises(ResultsError) as found:
            open_run(path)
        refused += "cannot be read as HDF5" in str(found.value)
        place = sound.find(signature, place + 4)
    assert refused > 0


def test_rounds_that_do_not_ascend_are_refused(tmp_path):
    path = write_results(tmp_path / "run", rounds=4)
    with h5py.File(path, "a") as file:
        file["round"][2] = 1
    with pytest.raises(ResultsError, match="the rounds do not ascend"):
        open_run(path)


@pytest.mark.parametrize("item", ["table1", "figure3"])
def test_a_damaged_run_is_left_out_with_a_remark(tmp_path, capsys, item):
    made = Sweep(tmp_path)
    for seed in range(2):
        folder = made.add("ag_news", "local", seed, [(item, "Local")], perplexity=final_test(40), rounds=2)
    path = folder / "results.h5"
    damage(path, "perplexity/test")
    assert main([item, "--index", str(tmp_path / "index.json")]) == 0
    told = capsys.readouterr().out
    assert f"{path}: " in told and "though the index calls the run done" in told
    assert "Local on AG News: 1 of 2 seeds are done (the others cannot be read)." in told


def test_a_configuration_that_is_no_ini_is_no_error(tmp_path):
    attributes = {"configuration": "[run]\nseed\n  goes on\nrounds = 3\n"}
    assert open_run(write_results(tmp_path / "bare", attributes=attributes)).settings == {}
    attributes = {"configuration": "[run]\nrounds = \u00b2\n"}
    assert open_run(write_results(tmp_path / "square", attributes=attributes)).planned_rounds is None
