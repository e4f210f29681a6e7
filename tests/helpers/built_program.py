"""Finds and runs the small programs that the C++ build makes for these tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from console.program import methods

ROOT = Path(__file__).resolve().parents[2]


def _folder() -> str | None:
    """COMIGS_TEST_BIN, else that of COMIGS_EXECUTABLE."""
    folder = os.environ.get("COMIGS_TEST_BIN")
    if folder is None and "COMIGS_EXECUTABLE" in os.environ:
        folder = str(Path(os.environ["COMIGS_EXECUTABLE"]).parent)
    return folder


def built_program(name: str) -> str:
    """Its path in COMIGS_TEST_BIN, else beside COMIGS_EXECUTABLE, else in build/dev, which need not be there."""
    folder = _folder()
    program = Path(folder or ROOT / "build" / "dev") / name
    if not program.exists():
        if folder:
            pytest.fail(f"{program} is not there, where COMIGS_TEST_BIN or COMIGS_EXECUTABLE says")
        pytest.skip(f"{name} is not built (looked in {program.parent}; set COMIGS_TEST_BIN to its folder)")
    return str(program)


def run_program(name: str, *arguments: object, code: int = 0) -> str:
    """Runs the program, checks its exit code and returns its stdout, or its stderr where it is to fail."""
    command = [built_program(name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def read_job_files() -> str:
    """A line of shell for stand-ins of comigs: job files are read as comigs reads them."""
    return f'[ "$1 $3" != "plan --settings" ] || exec {built_program("job_settings")} "$@"'


def known_methods() -> list[str]:
    """All methods, for the parameters of tests; none where comigs is not built, so that those are skipped."""
    program = Path(_folder() or ROOT / "build" / "dev") / "comigs"
    return [*methods(str(program))] if program.exists() else []
