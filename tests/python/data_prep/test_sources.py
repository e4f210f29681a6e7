"""Sources elsewhere, by stand-ins: SlimPajama, the hub, Debian's packages."""

from __future__ import annotations

import html
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.data_set_reader import (
    LANGUAGES,
    SAMPLE,
    DataSet,
    made,
    records,
    refused,
    write_jsonl,
)
from tests.helpers.toy_text import ag_news_csv, toy_rows

# SlimPajama, the hub, Debian's packages ---------------------------------------------------------------------

SETS = {"StackExchange": "RedPajamaStackExchange", "GitHub": "RedPajamaGithub"}
SETS |= {"ArXiv": "RedPajamaArXiv", "Book": "RedPajamaBook"}
SMALL = ["--train-tokens", 1000, "--validation-tokens", 200, "--test-tokens", 200, "--vocabulary", 270]


def slimpajama_rows() -> list[dict[str, object]]:
    rows = [
        {"text": f"{user} {row['text']}", "meta": {"redpajama_set_name": part}}
        for number, (user, part) in enumerate(SETS.items())
        for row in toy_rows(80, number)
    ]
    return rows + [{"text": "web page", "meta": {"redpajama_set_name": "RedPajamaC4"}}]


def check_slimpajama(folder: Path) -> None:
    data = DataSet(folder)
    data.check_against_manifest()
    assert data.users == list(SETS)
    for user in data.users:
        for split, tokens in (("train", 1000), ("validation", 200), ("test", 200)):
            assert all(text.startswith(user[:1]) for text in data.documents(user, split))
            assert data.files[user, split]["tokens"] in (tokens, tokens - 1)


def test_slimpajama_from_files(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "chunk.jsonl", slimpajama_rows())
    made("slimpajama", "--source", file, *SMALL, "--output", tmp_path / "data")
    check_slimpajama(tmp_path / "data")
    parts = tmp_path / "parts"
    parts.mkdir()
    for user, part in SETS.items():
        rows = [row for row in slimpajama_rows() if row["meta"]["redpajama_set_name"] == part]
        write_jsonl(parts / f"{user.lower()}.jsonl", [{"text": row["text"]} for row in rows])
    made("slimpajama", "--source", parts, *SMALL, "--output", tmp_path / "data2")
    assert DataSet(tmp_path / "data2").files == DataSet(tmp_path / "data").files
    write_jsonl(file, [{"text": "x"}])
    message = refused("slimpajama", "--source", file, *SMALL, "--output", tmp_path / "data3")
    assert "chunk.jsonl:1: no meta.redpajama_set_name" in message


def stand_in_for_the_hub(folder: Path, rows: dict[str, list[dict]]) -> dict[str, str]:
    """A module `datasets` that gives the rows of 'repository configuration split'; the environment for it."""
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "datasets.py").write_text(
        "import json\n"
        "def load_dataset(path, name, split, streaming):\n"
        f"    return json.load(open({str(folder / 'rows.json')!r}))[f'{{path}} {{name}} {{split}}']\n"
    )
    return {"PYTHONPATH": str(folder)}


def test_the_hub_through_a_stand_in(tmp_path: Path) -> None:
    """`datasets` replaced by a module with the same call: the columns and names that are asked for."""
    articles = ag_news_csv(tmp_path / "news.csv", 400)
    labels = ["World", "Sports", "Business", "Sci/Tech"]
    news = [{"text": text, "label": labels.index(category)} for category, text in articles]
    rows = {
        "fancyzhx/ag_news None train": news[:300],
        "fancyzhx/ag_news None test": news[300:],
        "cerebras/SlimPajama-627B None train": slimpajama_rows(),
    }
    for code in [*LANGUAGES.values(), "en"]:
        rows[f"wikimedia/wikipedia 20231101.{code} train"] = records(SAMPLE / f"{code}.jsonl.xz")
    here = stand_in_for_the_hub(tmp_path, rows)
    made("slimpajama", "--source", "hub", *SMALL, "--output", tmp_path / "slim", **here)
    check_slimpajama(tmp_path / "slim")
    made("ag_news", "--source", "hub", "--vocabulary", 300, "--output", tmp_path / "hub", **here)
    made("ag_news", "--source", tmp_path / "news.csv", "--vocabulary", 300, "--output", tmp_path / "files")
    assert DataSet(tmp_path / "hub").files == DataSet(tmp_path / "files").files
    limit = ["--read-bytes", 100_000, "--vocabulary", 500]
    made("multilingual", "--source", "hub", *limit, "--output", tmp_path / "wiki", **here)
    wiki = DataSet(tmp_path / "wiki")
    wiki.check_disjoint()
    read = sum(len(text.encode()) for texts in wiki.everything().values() for text in texts)
    assert 500_000 <= read < 650_000


