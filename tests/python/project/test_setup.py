"""setup.sh as a user meets it: quick when all is there, and plain about what is missing."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ["setup.sh", "tests/run.sh", "jobs/quickstart.sh", ".ci/run"]
# What setup.sh itself calls; nothing of what it looks for.
SHELL_TOOLS = "awk bash cat cut date df dirname head id mktemp paste printf rm sed sha256sum sleep sort tail tr uname".split()


def run_setup(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "setup.sh"), *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def test_second_run_does_nothing() -> None:
    done = run_setup()
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout


def test_second_run_without_apt_looks_for_the_tools_themselves() -> None:
    done = run_setup("--check", COMIGS_NO_APT="1")
    assert done.returncode == 0, done.stderr
    assert "everything is there" in done.stdout


def test_missing_tools_are_listed_with_what_provides_them(tmp_path: Path) -> None:
    for tool in SHELL_TOOLS:
        if path := shutil.which(tool):
            (tmp_path / tool).symlink_to(path)
    done = run_setup(COMIGS_NO_APT="1", PATH=str(tmp_path), CXX="")
    assert done.returncode == 2
    for name in ("g++ 12 or newer", "git", "mpicxx", "mpirun", "Python 3.11 or newer"):
        assert name in done.stderr
    assert "apt-get install" in done.stderr and "libopenmpi-dev" in done.stderr
    assert "command not found" not in done.stderr


def test_missing_header_is_named(tmp_path: Path) -> None:
    if not (compiler := shutil.which("g++")):
        pytest.skip("no g++ on PATH")
    blind = tmp_path / "g++"  # a compiler whose standard folders lack spdlog
    blind.write_text(
        f'#!/bin/sh\nfor a; do case "$a" in -M) input=$(cat); case "$input" in *spdlog*) exit 1;; esac;\n'
        f'printf "%s\\n" "$input" | exec "{compiler}" "$@"; exit;; esac; done\nexec "{compiler}" "$@"\n'
    )
    blind.chmod(0o755)
    done = run_setup("--check", COMIGS_NO_APT="1", CXX=str(blind))
    assert done.returncode == 2
    assert "header spdlog/spdlog.h" in done.stderr and "libspdlog-dev" in done.stderr
    assert "nlohmann" not in done.stderr


def test_unknown_option_is_refused() -> None:
    done = run_setup("--chekc")
    assert done.returncode == 2
    assert "unknown option '--chekc'" in done.stderr


def test_environment_lines_are_valid_shell_and_put_the_venv_first() -> None:
    done = run_setup("--env")
    assert done.returncode == 0, done.stderr
    shell = subprocess.run(
        ["bash", "-euc", 'eval "$1"; command -v python', "bash", done.stdout],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shell.stdout.strip() == str(ROOT / ".venv/bin/python")


def test_mpirun_in_a_job_of_slurms_is_not_held_to_its_tasks_nor_waits_for_its_shell() -> None:
    job, step = {"SLURM_JOB_ID": "1"}, {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0"}
    found = [run_setup("--env", **variables).stdout for variables in (job, step)]
    assert all("export OMPI_MCA_rmaps_base_oversubscribe=1" in text for text in found)
    assert ["export SLURM_OVERLAP=1" in text for text in found] == [False, True]


def test_every_requirement_is_pinned() -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert [line for line in lines if line and not re.match(r"[\w.-]+==[\w.]+(;.*)?$", line)] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse_and_explain_themselves(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
    if script != ".ci/run":
        done = subprocess.run(
            ["bash", str(ROOT / script), "--help"], capture_output=True, text=True, timeout=60, check=True
        )
        assert "usage: bash" in done.stdout


def foreign_environment(folder: Path) -> Path:
    """A copy of the tree's set-up beside somebody's own .venv."""
    for name in ("setup.sh", "requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    program = folder / ".venv/bin/python"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return program


def test_an_environment_that_somebody_else_made_stays(tmp_path: Path) -> None:
    program = foreign_environment(tmp_path)
    before = program.read_text()
    done = subprocess.run(["bash", str(tmp_path / "setup.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and ".venv: found something that setup.sh did not make" in done.stderr
    assert [path.name for path in (tmp_path / ".venv").rglob("*")] == ["bin", "python"]
    assert program.read_text() == before


def test_a_second_call_waits_for_the_first(tmp_path: Path) -> None:
    foreign_environment(tmp_path)
    with (tmp_path / ".venv.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = subprocess.Popen(
            ["bash", str(tmp_path / "setup.sh")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert second.stdout is not None
        assert "another setup.sh is at work here; waiting" in second.stdout.readline()
        assert second.poll() is None
    assert second.wait(60) == 2
    second.communicate()
