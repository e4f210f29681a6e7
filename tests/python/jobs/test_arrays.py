"""Array scripts of a sweep, what their tasks do, and what is not submitted; stand-ins of helpers.sweep."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.sweep import FILES, OTHER, calls, here, locked, statuses, sweep

__all__ = ["here"]  # the fixture is for every test here too


def test_slurm_script_runs_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("fail-local").touch()
    assert sweep("three", "--dataset", "beta", "--seeds", "1") == 1
    assert sweep("three", "--dataset", "beta", "--seeds", "2", "--slurm") == 0
    Path("fail-local").unlink()
    text = capsys.readouterr().out
    text = text[text.index("#!/bin/bash") :]
    assert "#SBATCH --array=0-2\n" in text and "#SBATCH --ntasks=3\n" in text
    assert len(calls("plan ")) == 2  # seeds need the same
    for task in ("0", "1", "2"):
        assert array_task(text, task) == 0
    lines = calls("srun --mpi=pmix")
    assert len(lines) == 3 and all(line.endswith(" --resume auto") for line in lines)
    assert sweep("three", "--dataset", "beta", "--seeds", "2", "--index") == 0
    assert set(statuses().values()) == {"done"}
    assert "4 of 4 runs are done" in capsys.readouterr().out


def array_task(text: str, task: str) -> int:
    """Runs a task of an array script as Slurm would; returns its exit code."""
    numbers = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": task}
    return subprocess.run(["bash", "-c", text], env=os.environ | numbers, check=False).returncode


def test_an_interrupted_task_is_requeued_and_has_not_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("two", "--seeds", "1", "--slurm") == 0
    text = capsys.readouterr().out
    Path("interrupt-other").touch()
    assert array_task(text, "0") == 3
    assert calls("scontrol requeue") == ["scontrol requeue 7_0"]
    assert not Path("runs/paper/alpha/other-seed0/ended.json").exists()
    Path("fail-local").touch()
    assert array_task(text, "1") == 5
    assert calls("scontrol requeue") == []
    assert json.loads(Path("runs/paper/alpha/local-seed0/ended.json").read_text())["code"] == 5


def test_submit_hands_the_script_to_sbatch(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("two", "--seeds", "1", "--submit") == 0
    assert "Submitted batch job 7" in capsys.readouterr().out
    assert "1) federate_in runs/paper/alpha/local-seed0 bin/comigs train" in Path("script").read_text()
    assert calls() == [] and set(statuses().values()) == {"missing"}


@pytest.mark.parametrize("file", ["results.h5", "run.log"])
def test_what_may_be_at_work_on_another_machine_is_not_submitted(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    OTHER.mkdir(parents=True)
    (OTHER / "run.json").write_text("{}")  # a sweep has made it
    (OTHER / file).write_text("half")
    assert sweep("two", "--seeds", "1", "--submit") == 0
    assert f"left out: {OTHER}: begun and not ended" in capsys.readouterr().err
    assert (OTHER / file).read_text() == "half"
    script = Path("script").read_text()
    assert "--array=0-0\n" in script and "0) federate_in runs/paper/alpha/local-seed0" in script


def test_what_waits_in_the_queue_is_not_submitted_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("two", "--seeds", "1", "--submit") == 0
    Path("queued").touch()
    assert sweep("two", "--seeds", "1", "--submit") == 0
    told = capsys.readouterr()
    assert f"left out: {OTHER}: at work, or in Slurm's queue" in told.err
    assert "# alpha: none of 2 runs is to be started" in told.out


def test_what_slurm_has_is_not_run_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("two", "--seeds", "1", "--submit") == 0
    Path("queued").touch()
    assert sweep("two", "--seeds", "1") == 1
    assert (
        f"failed: {OTHER}, another process is at work there, or it is in Slurm's" in capsys.readouterr().err
    )
    assert calls() == []


def test_what_slurm_no_longer_has_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("two", "--seeds", "1", "--submit") == 0
    (OTHER / "results.h5").write_text("half")
    with locked(OTHER):
        assert sweep("two", "--seeds", "1", "--submit") == 0
    assert f"left out: {OTHER}: at work, or in Slurm's queue" in capsys.readouterr().err
    assert sweep("two", "--seeds", "1", "--submit") == 0
    assert "left out" not in capsys.readouterr().err
    assert (OTHER / "results.h5").read_text() == "half"  # for the task to go on with
    assert "0) federate_in runs/paper/alpha/other-seed0" in Path("script").read_text()


def test_a_sweep_within_a_job_has_what_mpirun_needs_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("NOT_UTF_8", "caf\udce9")
    assert sweep("two", "--seeds", "1") == 0  # the stand-in of mpirun looks for what setup.sh says


def test_slurm_takes_odd_names(capsys: pytest.CaptureFixture[str]) -> None:
    Path("jobs/datasets/prepare.ini").write_text("[a 5%]\ndata = text\n[beta]\ndata = text")
    Path("jobs/datasets/a 5%.ini").write_text(FILES["jobs/datasets/alpha.ini"])
    for name in ("one", "two", "three"):
        Path(f"jobs/{name}.ini").write_text("[item]\ndatasets = a 5%\n[row.A]\nmethod = a")
    assert sweep("two", "--seeds", "1", "--slurm") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "#SBATCH --job-name=comigs-paper-a_5_" in lines
    assert "#SBATCH --output='runs/paper/a 5%%/slurm-%A_%a.log'" in lines
