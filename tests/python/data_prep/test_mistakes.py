"""data_prep when something is wrong with its input: messages and exit codes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.data_set_reader import (
    DataSet,
    data_prep,
    made,
    refused,
    write_jsonl,
)
from tests.helpers.toy_text import nothing_left, one, toy_rows

__all__ = ["one"]  # the fixture is for tests here


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
        (
            ["multilingual", "--users", "German,Dutch,German", *out],
            "--users: 'German,Dutch,German': 'German' stands",
        ),
        (
            ["instructions", "--source", "sample", "--users", "a,,b", *out],
            "'a,,b': expected names separated by",
        ),
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