def test_dolly_from_the_hub_is_dolly_from_a_file(tmp_path: Path) -> None:
    rows = [
        {"category": name, "instruction": f"What is {name} {i}?", "context": "", "response": f"it is {i}"}
        for name in ("open_qa", "poem")
        for i in range(60)
    ]
    here = stand_in_for_the_hub(tmp_path, {"databricks/databricks-dolly-15k None train": rows})
    more = ["--vocabulary", 300, "--output"]
    made("instructions", "--source", "hub", *more, tmp_path / "hub", **here)
    made("instructions", "--source", write_jsonl(tmp_path / "dolly.jsonl", rows), *more, tmp_path / "file")
    found = DataSet(tmp_path / "hub")
    assert found.files == DataSet(tmp_path / "file").files
    assert found.manifest["sources"][0]["licence"] == "CC BY-SA 3.0"


def test_other_columns_on_the_hub(tmp_path: Path) -> None:
    cases = [
        ("ag_news", {"title": "x", "body": "y"}, "me/own has the columns title, body; text, label expected"),
        ("ag_news", {"text": "x", "label": "World"}, "me/own has a str in its column 'label'; int expected"),
        ("ag_news", {"text": None, "label": 1}, "me/own has a NoneType in its column 'text'; str expected"),
        ("ag_news", {"text": "x", "label": 4}, "me/own has the label 4; 0 to 3 (World, Sports, Business,"),
        ("slimpajama", {"text": "x"}, "me/own has the columns text; text, meta expected"),
        (
            "slimpajama",
            {"text": "x", "meta": {"part": "book"}},
            "me/own has part in its column 'meta'; redpajama_set_name expected",
        ),
        ("multilingual", {"article": "x"}, "me/own has the columns article; text expected"),
    ]
    for command, row, expected in cases:
        configuration = "20231101.de" if command == "multilingual" else None
        here = stand_in_for_the_hub(tmp_path, {f"me/own {configuration} train": [row]})
        hub = ["--source", "hub", "--hub-name", "me/own"]
        message = refused(command, *hub, "--output", tmp_path / "data", **here)
        assert f"--source hub: {expected}" in message, message
    assert not (tmp_path / "data").exists()


def test_the_hub_out_of_reach(tmp_path: Path) -> None:
    out = ["--output", tmp_path / "data"]
    pytest.importorskip("datasets")
    message = refused("ag_news", "--source", "hub", *out, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert "the Hugging Face hub cannot be reached" in message and "pass --source FOLDER" in message
    (tmp_path / "datasets.py").write_text("raise ImportError('not here')")
    message = refused("multilingual", "--source", "hub", *out, PYTHONPATH=str(tmp_path))
    assert "--source hub needs the Python package 'datasets'" in message


def debian_tree(root: Path) -> dict[str, set[str]]:
    """Packages' files made of the sample's pages and of what the recipe leaves out; the texts by language."""
    texts: dict[str, set[str]] = {}
    for language in [*LANGUAGES.values(), "en"]:
        locale = "en-US" if language == "en" else language
        texts[language] = set()
        for row in [row for row in records(SAMPLE / f"{language}.jsonl.xz") if len(row["text"]) > 1500][:40]:
            heading, *paragraphs = [html.escape(line) for line in row["text"].split("\n")]
            name = row["source"].removeprefix("libreoffice-help:")
            page = root / "usr/share/libreoffice/help" / locale / "text" / f"{name}.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            body = "".join(
                f'<p class="x">{line[:20]}<b>{line[20:]}</b></p>\n' for line in paragraphs if "&" not in line
            )
            body += '<p class="code">a an and are as at be by can for from has have if</p><p>1 2 3 4 5</p>'
            page.write_text(
                f'<p>out of it</p><div id="DisplayArea"><h1>{heading}<br></h1>{body}</div>', encoding="utf-8"
            )
            kept = [
                html.unescape(line) for line in (heading, *(line for line in paragraphs if "&" not in line))
            ]
            texts[language].add("\n".join(kept))
        guide = root / "usr/share/doc/installation-guide-amd64" / language
        guide.mkdir(parents=True)
        (guide / "ch01.html").write_text("<p>short</p>")
    return texts


def test_debian_packages_through_stand_ins(tmp_path: Path) -> None:
    texts = debian_tree(tmp_path / "tree")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "apt-get").write_text(
        '#!/bin/sh\nshift 3\nfor name in "$@"; do : > "${name}_1%3a2_all.deb"; done\n'
    )
    (tools / "dpkg-deb").write_text(f'#!/bin/sh\nmkdir -p "$3" && cp -r {tmp_path}/tree/. "$3"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    options = ["multilingual", "--source", "debian", "--vocabulary", 400, "--output", tmp_path / "data"]
    made(*options, PATH=path)
    data = DataSet(tmp_path / "data")
    data.check_disjoint()
    found = {user: set() for user in LANGUAGES}
    for (owner, _), documents in data.everything().items():
        if owner != "base":
            found[owner] |= set(documents)
    for user, language in LANGUAGES.items():
        assert len(found[user]) >= 30 and found[user] <= texts[language]
    assert "libreoffice-help-de 1:2" in data.manifest["sources"][0]["origin"]
    (tools / "apt-get").write_text("#!/bin/sh\necho 'E: Unable to locate package x' >&2\nexit 100\n")
    message = refused(*options, "--replace", PATH=path)
    assert "E: Unable to locate package x; run `apt-get update` first" in message
    shutil.rmtree(tools)
    tools.mkdir()
    assert "apt-get is not here" in refused(*options, "--replace", PATH=str(tools))
