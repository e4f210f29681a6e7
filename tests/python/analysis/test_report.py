"""The report as a page: it loads nothing, escapes everything, and comes from one command."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from analysis.draw import formats
from analysis.page import html
from analysis.page.html import render
from analysis.read.results import ResultsError, open_run
from tests.helpers.report_page import Page, report
from tests.helpers.results_fixture import write_results

ROOT = Path(__file__).resolve().parents[3]

# The page ---------------------------------------------------------------------------------------------------


def test_page_loads_nothing_and_its_figures_lie_beside_it(tmp_path):
    write_results(tmp_path / "a", attributes={"base_model": "https://example.org/model"})
    write_results(tmp_path / "b", method="comigs-2s", generalists=[0, 0])
    page = report(tmp_path, tmp_path / "a", tmp_path / "b")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall(r"\w+://[^\s<]*", text) == ["https://example.org/model"] * text.count("https://")
    assert "default-src 'none'" in text and "url(http" not in text and "@import" not in text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img", "base", "form")
        assert not any(name.startswith("on") or name == "src" for name in attributes)
        for name in ("href", "xlink:href"):
            if name in attributes:
                assert attributes[name].startswith("#") and attributes[name][1:] in ids
    assert (
        sum(tag == "svg" for tag, _ in page.tags) == len(list((tmp_path / "page_figures").glob("*.svg"))) == 8
    )
    for path in (tmp_path / "page_figures").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))


def test_text_from_files_is_never_markup(tmp_path):
    hostile = "<script>alert('x')</script>"
    users = (hostile, '"><img src=x onerror=alert(1)> $\\frac{1}{', "_hidden\n$x$ \x07")
    attributes = {
        name: hostile for name in ("title", "data_set", "base_model", "git_commit", "hosts", "seed")
    }
    attributes["configuration"] = f"</pre>{hostile}\n[run]\nrounds = 3\n"
    write_results(tmp_path / "a", users=users, method=hostile, attributes=attributes)
    write_results(tmp_path / "b", users=users, method="comigs-1g1s --> ]]>", attributes=attributes)
    page = report(tmp_path, tmp_path / "a", tmp_path / "b")
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img"}
    assert page.line("method", "rounds")[2] == hostile
    assert f"</pre>{hostile}" in page.text
    assert "\x07" not in page.text


def test_templates_escape_what_they_did_not_make_and_know_all_values(tmp_path):
    values = {"title": "<i>\x07&", "lead": ["'", '"'], "headings": {'a" b="': "<a>"}}
    page = render("page.html", **values)
    assert "<title>comigs: &lt;i&gt;\ufffd&amp;</title>" in page
    assert '<p class="lead">&#39; · &#34;</p>' in page
    assert '<a href="#a&#34; b=&#34;">&lt;a&gt;</a>' in page
    assert Markup("<b>&amp;</b>") in render("page.html", **values | {"title": Markup("<b>&amp;</b>")})
    with pytest.raises(UndefinedError, match="'headings' is undefined"):
        render("page.html", title="", lead=[])


def test_every_template_escapes():
    folder = Path(html.__file__).parent / "templates"
    templates = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}
    assert {"document.html", "report.html", "insight.html", "tokens.html"} <= templates.keys()
    for name, text in templates.items():
        assert not re.search(r"autoescape|\|\s*safe\b|<script", text), name


def test_numbers_have_sensible_digits():
    assert [formats.perplexity(value) for value in (47.186, 12345.678, math.inf, math.nan)] == [
        "47.19",
        "12,345.68",
        "∞",
        "–",
    ]
    assert [formats.seconds(value) for value in (0.01234, 99.96, 100.4, 119.6, 7300)] == [
        "0.01 s",
        "100 s",
        "100 s",
        "2 min",
        "2 h 02 min",
    ]
    assert [formats.size(value) for value in (12, 2048, 3.5 * 2**30)] == ["12 B", "2.0 KiB", "3.5 GiB"]


# The command ------------------------------------------------------------------------------------------------


def command(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "analysis", *map(str, arguments)],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_command_reports_on_a_run_that_is_being_written(tmp_path):
    path = write_results(tmp_path / "run", planned=20)
    with h5py.File(path, "r+") as file:
        file["perplexity/test"][3, 0] = 20.0
        file.flush()
        done = command("report", "run", "run/results.h5", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    page = Page((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert page.line("comigs-1g1s") == ["comigs-1g1s", "3 of 20", "20.00", "26.00", "23.00"]
    assert "report: run/report.html" in done.stdout


def test_only_its_own_files_are_replaced(tmp_path):
    write_results(tmp_path / "run")
    assert command("report", "run", folder=tmp_path).returncode == 0
    made = [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".html", ".svg", ".png")]
    assert len(made) > 4
    assert command("report", "run", folder=tmp_path).returncode == 0
    for path in (made[0], made[-1], made[-2]):
        kept = path.read_bytes()
        path.write_bytes(b"a page, or a figure, of somebody else")
        done = command("report", "run", folder=tmp_path)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert f"{path.relative_to(tmp_path)}: is there already, and not made by this command" in done.stderr
        assert path.read_bytes() == b"a page, or a figure, of somebody else"
        path.write_bytes(kept)
    assert command("report", "run", folder=tmp_path).returncode == 0


def test_what_models_wrote_is_shown_by_prompt_and_is_no_markup(tmp_path):
    write_results(tmp_path / "run")
    wrote = [
        (None, "The sea", " is <b>blue</b>."),
        ("Ann", "The sea", " was calm."),
        ("Ann", "In short", "!"),
    ]
    texts = [{"model": model, "prompt": prompt, "text": text} for model, prompt, text in wrote]
    written = {"format": "comigs-texts", "format_version": 1, "texts": texts}
    (tmp_path / "run" / "texts.json").write_text(json.dumps(written))
    text = report(tmp_path, tmp_path / "run").text
    assert [text.count(prompt + " …") for prompt in ("The sea", "In short")] == [1, 1]
    assert text.index("base model is <b>blue</b>.") < text.index("Ann was calm.") < text.index("In short …")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": "comigs-texts", "format_version": 1, "texts": [{}]}']
)
def test_texts_of_another_kind_are_refused(content, tmp_path):
    write_results(tmp_path / "run")
    (tmp_path / "run" / "texts.json").write_text(content)
    done = command("report", "run", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "run/texts.json: " in done.stderr
    assert not (tmp_path / "run" / "report.html").exists()


def test_command_without_arguments_says_what_it_wants(tmp_path):
    assert command(folder=tmp_path).returncode == 2
    wrong = command("report", "missing", folder=tmp_path)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1


def test_open_run_raises_a_typed_error(tmp_path):
    with pytest.raises(ResultsError, match="no such file"):
        open_run(tmp_path / "missing")
