"""jobs.sweep with stand-ins for comigs, mpirun, data_prep and Slurm: what runs, when, and what is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.built_program import ROOT, read_job_files
from tests.helpers.sweep import calls, here, runs, statuses, sweep

__all__ = ["here"]  # the fixture is for every test here


def test_order_axes_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("one", "--seeds", "2") == 0
    folders = [line.rpartition("runs/paper/")[2] for line in calls()]
    mix = "mix-experts-4,2,2-router-every"
    alpha = ["local-seed{}", mix + "-10-seed{}", mix + "-30-seed{}"]
    expected = [f"alpha/{name.format(seed)}" for seed in (0, 1) for name in alpha]
    expected += [f"beta/{name.format(seed)}" for seed in (0, 1) for name in [*alpha, "rare-seed{}"]]
    assert folders == expected
    assert "run 14/14" in capsys.readouterr().out


def test_a_run_gets_its_options_a_rank_a_user_and_a_log() -> None:
    assert sweep("one", "--dataset", "alpha", "--rows", "MIX", "--seeds", "1") == 0
    lines = calls("")
    output = "runs/paper/alpha/mix-experts-4,2,2-router-every-10-seed0"
    assert lines[1:3] == [
        "3 ranks",
        "train jobs/datasets/alpha.ini --method mix --router-every 10 --experts 4,2,2 --seed 0"
        f" --output {output}",
    ]
    assert Path(output, "results.h5").read_text() == "complete\n"
    assert Path(output, "run.log").exists()


def test_a_whole_name_means_that_row_alone() -> None:
    Path("jobs/two.ini").write_text(
        "[item]\ndatasets = alpha\n[row.Mix]\nmethod = mix\n[row.Mix-2]\nmethod = other\n"
    )
    assert sweep("two", "--seeds", "1", "--rows", "mix") == 0
    assert [line.rpartition("/")[2] for line in calls()] == ["mix-seed0"]
    assert sweep("two", "--seeds", "1", "--rows", "ix") == 0  # what has run is left alone
    assert [line.rpartition("/")[2] for line in calls()] == ["other-seed0"]


def with_a_pruned_base() -> None:
    with Path("jobs/datasets/prepare.ini").open("a") as file:
        file.write("\n[alpha-75]\nof = alpha\nprune = --sparsity 0.75\n")
    Path("jobs/four.ini").write_text("[item]\ndatasets = alpha, alpha-75\n[row.Local]\nmethod = local\n")


def test_a_base_is_pruned_for_all_runs_on_it() -> None:
    with_a_pruned_base()
    words = ("four", "--dataset", "alpha-75", "--source", "alpha=elsewhere", "--seeds")
    assert sweep(*words, "1") == 0
    lines = calls("")
    assert lines[0] == "data_prep text --source elsewhere --seed 1 --output data/alpha"
    assert lines[1] == "prune --model gpt2 --data data/alpha --output data/alpha-75-base --sparsity 0.75"
    assert lines[3] == (
        "train jobs/datasets/alpha.ini --model data/alpha-75-base --method local --seed 0"
        " --output runs/paper/alpha-75/local-seed0"
    )
    assert sweep(*words, "2") == 0
    assert len(calls("prune")) == 1  # comigs finds for itself that it is there


def test_a_base_that_was_pruned_otherwise_stops_its_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    with_a_pruned_base()
    Path("pruned-otherwise").touch()
    assert sweep("four", "--seeds", "1") == 2
    told = "alpha-75: pruned cannot be made (exit code 2): comigs: data/alpha-75-base/comigs-pruning.json: another"
    assert f"error: {told}\n" in capsys.readouterr().err
    assert statuses() == {"alpha/local-seed0": "done", "alpha-75/local-seed0": "missing"}
    assert sweep("four", "--seeds", "1", "--replace") == 0
    assert calls("prune")[-1].endswith("--output data/alpha-75-base --sparsity 0.75 --replace")
    assert set(statuses().values()) == {"done"}


def test_what_is_done_is_not_run_again() -> None:
    assert sweep("two", "--seeds", "1") == 0
    assert len(calls()) == 2
    assert sweep("two", "--seeds", "1") == 0
    assert calls() == []
    assert sweep("two", "--seeds", "2") == 0
    assert [line.rpartition("-seed")[2] for line in calls()] == ["1", "1"]


def test_items_share_runs_and_the_index_knows_all_their_places() -> None:
    assert sweep("two", "--seeds", "1") == 0
    calls()
    assert sweep("three", "--dataset", "alpha", "--seeds", "1") == 0
    assert calls() == []
    local = next(run for run in runs() if run["options"] == {"method": "local"})
    assert (local["folder"], local["dataset"], local["seed"]) == ("alpha/local-seed0", "alpha", 0)
    assert local["status"] == "done" and local["seconds"] >= 0
    places = {place.pop("item"): place for place in local["items"]}
    assert places == {
        "one": {"row": "Local", "section": "i) first", "alternative": {}},
        "two": {"row": "The same as Local", "section": "", "alternative": {}},
        "three": {"row": "Local", "section": "", "alternative": {}},
    }


def test_index_has_alternatives_and_every_items_order() -> None:
    assert sweep("one", "two", "three", "--dataset", "alpha", "--seeds", "2") == 0
    places = [(place["item"], place["row"], run["seed"]) for run in runs() for place in run["items"]]
    two = [(row, seed) for item, row, seed in places if item == "two"]
    assert two == [("Other", 0), ("Other", 1), ("The same as Local", 0), ("The same as Local", 1)]
    one = [place for run in runs() for place in run["items"] if (place["item"], run["seed"]) == ("one", 0)]
    assert [(place["row"], place["alternative"]) for place in one] == [
        ("Local", {}),
        ("Mix = both", {"router_every": "10"}),
        ("Mix = both", {"router_every": "30"}),
    ]


def test_a_failure_is_told_and_the_others_run(capsys: pytest.CaptureFixture[str]) -> None:
    Path("fail-local").touch()
    assert sweep("one", "--dataset", "alpha", "--seeds", "1") == 1
    assert len(calls()) == 3
    assert statuses()["alpha/local-seed0"] == "failed"
    assert list(statuses().values()).count("done") == 2
    told = capsys.readouterr()
    assert "failed after 0:00:00 with exit code 5: comigs: told to fail\n" in told.out
    assert "runs/paper/alpha/local-seed0" in told.err
    Path("fail-local").unlink()
    assert sweep("one", "--dataset", "alpha", "--seeds", "1") == 0
    assert ["--method local" in line for line in calls()] == [True]


def test_the_index_is_there_from_the_first_run_on() -> None:
    Path("bin/comigs").write_text(
        f"#!/bin/bash\n{read_job_files()}\n"
        "cp runs/paper/index.json seen-$RANDOM$RANDOM.json\ntouch ${@: -3:1}/results.h5\n"
    )
    assert sweep("two", "--seeds", "1") == 0
    seen = [json.loads(path.read_text())["runs"] for path in Path().glob("seen-*.json")]
    done = sorted([run["status"] for run in entry].count("done") for entry in seen)
    assert done == [0, 1] and all(len(entry) == 2 for entry in seen)


def started(*arguments: str) -> subprocess.Popen[str]:
    """A sweep of its own process, once its stand-in hangs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.sweep", *arguments, "--comigs", "bin/comigs"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        # A shell in the background has its children ignore Ctrl-C, and they hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (Path("pid").exists() and Path("pid").read_text().strip()):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)
    return process


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(*pids: int) -> None:
    until = time.monotonic() + 60
    while any(map(is_running, pids)):
        assert time.monotonic() < until, f"one of {pids} still runs"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_run_and_keeps_the_rest(number: int) -> None:
    Path("hang-other").touch()
    assert sweep("three", "--dataset", "alpha", "--seeds", "1") == 0
    process = started("one", "two", "--dataset", "alpha", "--seeds", "1")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "a second Ctrl-C kills it" in errors
    assert errors.splitlines()[-1] == "error: interrupted; the same command goes on from here"
    wait_until_gone(int(Path("pid").read_text()))
    assert statuses()["alpha/local-seed0"] == "done" and statuses()["alpha/other-seed0"] == "missing"
    Path("hang-other").unlink()
    calls("")
    assert sweep("two", "--seeds", "1") == 0
    lines = calls("")
    assert [line for line in lines if "--method" in line] == [
        "train jobs/datasets/alpha.ini --method other --seed 0 --output runs/paper/alpha/other-seed0"
    ]
    assert "runs/paper/alpha/other-seed0 goes on" in lines
    assert Path("runs/paper/alpha/other-seed0/results.h5").read_text() == "complete\n"


