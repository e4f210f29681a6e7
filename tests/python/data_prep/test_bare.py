"""`python -m data_prep bare`: files of ids without a header become a data set, id for id, or are refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models

from data_prep.cli import main
from tests.helpers.data_set_reader import DataSet, made, refused
from tests.helpers.tiny import ONE_STEP, VOCABULARY, alone, gpt2_folder, text

FORMATS = {"uint16": "<H", "uint32": "<I"}
SPLITS = {"train": "train", "validation": "valid", "test": "test"}


def save_tokeniser(path: Path, words: int = VOCABULARY) -> Path:
    """Of `words` ids, the first of which ends a text."""
    tokenizer = Tokenizer(
        models.WordLevel({"<|endoftext|>": 0} | {f"w{i}": i for i in range(1, words)}, "w1")
    )
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    tokenizer.save(str(path))
    return path


def write(path: Path, ids: list[int], dtype: str) -> None:
    path.write_bytes(b"".join(struct.pack(FORMATS[dtype], number) for number in ids))


@pytest.fixture
def tokeniser(tmp_path) -> Path:
    return save_tokeniser(tmp_path / "tokenizer.json")


def bare_folder(folder: Path, dtype: str, users: int = 2) -> Path:
    """User i's split s has ids of its own."""
    folder.mkdir()
    for user in range(users):
        for number, word in enumerate(SPLITS.values()):
            write(folder / f"{word}_{user}.bin", text(60 + 7 * number, user, number).tolist(), dtype)
    (folder / "meta.pkl").write_bytes(b"not looked at")
    return folder


def arguments(folder: Path, tokeniser: Path, dtype: str, *options: object) -> list[object]:
    words = ["bare", "--source", folder, "--dtype", dtype, "--tokeniser", tokeniser, *options]
    return [*words, "--output", folder.parent / "data"]


@pytest.mark.parametrize("dtype", FORMATS)
def test_ids_come_out_as_they_were(dtype, tokeniser, tmp_path):
    folder = bare_folder(tmp_path / "bare", dtype, users=11)
    told = made(*arguments(folder, tokeniser, dtype))
    data = DataSet(tmp_path / "data")
    assert data.users == [f"user-{number}" for number in range(11)]  # by number, not by letters
    for user in range(11):
        for split, word in SPLITS.items():
            file = folder / f"{word}_{user}.bin"
            entry = data.files[f"user-{user}", split]
            assert (data.folder / entry["file"]).read_bytes() == file.read_bytes()
            assert entry["documents"] is None and entry["tokens"] == len(data.ids(f"user-{user}", split))
    assert data.manifest["dtype"] == dtype and data.manifest["base"] is None and data.end == 0
    assert data.tokenizer.get_vocab() == Tokenizer.from_file(str(tokeniser)).get_vocab()
    assert "user-10  train               -      60" in told
    assert "nothing to do" in made(*arguments(folder, tokeniser, dtype))
    write(folder / "test_0.bin", [1, 2], dtype)
    assert "--replace" in refused(*arguments(folder, tokeniser, dtype))


def test_comigs_trains_on_it(tokeniser, tmp_path):
    folder = bare_folder(tmp_path / "bare", "uint16", users=1)
    made(*arguments(folder, tokeniser, "uint16", "--names", "日本", "--name", "theirs"))
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["name"] == "theirs" and manifest["sources"][0]["documents"] is None
    base = gpt2_folder(tmp_path / "base")
    save_tokeniser(base / "tokenizer.json")
    given = ("--data", tmp_path / "data", "--model", base, "--output", tmp_path / "run")
    done = alone("train", *given, *ONE_STEP, "--device", "cpu", "--threads", 1)
    assert done.code == 0, done.errors
    with h5py.File(tmp_path / "run" / "results.h5") as file:
        assert [name.decode() for name in file["perplexity/user"][()]] == ["日本"]
        assert np.isfinite(file["perplexity/test"][()]).all()
        assert file["users/test_tokens"][()].tolist() == [74]


