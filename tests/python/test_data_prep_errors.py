"""data_prep when something is wrong: messages, exit codes, nothing half-written; and sources elsewhere."""

from __future__ import annotations

import html
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data_set_reader import LANGUAGES, ROOT, SAMPLE, DataSet, data_prep, made, records, refused, write_jsonl
from test_data_prep import ag_news_csv, toy_rows


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "one.jsonl", toy_rows(60, 1))


def nothing_left(folder: Path) -> bool:
    """No data set and no temporary folder."""
    return not any(path.is_dir() for path in folder.iterdir())


# Bad input --------------------------------------------------------------------------------------------------


def test_malformed_lines_name_file_and_line(tmp_path: Path) -> None:
    cases = {
        "a.jsonl": (b'{"text": "fine"}\n{"text": \n', "a.jsonl:2: not a JSON object"),
        "b.jsonl": (
            b'{"text": "fine"}\n\n{"txt": "x"}\n',
            "b.jsonl:3: expected an object with a string 'text'",
        ),
        "c.jsonl": (b"[1]\n", "c.jsonl:1: expected an object"),
        "d.jsonl": (b'{"text": "\\ud800"}\n', "d.jsonl:1: the text holds a lone surrogate"),
        "e.jsonl": (
            b'{"text": "\xff"}\n',
            "e.jsonl:1: is not UTF-8 text (invalid start byte: 0xff at byte 10)",
        ),
        "f.csv": (b'text,n\r\n"two\nlines",1\r\nx\r\n', "f.csv:4: 1 columns, 2 expected"),
        "g.csv": (b'text,n\r\n"open,1\r\n', "g.csv:2: malformed CSV"),
        "h.csv": (b'text,n\r\n"a"b,1\r\n', "h.csv:2: malformed CSV"),
        "i.csv": (b"words,n\r\nx,1\r\n", "i.csv:1: no column 'text' in the header (words, n)"),
        "j.jsonl.xz": (b"not xz", "j.jsonl.xz: cannot be decompressed"),
        "k.jsonl.gz": (b"not gzip", "k.jsonl.gz: cannot be decompressed"),
        "l.pdf": (b"x", "l.pdf: unknown kind of file"),
        "m.jsonl.zst": (b"not zstd", "m.jsonl.zst: cannot be decompressed"),
        "n.tar.zst": (
            b"x",
            "n.tar.zst: unknown kind of file; .jsonl, .csv or .txt (also .xz, .gz, .bz2, .zst)",
        ),
        "o.jsonl": (b'{"text": "fine"}\r\n{"text": "na\xefve"}\r\n', "o.jsonl:2: is not UTF-8 text"),
        "p.csv": (b'text\n"two\nlines"\nZ\xfcrich\n', "p.csv:4: is not UTF-8 text"),
        "q.txt": (
            b"one\rtwo\r\ncaf\xe9\n",
            "q.txt:3: is not UTF-8 text (invalid continuation byte: 0xe9 at byte 12)",
        ),
        "r.txt": (b"cut \xc3", "r.txt:1: is not UTF-8 text"),
        "s.txt": ("no mark\n".encode("utf-16-le"), "s.txt:1: holds a NUL character"),
        "t.jsonl": ('{"text": "no mark"}\n'.encode("utf-16-be"), "t.jsonl:1: holds a NUL character"),
        "u.txt": (b"\xff\xfecut off in the middle of tw", "u.txt: its byte-order mark says UTF-16"),
        "v.jsonl": (b'{"text": "x"}\n' + b"[" * 100_000, "v.jsonl:2: not a JSON object"),
        "w.jsonl": (b'[{"text": "x"},\n{"text": "y"}]\n', "w.jsonl:1: not a JSON object: "),
    }
    for name, (content, expected) in cases.items():
        (tmp_path / name).write_bytes(content)
        message = refused("text", "--user", f"A={tmp_path / name}", "--output", tmp_path / "data")
        assert expected in message, message
    assert nothing_left(tmp_path)


