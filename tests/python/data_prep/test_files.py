"""Files as they are published and as people's programs leave them: headers, encodings, line ends, compressions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from tests.helpers.data_set_reader import DataSet, made
from tests.helpers.toy_text import toy_rows

TEXTS = [row["text"] for row in toy_rows(80, 3)] + ["naïve café — 日本語"]
OPTIONS = ("--vocabulary", 300, "--base-share", 0)


def data_of(folder: Path, *arguments: object) -> DataSet:
    made(*arguments, *OPTIONS, "--output", folder)
    data = DataSet(folder)
    data.check_against_manifest()
    return data


def all_ids(data: DataSet) -> dict[tuple[str, str], list[int]]:
    return {key: data.ids(*key).tolist() for key in data.files}


def text_of(texts: list[str]) -> str:
    return "\n\n".join(texts) + "\n"


@pytest.mark.parametrize(
    "encoded",
    [
        lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\n", "\r\n").encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text_of(TEXTS[:40]).encode() + b"\n\xef\xbb\xbf" + text_of(TEXTS[40:]).encode(),
    ],
    ids=["mark and CRLF", "CR", "UTF-16", "UTF-16 big-endian", "joined"],
)
def test_marks_line_ends_and_utf_16_change_no_token(encoded: Callable[[str], bytes], tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_bytes(text_of(TEXTS).encode())
    (tmp_path / "other.txt").write_bytes(encoded(text_of(TEXTS)))
    plain, other = (
        data_of(tmp_path / name, "text", "--user", f"A={tmp_path / name}.txt") for name in ("plain", "other")
    )
    assert all_ids(plain) == all_ids(other)


def test_marks_in_joined_jsonl_files(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    mark = "\ufeff"
    (tmp_path / "a.jsonl").write_text(
        mark + "".join(lines[:40]) + mark + "".join(lines[40:]), encoding="utf-8"
    )
    data = data_of(tmp_path / "data", "text", "--user", f"A={tmp_path / 'a.jsonl'}")
    assert sorted(sum(data.everything().values(), [])) == sorted(TEXTS)


HEADERS = {
    "as published": (None, '"{c}","{t}","{d}"'),
    "Kaggle's": ("Class Index,Title,Description", "{c},{t},{d}"),
    "another case": ("Class,Title,Description", "{c},{t},{d}"),
    "label": ("label,title,description", "{c},{t},{d}"),
    "the hub's": ("text,label", '"{t} {d}",{zero}'),
    "a column in front": (",label,text", "{i},{zero},{t} {d}"),
    "names": ("category,text", "{name},{t} {d}"),
}


def test_headers_of_ag_news_that_people_have(tmp_path: Path) -> None:
    """Every copy of the same articles gives the same tokens."""
    names = ("World", "sports", "Business", "Sci/Tech")
    found = {}
    for number, (kind, (header, form)) in enumerate(HEADERS.items()):
        rows = [header] if header else []
        for i in range(400):
            c = i % 4
            rows.append(
                form.format(i=i, c=c + 1, zero=c, name=names[c], t=f"title{i}", d=f"words of {i * 7919}")
            )
        file = tmp_path / f"{number}.csv"
        file.write_text("\n".join(rows) + "\n", encoding="utf-8")
        found[kind] = all_ids(data_of(tmp_path / f"data{number}", "ag_news", "--source", file))
    assert all(ids == found["as published"] for ids in found.values())


def test_slimpajama_as_published(tmp_path: Path) -> None:
    """chunk1/example_train_0.jsonl.zst; a folder stands for all below it."""
    sets = ("RedPajamaStackExchange", "RedPajamaGithub", "RedPajamaArXiv", "RedPajamaBook")
    lines = [
        json.dumps({"text": f"{text} {name}", "meta": {"redpajama_set_name": name}}) + "\n"
        for text in TEXTS
        for name in sets
    ]
    budgets = ("--train-tokens", 400, "--validation-tokens", 80, "--test-tokens", 80)
    found = []
    for number, compressed in enumerate((False, True)):
        chunk = tmp_path / f"source{number}" / "train" / "chunk1"
        chunk.mkdir(parents=True)
        for part in range(2):
            text = "".join(lines[part::2])
            if compressed:
                with pyarrow.CompressedOutputStream(
                    str(chunk / f"example_{part}.jsonl.zst"), "zstd"
                ) as stream:
                    stream.write(text.encode())
            else:
                (chunk / f"example_{part}.jsonl").write_text(text)
        found.append(
            data_of(
                tmp_path / f"data{number}", "slimpajama", "--source", tmp_path / f"source{number}", *budgets
            )
        )
    assert all_ids(found[0]) == all_ids(found[1])
    assert [len(data.users) for data in found] == [4, 4]
