"""Tokenisers of every model that the tokenizers library knows, as they are published and as they are saved again."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from tests.helpers.tiny import VOCABULARY, Done, data_set, executable, gpt2_folder, know_tokeniser, run

SPECIAL = ["<unk>", "</s>"]


def texts() -> list[str]:
    source = random.Random(1)
    words = ["".join(source.choices("etaoin", k=source.randint(2, 6))) for _ in range(60)]
    return [" ".join(source.choices(words, k=20)) for _ in range(100)]


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16, pad_id=0, pad_token="<unk>")
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["</s>"], show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def as_older_versions_wrote_it(file: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    model, step = content["model"], content["pre_tokenizer"]
    if "merges" in model:
        model["merges"] = [" ".join(pair) for pair in model["merges"]]
    for name in ("ignore_merges", "byte_fallback"):
        if model.get(name) is False:
            del model[name]
    if step and step["type"] == "Metaspace":
        content["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": step["replacement"],
            "add_prefix_space": True,
        }
    file.write_text(json.dumps(content, indent=3, sort_keys=True), encoding="utf-8")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("tokenisers")
    return data_set(place / "data", users=("German",)), gpt2_folder(place / "base")


def plan(folders: tuple[Path, Path]) -> Done:
    data, base = folders
    small = ("--local-steps", 1, "--batch-sequences", 1, "--context-tokens", 8, "--rounds", 1)
    place = (
        "--data",
        data,
        "--model",
        base,
        "--output",
        data.parent / "out",
        "--device",
        "cpu",
        "--threads",
        1,
    )
    return run([executable(), "plan", *place, *small])


@pytest.mark.parametrize("make", [unigram, byte_level, byte_fallback, word_piece, word_level])
def test_saved_again_it_is_the_same(make, folders):
    data, base = (folder / "tokenizer.json" for folder in folders)
    make().save(str(base))
    again = Tokenizer.from_file(str(base))
    again.no_truncation()
    again.no_padding()
    again.save(str(data), pretty=False)
    know_tokeniser(data.parent)
    as_older_versions_wrote_it(base)
    assert Tokenizer.from_file(str(base)).encode(texts()[0]).ids[:9] == again.encode(texts()[0]).ids[:9]
    done = plan(folders)
    assert done.code == 0, done.errors


def test_another_one_is_told_by_what_differs(folders):
    data, base = (folder / "tokenizer.json" for folder in folders)
    tokenizer = byte_level()
    tokenizer.save(str(base))
    tokenizer.add_special_tokens([AddedToken("<pad>", special=True)])
    tokenizer.save(str(data))
    know_tokeniser(data.parent)
    done = plan(folders)
    assert done.code == 2
    assert f"{base} is another tokeniser" in done.errors
    assert "token '<pad>' is absent in it" in done.errors