def test_a_run_that_left_with_a_checkpoint_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    Path("interrupt-other").touch()
    assert sweep("two", "--seeds", "1") == 1
    told = capsys.readouterr()
    assert "    interrupted\n" in told.out
    assert "other-seed0, interrupted; the same command goes on with it" in told.err
    Path("interrupt-other").unlink()
    calls("")
    assert sweep("two", "--seeds", "1") == 0
    assert "runs/paper/alpha/other-seed0 goes on" in calls("")
    assert set(statuses().values()) == {"done"}


def test_what_was_interrupted_with_other_settings_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("interrupt-other").touch()
    assert sweep("two", "--seeds", "1") == 1
    Path("interrupt-other").unlink()
    checkpoint = Path("runs/paper/alpha/other-seed0/checkpoints/000001/manifest.json")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    Path("jobs/datasets/common.ini").write_text("[method]\nload_balancing = none\n[run]\nrounds = 3\n")
    calls("")
    assert sweep("two", "--seeds", "1") == 2
    assert "other-seed0 and 1 more runs: made with rounds unset there, 3 now" in capsys.readouterr().err
    assert checkpoint.exists()
    assert sweep("two", "--seeds", "1", "--replace") == 0
    assert not checkpoint.exists() and not [line for line in calls("") if line.endswith("goes on")]


