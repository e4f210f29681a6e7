"""The Python tools in other people's environments: settings of matplotlib, encodings, endless files, many seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.results_fixture import write_results
from tests.helpers.tiny import executable

ROOT = Path(__file__).resolve().parents[3]
MATPLOTLIBRC = """backend: Qt5Agg
text.usetex: True
font.family: No Such Font
figure.facecolor: black
axes.facecolor: black
savefig.bbox: tight
savefig.transparent: True
figure.constrained_layout.use: True
lines.linewidth: 5
axes.formatter.limits: -1, 1
no.such.key: 1
lines.markersize: thick
"""


def tool(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def figures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.svg"))}


def test_nobodys_matplotlib_settings_change_a_figure(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_results(run)
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIBRC)
    environments = {
        "plain": {},
        "notebook": {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        "misspelt": {"MPLBACKEND": "aggg", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")},
        "no home": {"HOME": "/nonexistent", "MPLCONFIGDIR": "/nonexistent/x", "PYTHONWARNINGS": "error"},
    }
    for name, environment in environments.items():
        done = tool("analysis", "report", run, "--output", tmp_path / f"{name}.html", **environment)
        assert (done.returncode, done.stderr) == (0, ""), name
    drawn = [figures(tmp_path / f"{name}_figures") for name in environments]
    assert len(drawn[0]) > 3 and all(other == drawn[0] for other in drawn[1:])


def test_names_beyond_ascii_and_beyond_utf_8_in_a_report(tmp_path: Path) -> None:
    run = tmp_path / os.fsdecode(b"r\xe9s")
    write_results(run, users=("Łukasz 李", "שלום"))
    done = tool("analysis", "report", run, "--output", tmp_path / "bericht-ä.html", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "bericht-\\xe4.html" in done.stdout
    assert "Łukasz 李" in (tmp_path / "bericht-ä.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["/dev/zero", "pipe"])
def test_endless_files_are_no_job_files(place: str, tmp_path: Path) -> None:
    """Neither read to the end of memory nor waited for."""
    os.mkfifo(tmp_path / "pipe")
    job = tmp_path / "job.ini"
    job.write_text(f"[job]\ninherit = {tmp_path / place}\n")
    done = tool("slurm.submit", job, "--output", tmp_path / "out", "--dry-run", "--comigs", executable())
    assert done.returncode == 2, done.stderr
    assert f"'{tmp_path / place}': it is not a regular file" in done.stderr


@pytest.mark.parametrize("count", ["0", "1001", "1000000000"])
@pytest.mark.parametrize("command", [["jobs.sweep", "table1"], ["slurm.submit", "jobs/quickstart.ini"]])
def test_seeds_that_nobody_has_time_for(command: list[str], count: str) -> None:
    done = tool(
        *command,
        "--comigs",
        executable(),
        "--seeds",
        count,
        "--print" if command[0] == "jobs.sweep" else "--dry-run",
    )
    assert done.returncode == 2 and f"--seeds {count}: expected 1 to 1,000" in done.stderr


@pytest.mark.parametrize("stream", [">/dev/full", ">&-", "1</dev/null"])
@pytest.mark.parametrize("program", ["data_prep", "analysis", "jobs.sweep", "slurm.submit"])
def test_help_that_cannot_be_written_is_a_failure(program: str, stream: str) -> None:
    command = ["bash", "-c", f'exec "$0" -m {program} --help {stream}', sys.executable]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    reason = "No space left on device" if "full" in stream else "Bad file descriptor"
    assert (
        done.returncode == 1 and done.stderr.endswith(f"output: {reason}\n") and done.stderr.count("\n") == 1
    )


def test_a_stream_that_is_closed_is_no_file_that_is_written(tmp_path: Path) -> None:
    """Its number is the next one that is free when a file is opened."""
    write_results(tmp_path / "run")
    words = 'exec "$0" -m analysis report "$1/run" --output "$1/page.html" >&- 2>&-'
    done = subprocess.run(["bash", "-c", words, sys.executable, tmp_path], cwd=ROOT)
    assert done.returncode == 1
    assert tool("analysis", "report", tmp_path / "run", "--output", tmp_path / "again.html").returncode == 0
    assert figures(tmp_path / "page_figures") == figures(tmp_path / "again_figures")
