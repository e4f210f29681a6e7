"""The Python packages: imports point one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# What each package may import beside itself.
BELOW = {
    "console": set(),
    "data_prep": {"console"},
    "analysis": {"console"},
    "slurm": {"console"},
    "jobs": {"console", "slurm"},
}


def imported(module: Path) -> Iterator[str]:
    """The packages named by a module's imports; those with dots before them are its own."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)


def test_every_package_is_known() -> None:
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == BELOW.keys()


@pytest.mark.parametrize("package", BELOW)
def test_imports_point_one_way(package: str) -> None:
    modules = [*(ROOT / package).rglob("*.py")]
    assert len(modules) > 1
    for module in modules:
        others = {name for name in imported(module) if name in {*BELOW, "tests"}}
        assert others <= BELOW[package] | {package}, module