@pytest.mark.parametrize("code, goes_on", [(1, True), (137, True), (2, False)])
def test_what_failed_goes_on_unless_it_was_refused(code: int, goes_on: bool) -> None:
    assert sweep("two", "--seeds", "1") == 0
    folder = Path("runs/paper/alpha/other-seed0")
    (folder / "ended.json").write_text(json.dumps({"code": code, "seconds": 1}))
    calls("")
    assert sweep("two", "--seeds", "1") == 0
    assert ([line for line in calls("") if line.endswith("goes on")] != []) == goes_on


def test_after_a_kill_nothing_runs_beside_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    Path("hang-other").touch()
    process = started("two", "--seeds", "1")
    process.kill()
    process.communicate()
    left = os.getpgid(int(Path("pid").read_text()))  # of mpirun and its rank
    assert is_running(left)
    assert sweep("two", "--seeds", "1") == 2
    assert "another sweep" in capsys.readouterr().err
    rank = int(Path("pid").read_text())
    os.killpg(left, signal.SIGKILL)
    wait_until_gone(left, rank)
    Path("hang-other").unlink()
    assert sweep("two", "--seeds", "1") == 0
    assert set(statuses().values()) == {"done"}


def test_data_then_base_are_made_before_the_runs() -> None:
    assert sweep("two", "--scale", "small", "--seeds", "1") == 0
    lines = calls("")
    assert lines[0] == "data_prep text --seed 1 --output data/alpha"
    assert lines[2] == ("pretrain jobs/datasets/small/alpha-base.ini --data data/alpha --output data/base")
    assert lines[4].startswith("train jobs/datasets/small/alpha.ini --method other")
    assert {run["status"] for run in runs("small")} == {"done"}


def test_source_takes_the_place_of_the_one_in_prepare() -> None:
    assert sweep("two", "--seeds", "1", "--source", "alpha=my text") == 0
    assert calls("data_prep") == ["data_prep text --source my text --seed 1 --output data/alpha"]


def test_a_data_set_that_cannot_be_made_leaves_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    Path("no-alpha").touch()
    assert sweep("three", "--seeds", "1") == 2
    assert "alpha: data cannot be made (exit code 1): error: no such text" in capsys.readouterr().err
    assert [line.rpartition("runs/")[2] for line in calls()] == [
        "paper/beta/rare-seed0",
        "paper/beta/local-seed0",
    ]


def test_a_base_that_is_not_made_here_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    Path("gpt2/config.json").unlink()
    assert sweep("two") == 2
    assert calls("") == []
    assert "gpt2: no base model there, expected a Hugging Face folder" in capsys.readouterr().err


def test_print_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("two", "--print", "--seeds", "1") == 0
    assert calls("") == [] and not Path("runs").exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("-m data_prep text --source hub other --seed 1 --output data/alpha")
    assert lines[1].startswith("# data/alpha is not made yet")
    assert lines[2:] == [
        f"mpirun -n 4 bin/comigs train jobs/datasets/alpha.ini --method {method} --seed 0"
        f" --output runs/paper/alpha/{method}-seed0"
        for method in ("other", "local")
    ]
