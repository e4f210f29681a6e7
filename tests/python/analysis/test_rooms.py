"""The rooms of the analysis: imports point one way, and only templates hold HTML."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ANALYSIS = Path(__file__).resolve().parents[3] / "analysis"
# What each room may import beside itself.
BELOW = {
    "read": set(),
    "measure": {"read"},
    "draw": {"read", "measure"},
    "page": {"read", "measure", "draw"},
    "paper": {"read", "measure", "draw", "page"},
    "insight": {"read", "measure", "draw", "page"},
    "export": {"read", "measure"},
}


def imported(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def test_every_room_is_known():
    assert {path.parent.name for path in ANALYSIS.glob("*/__init__.py")} == BELOW.keys()


@pytest.mark.parametrize("room", BELOW)
def test_imports_point_one_way(room):
    modules = [*(ANALYSIS / room).rglob("*.py")]
    assert len(modules) > 1
    for module in modules:
        for name in imported(module):
            first, *rest = name.split(".")
            assert first != "analysis" or (rest and rest[0] in BELOW[room] | {room}), (
                f"{module} imports {name}"
            )


def test_html_is_written_in_templates_only():
    """And in one place more, where a drawing becomes an element of a page."""
    for module in ANALYSIS.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Markup":
                assert module.name in ("html.py", "drawings.py"), module
