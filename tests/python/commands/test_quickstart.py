"""jobs/quickstart.sh with stand-ins for what it calls: nothing that is there is lost, and only one call is at work."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[3]
RUN = Path("runs/quickstart/comigs-1g1s")
PROGRAMS = {
    "setup.sh": """
        [ "$1" != --env ] || echo "export PATH=$PWD/bin:$PATH"
    """,
    "bin/cmake": "",
    ".venv/bin/python": "",
    # Trains until told, so that it can be met at work.
    "bin/mpirun": """
        [ "$4" = train ] || exit 0
        echo "$*" >>calls
        for word; do [ "$last" = --output ] && output=$word; last=$word; done
        echo trained
        [ -e "$output/results.h5" ] || echo begun >"$output/results.h5"
        [ ! -e refuse ] || { rm "$output/results.h5"; exit 2; }
        [ ! -e interrupt ] || exit 3
        while [ -e hold ]; do sleep 0.05; done
        echo complete >"$output/results.h5"
    """,
}


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in PROGRAMS.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/bash\n" + dedent(text))
        program.chmod(0o755)
    (tmp_path / "jobs").mkdir()
    shutil.copy(ROOT / "jobs/quickstart.sh", tmp_path / "jobs")
    monkeypatch.chdir(tmp_path)


def quickstart(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "jobs/quickstart.sh", *options], capture_output=True, text=True, check=False
    )


def test_a_second_call_leaves_the_first_alone() -> None:
    Path("hold").touch()
    first = subprocess.Popen(
        ["bash", "jobs/quickstart.sh"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (RUN / "results.h5").exists() and first.poll() is None:
        pass
    second = quickstart("--method", "fedavg")
    assert second.returncode == 2 and "another call of jobs/quickstart.sh is at work" in second.stderr
    assert (RUN / "results.h5").read_text() == "begun\n"
    Path("hold").unlink()
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    assert (RUN / "results.h5").read_text() == "complete\n"


def test_what_was_interrupted_is_gone_on_with_and_nothing_is_removed() -> None:
    Path("interrupt").touch()
    assert quickstart().returncode == 3
    Path("interrupt").unlink()
    (RUN / "notes.txt").write_text("mine")
    assert quickstart().returncode == 0
    assert (RUN / "notes.txt").read_text() == "mine"
    assert (RUN / "run.log").read_text() == "trained\ntrained\n"
    calls = Path("calls").read_text().splitlines()
    assert len(calls) == 2 and all("--resume auto" in call for call in calls)
    assert quickstart().returncode == 0 and len(Path("calls").read_text().splitlines()) == 2


def test_the_tiny_one_has_a_folder_and_a_job_of_its_own() -> None:
    assert quickstart("--tiny", "--rounds", "1").returncode == 0
    assert (RUN.parents[1] / "quickstart-tiny/comigs-1g1s-rounds-1/results.h5").exists() and not RUN.exists()
    (call,) = Path("calls").read_text().splitlines()
    assert "train jobs/quickstart-tiny.ini" in call and call.endswith("--rounds 1")


def test_a_resume_of_ones_own_is_handed_on() -> None:
    assert quickstart("--resume", "never").returncode == 0
    assert "--resume auto" not in Path("calls").read_text()


@pytest.mark.parametrize("theirs", [None, "notes.txt"])
def test_a_run_that_was_refused_leaves_nothing_but_what_was_there(theirs: str | None) -> None:
    Path("refuse").touch()
    if theirs:
        RUN.mkdir(parents=True)
        (RUN / theirs).write_text("mine")
    assert quickstart().returncode == 2
    assert RUN.exists() == (theirs is not None)
    assert os.listdir(RUN) == [theirs] if theirs else True
