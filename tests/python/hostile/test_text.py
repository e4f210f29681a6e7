"""Hostile text in every text field of results files: pages show it as text, and nothing of it becomes a tag."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

from analysis.cli import main
from tests.helpers.report_page import Page
from tests.helpers.results_fixture import Sweep, two_experts, write_factors, write_probe, write_results

MARK = "zqx"  # stands in every hostile text and nowhere else
# One for each place where text could leave its own: content, attributes of both quotes, style, comments, CDATA,
# character references, references to other documents, names that matplotlib or a browser would take for commands.
HOSTILE = (
    f"<script>alert('{MARK}')</script>",
    f'{MARK}"><img src=x onerror=alert(1)>',
    f"{MARK}' onmouseover='alert(1)",
    f"</style><style>@import url(http://evil.example/{MARK})</style>",
    f"</title></textarea></pre></svg>--><iframe src=//evil.example/{MARK}>",
    f"{MARK}]]><![CDATA[<svg onload=alert(1)>",
    f"&lt;script&gt;{MARK}&#60;script&#62;",
    f"javascript:alert('{MARK}')",
    f"{MARK}\x1b[31m\u202e\ufeff<b>\u2028</b>",
    f"$\\input{{{MARK}}}$ _x_ \\url{{http://evil.example}} {{}}",
    f"https://evil.example/{MARK}.css",
)
# Elements that our pages and matplotlib's drawings consist of, and nothing that loads or runs.
ELEMENTS = set(
    "html head meta title style body main header h1 h2 h3 p nav a ul li section div span b small i table thead tbody tr th"
    " td figure figcaption svg g path defs use clippath rect text tspan image details summary pre input label code"
    " lineargradient stop dl dt dd".split()
)
TEXT_ATTRIBUTES = {"title", "aria-label"}  # may hold what files say


def poison(path: Path) -> None:
    """Puts hostile text into every text of the file that is no option's value or version that is checked."""
    kept = {"schema_version"}
    number = 0

    def next_text() -> str:
        nonlocal number
        number += 1
        return HOSTILE[number % len(HOSTILE)]

    with h5py.File(path, "r+") as file:
        names: list[str] = ["/"]
        file.visit(names.append)
        for name in names:
            item = file[name]
            for attribute in list(item.attrs):
                if isinstance(item.attrs[attribute], str) and attribute not in kept | {
                    "NAME",
                    "CLASS",
                    "owner",
                }:
                    item.attrs[attribute] = next_text()
            if isinstance(item, h5py.Dataset) and h5py.check_string_dtype(item.dtype) is not None:
                item[...] = np.array([f"{next_text()} {place}" for place in range(item.size)], dtype=object)
        file.attrs["configuration"] = (
            f"[run]\nrounds = 3\n[data]\nfolder = {HOSTILE[1]}\n{HOSTILE[0]} = {HOSTILE[2]}\n"
        )
        owners = [owner.decode() for owner in file["user"][()]]
        for place, probe in enumerate(
            group for group in file.get("tokens", {}).values() if isinstance(group, h5py.Group)
        ):
            probe.attrs["owner"] = owners[place % len(owners)]


def hostile_run(folder: Path, *, method: str = "comigs-1g1s", seed: int = 0) -> Path:
    write_results(folder, method=method, seed=seed, users=("German", "Dutch"))
    for place, probe in enumerate((f"<b>{MARK}", f"{MARK}&\"'><script>")):
        write_probe(
            folder, probe.replace("/", ""), HOSTILE, two_experts(2, len(HOSTILE), 3, 0.3 + 0.2 * place)
        )
    factors = np.eye(4)[:2]
    for user in range(2):
        for expert in range(2):
            write_factors(folder, 3, user, 0, expert, factors, factors.T + expert)
    poison(folder / "results.h5")
    return folder


def check_page(path: Path) -> Page:
    """Only known elements; what came from files stands in texts and in attributes that are texts."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= ELEMENTS, {tag for tag, _ in page.tags} - ELEMENTS
    assert text.count("<style>") == 1 and "@import" not in page_style(text) and MARK not in page_style(text)
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert len(policies) == 1 and "default-src 'none'" in policies[0] and "script" not in policies[0]
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in (
                "src",
                "action",
                "formaction",
                "srcdoc",
                "data",
                "ping",
            ), (tag, name)
            assert re.fullmatch(r"[a-zA-Z:-]+", name), (
                f"<{tag}> has an attribute that came from data: {name!r}"
            )
            if name in ("href", "xlink:href"):
                assert value.startswith("#") or (tag == "image" and value.startswith("data:image/png;")), (
                    value[:80]
                )
            if MARK in (value or "") or "evil.example" in (value or ""):
                assert name in TEXT_ATTRIBUTES, f"<{tag} {name}={value!r}>"
    assert MARK in page.text
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", text)
    return page


def page_style(text: str) -> str:
    return text.split("<style>", 1)[1].split("</style>", 1)[0]


def check_drawings(folder: Path) -> None:
    """Figures as files: well-formed, of shapes and texts only."""
    drawings = sorted(folder.rglob("*.svg"))
    assert drawings
    for path in drawings:
        for element in ElementTree.parse(path).iter():
            assert "script" not in str(element.tag).lower()
            for name, value in element.attrib.items():
                assert not name.rpartition("}")[2].startswith("on"), (path, name)
                if name.endswith("href"):
                    assert value.startswith(("#", "data:image/png")), (path, value)


@pytest.mark.parametrize("command", ["report", "insight"])
def test_page_about_one_run(tmp_path, command):
    run = hostile_run(tmp_path / "run")
    assert main([command, str(run), "--output", str(tmp_path / "page.html")]) == 0
    page = check_page(tmp_path / "page.html")
    check_drawings(tmp_path)
    if command == "report":
        assert HOSTILE[0] in page.text and "</pre>" in page.text  # shown as it is written


def test_page_about_several_runs(tmp_path):
    runs = [hostile_run(tmp_path / f"run <i>{MARK}{seed}", seed=seed) for seed in range(2)]
    write_results(tmp_path / "plain", method="local")
    given = [str(path) for path in (*runs, tmp_path / "plain")]
    assert main(["report", *given, "--output", str(tmp_path / "page.html")]) == 0
    check_page(tmp_path / "page.html")
    check_drawings(tmp_path)


@pytest.mark.parametrize("item", ["figure5", "figure14"])
def test_page_of_token_level_routing(tmp_path, item):
    sweep = Sweep(tmp_path)
    folder = sweep.add("slimpajama", "comigs-1g1s", 0, [(item, "CoMiGS <b>")])
    (folder / "results.h5").unlink()
    hostile_run(folder)
    index = json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))
    assert index["runs"][0]["status"] == "done"
    assert main([item, "--index", str(tmp_path / "index.json"), "--output", str(tmp_path / "paper")]) == 0
    page = check_page(next((tmp_path / "paper").glob("*.html")))
    assert HOSTILE[0] in page.text.replace("\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n", "\n")
    check_drawings(tmp_path / "paper")