def refused_here(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """As `refused`, in this process: a tenth of the time."""
    assert main([str(word) for word in words]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ") and told.err.count("\n") == 1 and not told.out, told
    return told.err


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def renumber(folder: Path) -> None:
    for word in SPLITS.values():
        (folder / f"{word}_1.bin").rename(folder / f"{word}_2.bin")


def in_the_place_of(name: str) -> Callable[[Path], object]:
    return lambda folder: ((folder / name).unlink(), (folder / name).mkdir())


def as_uint32(folder: Path) -> None:
    data = np.fromfile(folder / "test_1.bin", dtype="<u2")
    (folder / "test_1.bin").write_bytes(data.astype("<u4").tobytes())


def copied(folder: Path) -> None:
    (folder / "test_1.bin").write_bytes((folder / "valid_1.bin").read_bytes())


def emptied(folder: Path) -> None:
    for file in folder.glob("*.bin"):
        file.unlink()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


@pytest.mark.parametrize(
    ("dtype", "change", "expected"),
    [
        ("uint16", remove("valid_1.bin"), "valid_1.bin: is missing beside test_1.bin"),
        ("uint16", renumber, "train_1.bin: is missing beside test_2.bin; users are numbered 0, 1, 2"),
        ("uint16", put("test_7.bin", b"\1\0"), "train_2.bin: is missing beside test_7.bin"),
        ("uint16", put("train_01.bin", b"\1\0"), "train_01.bin: train_1.bin is expected"),
        ("uint16", in_the_place_of("test_0.bin"), "test_0.bin: is not a regular file"),
        ("uint16", put("test_0.bin", POINTER), "test_0.bin: is a pointer of Git LFS"),
        ("uint16", put("valid_0.bin", b""), "valid_0.bin: 0 bytes, uint16 ids are expected"),
        ("uint16", put("valid_0.bin", b"\1\0\2"), "valid_0.bin: 3 bytes, the id from byte 2 on is cut short"),
        ("uint32", put("valid_0.bin", b"\1\0\0\0\2\0"), "valid_0.bin: 6 bytes, the id from byte 4 on"),
        (
            "uint16",
            put("test_1.bin", b"\1\0\x61\0"),
            "test_1.bin: id 97 at byte 2 as uint16; ids below 97 are expected",
        ),
        ("uint32", put("test_1.bin", b"\1\0\2\0"), "test_1.bin: id 131,073 at byte 0 as uint32"),
        ("uint16", as_uint32, "test_1.bin: bytes 2 and 3 of every four are 0, as in a file of uint32"),
        ("uint16", copied, "test_1.bin: the same ids as valid_1.bin"),
        ("uint16", emptied, "no train_0.bin, valid_0.bin and test_0.bin in it"),
    ],
)
def test_files_that_cannot_be(dtype, change, expected, tokeniser, tmp_path, capsys):
    folder = bare_folder(tmp_path / "bare", dtype)
    change(folder)
    message = refused_here(capsys, *arguments(folder, tokeniser, dtype))
    assert str(folder) in message and expected in message, message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "tokenizer.json"]


def test_options_that_do_not_go(tokeniser, tmp_path, capsys):
    folder = bare_folder(tmp_path / "bare", "uint16")
    large = save_tokeniser(tmp_path / "large.json", 65_600)
    for given, expected in (
        (arguments(folder, tokeniser, "uint16", "--names", "one"), "--names one: 1 names found, 2 expected"),
        (arguments(folder, tokeniser, "uint16", "--names", ""), "--names : 0 names found, 2 expected"),
        (arguments(folder, tokeniser, "uint16", "--names", "a,a"), "--names: 'a,a': 'a' stands there twice"),
        (arguments(folder, tokeniser, "uint16", "--names", "a," + "n" * 65), "at most 64 bytes"),
        (arguments(folder, tokeniser, "uint16", "--names", "a b,a-b"), "its folder 'a-b' is taken"),
        (arguments(folder, large, "uint16"), "--dtype uint16: the vocabulary has 65,600 ids"),
        (arguments(folder, tokeniser, "int16"), "--dtype"),
        (arguments(folder, Path("train"), "uint16"), "--tokeniser train: what made the ids is expected"),
        (arguments(folder, Path("gpt2"), "uint16"), "needs --gpt2-files"),
        (arguments(folder, tmp_path / "none.json", "uint16"), "none.json: no such file"),
        (arguments(tmp_path / "none", tokeniser, "uint16"), "none: no such folder"),
        (arguments(folder, tokeniser, "uint16", "--end-of-text", "<none>"), "no <none> is in its vocabulary"),
        (arguments(folder, tokeniser, "uint16", "--base-share", 0.1), "--base-share"),
    ):
        message = refused_here(capsys, *given)
        assert expected in message, message
    assert not (tmp_path / "data").exists()
