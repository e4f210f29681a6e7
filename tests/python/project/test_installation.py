"""What `cmake --install` puts where, and that the version is one wherever it stands."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.helpers.built_program import ROOT
from tests.helpers.tiny import executable

LICENCES = {"LICENSE", "boost.txt", "fmt.txt", "highway.txt", "nlohmann-json.txt", "pytorch.txt", "random123.txt", "spdlog.txt"}  # fmt: skip


def version() -> str:
    found = re.search(r"^project\(comigs VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text(), re.M)
    assert found is not None
    return found[1]


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == version()
    assert f"\nversion: {version()}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^## {re.escape(version())}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)
    done = subprocess.run([executable(), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"comigs {version()} (")


def test_an_installed_program_runs_and_brings_its_licences(tmp_path: Path) -> None:
    build = Path(executable()).parent
    if not (build / "cmake_install.cmake").exists():
        pytest.skip(f"{build} is no build folder")
    subprocess.run(["cmake", "--install", build, "--prefix", tmp_path], capture_output=True, check=True)
    done = subprocess.run(
        [tmp_path / "bin/comigs", "--version"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("comigs ")
    assert {path.name for path in (tmp_path / "share/licenses/comigs").iterdir()} == LICENCES
    assert (tmp_path / "share/doc/comigs/README.md").is_file()
    assert (tmp_path / "share/doc/comigs/docs/methods.md").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "share"}