def test_names_that_comigs_would_refuse_are_refused_when_made(one: Path, tmp_path: Path) -> None:
    long, out = "n" * 65, ["--output", tmp_path / "data"]
    for words, expected in (
        ([f"{long}={one}"], f"--user {long}: a printable name of at most 64 bytes"),
        (["é" * 33 + f"={one}"], "this one has 66"),
        ([f"a\tb={one}"], "a printable name"),
        ([os.fsdecode(b"Jos\xe9") + f"={one}"], "is not UTF-8 text"),
        ([f"A={one}", "--name", long], "--name"),
        ([f"A={one}", "--name", ""], "--name"),
        ([f"A={one}", "--licence", os.fsdecode(b"Universit\xe9")], "--licence"),
    ):
        message = refused("text", "--user", *words, *out)
        assert expected in message, message
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "latin-1", "C"],
)
def test_names_beyond_the_encoding_of_the_output(one: Path, tmp_path: Path, environment: dict) -> None:
    name, output = "Łukasz 李", tmp_path / os.fsdecode(b"donn\xe9es")
    options = ["--vocabulary", 300, "--base-share", 0, "--output", output]
    done = data_prep("text", "--user", f"{name}={one}", *options, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["users"][0]["name"] == name


def test_file_names_that_are_not_utf_8(one: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    shutil.copy(one, tmp_path / "texts" / os.fsdecode(b"caf\xe9.jsonl"))
    output, options = tmp_path / "data", ["--vocabulary", 300, "--base-share", 0]
    made("text", "--user", f"A={tmp_path / 'texts'}", *options, "--output", output)
    assert DataSet(output).manifest["sources"][0]["name"] == "caf\\xe9.jsonl"


def test_ag_news_errors(tmp_path: Path) -> None:
    rows = "".join(f"{n % 3 + 1},t{n}\r\n" for n in range(40))
    cases = [
        ("label,text\r\n" + rows, "the column label has 1, 2, 3 only: of 0 to 3 or of 1 to 4?"),
        ("label,text\r\n4,a\r\n0,b\r\n", ":3: label is '0', expected one of 1 (World)"),
        ("class,text\r\n0,a\r\n3,b\r\n", ":2: class is '0', expected one of 1 (World)"),
        ("class,title,description\r\n1,a,b\r\n5,a,b\r\n", ":3: class is '5'"),
        (
            "kind,body\r\n1,a\r\n",
            ":1: columns class (or label) and text, or class, title and description expected",
        ),
        ("", "the file is empty"),
        ("class,text\r\n1,a\r\n2,b\r\n3,c\r\n", "user Sci/Tech has no document"),
        ("class,text\r\n" + "".join(f"{n % 4 + 1},t{n}\r\n" for n in range(40)), "too little text: "),
    ]
    file = tmp_path / "news.csv"
    for content, expected in cases:
        file.write_text(content, newline="")
        assert expected in refused("ag_news", "--source", file, "--output", tmp_path / "data")
    (tmp_path / "empty").mkdir()
    message = refused("ag_news", "--source", tmp_path / "empty", "--output", tmp_path / "data")
    assert "the folder holds no .csv file" in message


def test_missing_files_and_options(one: Path, tmp_path: Path) -> None:
    out = ["--output", tmp_path / "data"]
    text = ["text", "--user", f"One={one}", *out]
    gone, pointer = tmp_path / "gone", tmp_path / "tokenizer.json"
    text_pointer = tmp_path / "two.txt"
    for file in (pointer, text_pointer):
        file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{7:064}\nsize 1355256\n")
    cases = [
        (["multilingual", "--source", gone, *out], f"--source {gone}: no such folder"),
        (["multilingual", "--source", tmp_path, *out], "no de.jsonl there"),
        (["multilingual", "--users", "German,Greek", *out], "--users Greek: unknown user"),
        (["multilingual"], "the following arguments are required: --output"),
        (["ag_news", "--source", gone, *out], f"--source {gone}: no such file or folder"),
        (["text", "--user", f"A={gone}.txt", *out], f"{gone}.txt: no such file or folder"),
        (["text", "--user", "A", *out], "NAME=FILE[,FILE] is expected"),
        ([*text, "--group", "side"], "one.jsonl:1: no field 'side', which --group names"),
        ([*text, "--tokeniser", "gpt2"], "needs --gpt2-files"),
        ([*text, "--tokeniser", "gpt2", "--gpt2-files", one, gone], f"{gone}: no such file"),
        ([*text, "--tokeniser", "gpt2", "--gpt2-files", one, one], "one.jsonl: not JSON: line 2, column 1"),
        ([*text, "--tokeniser", gone], f"{gone}: no such file"),
        ([*text, "--tokeniser", one], "is not a tokenizer.json"),
        ([*text, "--tokeniser", pointer], f"{pointer}: is a pointer of Git LFS"),
        ([*text, "--tokeniser", "gpt2", "--gpt2-files", pointer, one], f"{pointer}: is a pointer of Git LFS"),
        (["text", "--user", f"A={one},{text_pointer}", *out], f"{text_pointer}: is a pointer of Git LFS"),
        ([*text, "--base-text", text_pointer], f"{text_pointer}: is a pointer of Git LFS"),
        ([*text, "--vocabulary", 100], "--vocabulary 100: at least 258 expected"),
        ([*text, "--vocabulary", 60000], "too little text for --vocabulary 60000"),
        ([*text, "--base-share", 1.5], "a share from 0 up to"),
        ([*text, "--fractions", 1, 0, 1], "a number above 0 expected"),
        ([*text, "--seed", "x"], "--seed"),
        ([*text, "--seed", str(2**63)], f"'{2**63}' found, an integer from 0 to 2^63 - 1 expected"),
        ([*text, "--base-text", gone], f"--base-text {gone}: no such file"),
        (["wikitext", *out], "invalid choice: 'wikitext'"),
    ]
    for arguments, expected in cases:
        assert expected in refused(*arguments), arguments
    assert nothing_left(tmp_path)


def test_users_whose_folders_would_be_one(one: Path, tmp_path: Path) -> None:
    two = write_jsonl(tmp_path / "two.jsonl", toy_rows(60, 2))
    users = ["--user", f"A/B={one}", "--user", f"a b={two}"]
    message = refused("text", *users, "--vocabulary", 270, "--output", tmp_path / "data")
    assert "user a b: its folder 'a-b' is taken" in message and nothing_left(tmp_path)


def test_too_little_text_for_a_split(tmp_path: Path) -> None:
    two = write_jsonl(tmp_path / "two.jsonl", toy_rows(2, 3))
    message = refused("text", "--user", f"One={two}", "--output", tmp_path / "data")
    assert "too little text for user One: 2 documents, but 4 splits need one each" in message


def test_help_and_missing_package(one: Path, tmp_path: Path) -> None:
    assert "multilingual" in made("--help") and "--base-share" in made("ag_news", "--help")
    (tmp_path / "tokenizers.py").write_text("raise ImportError('not here')")
    arguments = ["text", "--user", f"One={one}", "--output", tmp_path / "data"]
    assert "the Python package 'tokenizers' is missing" in refused(*arguments, PYTHONPATH=str(tmp_path))


# All or nothing ---------------------------------------------------------------------------------------------


def test_a_failure_while_writing_leaves_nothing(one: Path, tmp_path: Path) -> None:
    """The training file is written by then; the test split turns out too small."""
    options = ["--vocabulary", 270, "--test-tokens", 50_000, "--output", tmp_path / "data"]
    message = refused("text", "--user", f"One={one}", *options)
    assert "One, test: " in message and "50,000 wanted" in message
    assert nothing_left(tmp_path)


def test_a_failed_replacement_leaves_the_old_data_set(one: Path, tmp_path: Path) -> None:
    options = ["text", "--user", f"One={one}", "--vocabulary", 270, "--output", tmp_path / "data"]
    made(*options)
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    refused(*options, "--replace", "--test-tokens", 50_000)
    assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data"]


def test_a_killed_run_leaves_no_data_set_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    """Killed as soon as its temporary folder is seen; what it left goes away with the next run."""
    big = write_jsonl(tmp_path / "big.jsonl", toy_rows(60_000, 4))
    options = ["text", "--user", f"One={big}", "--vocabulary", "270", "--output", str(tmp_path / "data")]
    process = subprocess.Popen([sys.executable, "-m", "data_prep", *options], cwd=ROOT)
    limit = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < limit and nothing_left(tmp_path):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "data").exists() and not nothing_left(tmp_path)
    write_jsonl(big, toy_rows(60, 4))
    made(*options)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data"]


def test_the_same_command_again_does_nothing(one: Path, tmp_path: Path) -> None:
    options = ["text", "--user", f"One={one}", "--vocabulary", 270, "--output", tmp_path / "data"]
    made(*options)
    manifest = tmp_path / "data/manifest.json"
    before = manifest.stat()
    assert "nothing to do" in made(*options)
    assert (manifest.stat().st_ino, manifest.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert "holds another data set" in refused(*options, "--seed", 1)
    write_jsonl(one, toy_rows(61, 1))
    assert "holds another data set" in refused(*options)
    assert "written in" in made(*options, "--replace")
    assert sum(entry["documents"] for entry in DataSet(tmp_path / "data").files.values()) == 61


def test_what_came_there_meanwhile_is_not_replaced(one: Path, tmp_path: Path) -> None:
    """Two calls with unlike options into one folder: the one that ends last leaves what the other has made."""
    big = write_jsonl(tmp_path / "big.jsonl", toy_rows(60_000, 4))
    output = tmp_path / "data"
    options = ["text", "--user", f"One={big}", "--vocabulary", "270", "--output", str(output)]
    slow = subprocess.Popen(
        [sys.executable, "-m", "data_prep", *options], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    limit = time.monotonic() + 60
    while slow.poll() is None and time.monotonic() < limit and nothing_left(tmp_path):
        time.sleep(0.002)
    assert slow.poll() is None
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    _, errors = slow.communicate(timeout=120)
    assert slow.returncode == 2 and f"--output {output}" in errors
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data"]
    assert [path.read_text() for path in output.iterdir()] == ["mine"]


def test_leftovers_are_known_by_name_and_content(one: Path, tmp_path: Path) -> None:
    host = socket.gethostname()
    output = tmp_path / "data"
    options = ["text", "--user", f"One={one}", "--vocabulary", 270, "--output", output]
    gone = 4_194_304 + 1  # above the largest number that a process can have
    left, with_more, other = (
        tmp_path / name
        for name in (
            f".data.partial-{host}-{gone}",
            f".data.partial-{host}-{gone + 1}",
            f".data.partial-{host}-x",
        )
    )
    for folder in (left, with_more, other):
        (folder / "one").mkdir(parents=True)
        (folder / "one/train.bin").write_text("tokens")
    (with_more / "one/thesis.tex").write_text("mine")
    made(*options)
    assert (
        not left.exists() and (with_more / "one/thesis.tex").exists() and (other / "one/train.bin").exists()
    )
    # Killed between putting the old data set aside and the new one in its place: the old one comes back.
    before = (output / "manifest.json").read_bytes()
    output.rename(left.with_name(left.name + ".old"))
    assert "holds another data set" in refused(*options, "--seed", 1)
    assert (output / "manifest.json").read_bytes() == before
    made(*options, "--replace", "--seed", 1)
    assert (output / "manifest.json").read_bytes() != before
    assert not left.with_name(left.name + ".old").exists()


def test_a_manifest_of_something_else_makes_no_data_set(one: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"format": "another", "users": [], "base": null}')
    options = ["text", "--user", f"One={one}", "--vocabulary", 270, "--output", folder, "--replace"]
    assert "exists and is no data set of comigs" in refused(*options)


def test_a_damaged_data_set_is_made_anew_and_other_folders_are_left_alone(one: Path, tmp_path: Path) -> None:
    options = ["text", "--user", f"One={one}", "--vocabulary", 270, "--output", tmp_path / "data"]
    made(*options)
    file = tmp_path / "data/one/train.bin"
    file.write_bytes(file.read_bytes()[:-2])
    assert "written in" in made(*options)
    DataSet(tmp_path / "data").check_against_manifest()
    (tmp_path / "data/notes.txt").write_text("mine")
    assert "holds notes.txt, which is no part" in refused(*options, "--replace")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("mine")
    message = refused(*options[:-1], tmp_path / "home", "--replace")
    assert "exists and is no data set" in message and (tmp_path / "home/letter.txt").exists()


def test_an_output_that_cannot_be_written_is_a_failure_not_bad_input(one: Path) -> None:
    done = data_prep("text", "--user", f"One={one}", "--vocabulary", 270, "--output", "/proc/comigs/data")
    assert done.returncode == 1 and done.stderr.startswith("error: /proc/comigs")


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
