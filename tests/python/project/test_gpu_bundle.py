"""What tests/gpu/run.sh says of a bundle or a place that it cannot use, and how a stage's end is judged."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.gpu.stages import ABSENT, FAILED, NO_CARD, PASSED, Stage, carry_out
from tests.helpers.built_program import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As bundle.sh leaves it, but for the bundle's content."""
    (tmp_path / "bundle" / "comigs-gpu").mkdir(parents=True)
    (tmp_path / "bundle" / "comigs-gpu" / "version").write_text("some\n")
    bundle = tmp_path / "bundle.tar.xz"
    subprocess.run(["tar", "-cJf", bundle, "-C", tmp_path / "bundle", "comigs-gpu"], check=True)
    shutil.copy(ROOT / "tests/gpu/run.sh", tmp_path)
    (tmp_path / "place").mkdir()
    return tmp_path


def refusal(folder: Path, words: Sequence[str] = ("--output", "results"), path: str | None = None) -> str:
    """The one line that run.sh ends with; nothing is left unpacked."""
    python = Path(sys.executable).parent
    variables = {"PATH": path or f"{python}:{os.environ['PATH']}", "TMPDIR": str(folder / "place")}
    bash = shutil.which("bash")
    done = subprocess.run(
        [bash, folder / "run.sh", *words],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert not list((folder / "place").glob("*/comigs-gpu"))
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpu: error: ")
    return line


def test_bundle_that_is_cut_short(folder: Path) -> None:
    bundle = folder / "bundle.tar.xz"
    bundle.write_bytes(bundle.read_bytes()[:-20])
    assert "bundle.tar.xz cannot be unpacked" in refusal(folder)


def test_bundle_without_a_program(folder: Path) -> None:
    assert "bundle.tar.xz is without setup.sh; make it anew" in refusal(folder)


def test_no_bundle(folder: Path) -> None:
    (folder / "bundle.tar.xz").unlink()
    assert "bundle.tar.xz is not there" in refusal(folder)


def test_output_that_cannot_be_written(folder: Path) -> None:
    assert "--output: run.sh/results cannot be written" in refusal(folder, ("--output", "run.sh/results"))


def test_words_that_mean_nothing(folder: Path) -> None:
    assert "unknown argument 'third'" in refusal(folder, ("third",))
    assert "--output: expected a folder" in refusal(folder, ("first", "--output"))


def test_no_xz(folder: Path) -> None:
    tools = folder / "tools"
    tools.mkdir()
    for name in ("dirname", "python3", "tar"):
        (tools / name).symlink_to(shutil.which(name))
    assert "xz is not on PATH" in refusal(folder, path=str(tools))


@pytest.mark.parametrize(
    ("says", "code", "verdict"),
    [
        ("well", 0, PASSED),
        ("ill", 1, FAILED),
        ("no CUDA device is visible", 1, NO_CARD),
        ("==ERROR== ERR_NVGPUCTRPERM", 1, ABSENT),
        ("no table, but LibraryNotLoaded", 0, PASSED),
    ],
)
def test_verdicts(says: str, code: int, verdict: str) -> None:
    stage = Stage("one", ("sh", "-c", f"echo before; echo '{says}'; exit {code}"), tool="sh")
    outcome = carry_out(stage, 60, io.StringIO())
    assert (outcome.verdict, outcome.note) == (verdict, says)
