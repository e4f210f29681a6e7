"""data_prep through its command line: splits, tokens, manifest, determinism."""

from __future__ import annotations

import csv
import json
import lzma
import random
from pathlib import Path

import numpy
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.helpers.data_set_reader import (
    LANGUAGES,
    SAMPLE,
    SHARED,
    DataSet,
    made,
    records,
    refused,
    write_jsonl,
)
from tests.helpers.toy_text import CATEGORIES, ag_news_csv, toy_rows

GPT2 = [SHARED / "tokenizers/gpt2/encoder.json", SHARED / "tokenizers/gpt2/vocab.bpe"]
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("sample") / "data"
    made("multilingual", "--output", folder)
    return DataSet(folder)


def side_of(data: DataSet, page_of: dict[str, dict[str, str]]) -> dict[str, set[str]]:
    """The splits that each page (by any user's text of it) is found in."""
    sides: dict[str, set[str]] = {}
    for (owner, split), documents in data.everything().items():
        if owner != "base":
            for text in documents:
                sides.setdefault(page_of[owner][text], set()).add(split)
    return sides


# The shipped sample -----------------------------------------------------------------------------------------


def test_sample_agrees_with_its_manifest(sample: DataSet) -> None:
    sample.check_against_manifest()
    assert sample.users == ["German", "Dutch", "French", "Italian"]
    assert sample.manifest["format"] == "comigs-dataset" and sample.manifest["format_version"] == 1
    assert sample.manifest["tokeniser"]["kind"] == "byte-level-bpe"
    assert sample.manifest["tokeniser"]["vocabulary"] == 4096 and sample.end == 0
    assert {source["licence"] for source in sample.manifest["sources"]} == {"MPL-2.0"}


def test_sample_round_trip_gives_back_every_document(sample: DataSet) -> None:
    decoded = sorted(text for documents in sample.everything().values() for text in documents)
    files = [SAMPLE / f"{language}.jsonl.xz" for language in [*LANGUAGES.values(), "en"]]
    assert decoded == sorted({row["text"] for path in files for row in records(path)})


def test_sample_documents_are_disjoint(sample: DataSet) -> None:
    sample.check_disjoint()


def test_sample_users_speak_their_language_and_base_has_all(sample: DataSet) -> None:
    language_of = {
        row["text"]: language
        for language in [*LANGUAGES.values(), "en"]
        for row in records(SAMPLE / f"{language}.jsonl.xz")
    }
    seen = {owner: set() for owner in [*LANGUAGES, "base"]}
    for (owner, _), documents in sample.everything().items():
        seen[owner] |= {language_of[text] for text in documents}
    assert seen == {**{user: {code} for user, code in LANGUAGES.items()}, "base": {*LANGUAGES.values(), "en"}}


def test_translations_are_on_the_same_side(sample: DataSet) -> None:
    page_of = {
        user: {row["text"]: row["source"] for row in records(SAMPLE / f"{code}.jsonl.xz")}
        for user, code in LANGUAGES.items()
    }
    sides = side_of(sample, page_of)
    assert all(len(splits) == 1 for splits in sides.values())
    held = {
        page
        for (owner, _), documents in sample.everything().items()
        if owner == "base"
        for text in documents
        for user in LANGUAGES
        if (page := page_of[user].get(text))
    }
    assert held and not held & set(sides), "a page of the base is with a user in another language"


def test_sample_proportions(sample: DataSet) -> None:
    size = {key: sum(len(text.encode()) for text in texts) for key, texts in sample.everything().items()}
    for user, code in LANGUAGES.items():
        whole = sum(len(row["text"].encode()) for row in records(SAMPLE / f"{code}.jsonl.xz"))
        of_user = [size[user, split] for split in ("train", "validation", "test")]
        assert 1 - sum(of_user) / whole == pytest.approx(0.10, abs=0.02)
        assert [part / sum(of_user) for part in of_user] == pytest.approx([0.53, 0.245, 0.225], abs=0.03)
    base = size["base", "train"] + size["base", "validation"]
    assert size["base", "validation"] / base == pytest.approx(0.05, abs=0.015)


# Determinism ------------------------------------------------------------------------------------------------


def test_same_tokens_from_shuffled_files_and_one_thread(sample: DataSet, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for code in [*LANGUAGES.values(), "en"]:
        rows = records(SAMPLE / f"{code}.jsonl.xz")
        random.Random(code).shuffle(rows)
        write_jsonl(source / f"{code}.jsonl", rows)
    made("multilingual", "--source", source, "--output", tmp_path / "data", RAYON_NUM_THREADS="1")
    again = DataSet(tmp_path / "data")
    assert again.files == sample.files
    assert again.manifest["tokeniser"] == sample.manifest["tokeniser"]


def test_same_command_elsewhere_gives_the_same_manifest(sample: DataSet, tmp_path: Path) -> None:
    made("multilingual", "--output", tmp_path / "other/place")
    text = (tmp_path / "other/place/manifest.json").read_bytes()
    assert text == (sample.folder / "manifest.json").read_bytes()
    assert str(tmp_path).encode() not in text


def test_seed_and_users(sample: DataSet, tmp_path: Path) -> None:
    made("multilingual", "--seed", 1, "--output", tmp_path / "seed")
    assert DataSet(tmp_path / "seed").documents("Dutch", "test") != sample.documents("Dutch", "test")
    made("multilingual", "--users", "Italian,German", "--output", tmp_path / "two")
    two = DataSet(tmp_path / "two")
    assert two.users == ["Italian", "German"]
    for split in ("train", "validation", "test"):
        assert two.documents("German", split) == sample.documents("German", split)


# AG News ----------------------------------------------------------------------------------------------------


def check_ag_news(folder: Path, articles: list[tuple[str, str]]) -> DataSet:
    data = DataSet(folder)
    data.check_against_manifest()
    data.check_disjoint()
    category_of = {text: category for category, text in articles}
    for user in CATEGORIES:
        assert {category_of[text] for text in data.documents(user, "train")} == {user}
    sizes = set()
    for split in ("validation", "test"):
        for user in CATEGORIES:
            found = [category_of[text] for text in data.documents(user, split)]
            counts = [found.count(category) for category in CATEGORIES]
            assert min(counts) == max(counts) > 0, (user, split, counts)
            sizes.add((split, len(found)))
    assert len(sizes) == 2, "users differ in the size of a split"
    return data


def test_ag_news_small(tmp_path: Path) -> None:
    articles = ag_news_csv(tmp_path / "news.csv", 400)
    made("ag_news", "--source", tmp_path / "news.csv", "--vocabulary", 300, "--output", tmp_path / "data")
    data = check_ag_news(tmp_path / "data", articles)
    everything = sorted(text for documents in data.everything().values() for text in documents)
    assert everything == sorted(text for _, text in articles)
    assert data.files["World", "train"]["file"] == "world/train.bin"
    assert data.files["Sci/Tech", "train"]["file"] == "sci-tech/train.bin"


def test_ag_news_without_header_row_and_without_base(tmp_path: Path) -> None:
    articles = ag_news_csv(tmp_path / "a.csv", 400)
    _, _, body = (tmp_path / "a.csv").read_bytes().partition(b"\r\n")
    (tmp_path / "a.csv").write_bytes(body)
    made(
        "ag_news", "--source", tmp_path, "--base-share", 0, "--vocabulary", 300, "--output", tmp_path / "data"
    )
    assert check_ag_news(tmp_path / "data", articles).manifest["base"] is None


@needs_shared
def test_ag_news_with_all_articles(tmp_path: Path) -> None:
    articles, files = [], [SHARED / "ag_news" / name for name in ("test.csv", "train_11200.csv")]
    for file in files:
        with file.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                text = row["text"] if "text" in row else f"{row['title']} {row['description']}"
                articles.append((CATEGORIES[int(row["class"]) - 1], text.strip()))
    assert len(articles) == 18_800
    options = ["--tokeniser", "gpt2", "--gpt2-files", *GPT2]
    made("ag_news", "--source", *files, *options, "--output", tmp_path / "data")
    data = check_ag_news(tmp_path / "data", articles)
    assert data.manifest["tokeniser"]["vocabulary"] == 50_257 and data.end == 50_256
    dropped = data.manifest["splits"]["duplicates_dropped"]
    assert sum(entry["documents"] for entry in data.files.values()) + dropped == 18_800
    assert len({text for _, text in articles}) == 18_800 - dropped


@needs_shared
@pytest.mark.parametrize(("language", "tokens"), [("de", 950_932), ("nl", 887_016), ("en", 444_752)])
def test_gpt2_counts_as_in_the_list_of_data_sets(language: str, tokens: int, tmp_path: Path) -> None:
    """The list's counts come from another program; here each document has its end of text on top."""
    path = SHARED / "multilingual" / f"{language}.jsonl"
    options = ["--base-share", 0, "--tokeniser", "gpt2", "--gpt2-files", *GPT2]
    made("text", "--user", f"One={path}", *options, "--output", tmp_path / "data")
    entries = DataSet(tmp_path / "data").files.values()
    assert sum(entry["tokens"] - entry["documents"] for entry in entries) == tokens


# text: own files --------------------------------------------------------------------------------------------


def test_text_reads_all_kinds_of_files(tmp_path: Path) -> None:
    rows = toy_rows(90, 1)
    parts = [[row["text"] for row in rows[start : start + 30]] for start in (0, 30, 60)]
    (tmp_path / "a.txt").write_text("\n\n".join(parts[0]), encoding="utf-8")
    packed = "".join(json.dumps({"text": text}) + "\n" for text in parts[1]).encode()
    (tmp_path / "b.jsonl.xz").write_bytes(lzma.compress(packed))
    (tmp_path / "c.csv").write_text(
        "text,n\r\n" + "".join(f'"{text}",1\r\n' for text in parts[2]), newline=""
    )
    users = ["--user", f"A={tmp_path}/a.txt", "--user", f"B={tmp_path}/b.jsonl.xz,{tmp_path}/c.csv"]
    made("text", *users, "--base-text", "sample", "--vocabulary", 400, "--output", tmp_path / "data")
    data = DataSet(tmp_path / "data")
    data.check_against_manifest()
    data.check_disjoint()
    english = {row["text"] for row in records(SAMPLE / "en.jsonl.xz")}
    found = {owner: set() for owner in ("A", "B", "base")}
    for (owner, _), documents in data.everything().items():
        found[owner] |= set(documents)
    assert found["A"] <= set(parts[0]) and found["B"] <= set(parts[1] + parts[2])
    assert found["base"] >= english
    assert found["A"] | found["B"] | found["base"] == {*parts[0], *parts[1], *parts[2], *english}


def test_duplicates_are_one_document(tmp_path: Path) -> None:
    rows = toy_rows(60, 2)
    one = write_jsonl(tmp_path / "one.jsonl", rows[:40] + rows[:10])
    two = write_jsonl(tmp_path / "two.jsonl", rows[30:])
    base = write_jsonl(tmp_path / "base.jsonl", rows[50:] + toy_rows(20, 3))
    users = ["--user", f"One={one}", "--user", f"Two={two}", "--base-text", base]
    made("text", *users, "--vocabulary", 270, "--output", tmp_path / "data")
    data = DataSet(tmp_path / "data")
    data.check_disjoint()
    assert data.manifest["splits"]["duplicates_dropped"] == 10 + 10 + 10


def test_text_that_two_users_have_is_shared_out_evenly(tmp_path: Path) -> None:
    """Whoever comes first. And without --vocabulary there are as many tokens as so little text gives."""
    files = [write_jsonl(tmp_path / name, toy_rows(200, 5)) for name in ("one.jsonl", "two.jsonl")]
    made("text", "--user", f"One={files[0]}", "--user", f"Two={files[1]}", "--output", tmp_path / "data")
    data = DataSet(tmp_path / "data")
    data.check_disjoint()
    assert data.manifest["splits"]["duplicates_dropped"] == 200
    assert 258 <= data.manifest["tokeniser"]["vocabulary"] < 4096
    for user in ("One", "Two"):
        documents = sum(data.files[user, split]["documents"] for split in ("train", "validation", "test"))
        assert 60 <= documents  # of 100 less those of the base; a fair coin gives fewer in 1 of 10^4 tries


def test_token_budgets(tmp_path: Path) -> None:
    """Exact, or one less where a document ends just before: one token is no place for text and its end."""
    one = write_jsonl(tmp_path / "one.jsonl", toy_rows(300, 4))
    budgets = ["--train-tokens", "2,000", "--validation-tokens", 301, "--test-tokens", 300]
    made("text", "--user", f"One={one}", *budgets, "--vocabulary", 270, "--output", tmp_path / "data")
    data = DataSet(tmp_path / "data")
    data.check_against_manifest()
    for split, tokens in (("train", 2000), ("validation", 301), ("test", 300)):
        assert data.files["One", split]["tokens"] in (tokens, tokens - 1)
    texts = [row["text"] for row in toy_rows(300, 4)]
    *whole, last = data.documents("One", "train")
    assert set(whole) <= set(texts) and any(text.startswith(last) for text in texts)


def test_the_tokeniser_never_sees_validation_or_test_text(tmp_path: Path) -> None:
    """Other validation and test text of the same length: the same tokeniser. Other training text: another."""
    users = {"One": toy_rows(80, 6), "Two": toy_rows(80, 7)}

    def run(name: str) -> DataSet:
        files = [write_jsonl(tmp_path / f"{name}-{user}.jsonl", rows) for user, rows in users.items()]
        options = [value for user, path in zip(users, files) for value in ("--user", f"{user}={path}")]
        made("text", *options, "--group", "page", "--vocabulary", 290, "--output", tmp_path / name)
        return DataSet(tmp_path / name)

    def replace_text(of: tuple[str, ...]) -> None:
        for user, rows in users.items():
            chosen = {text for split in of for text in first.documents(user, split)}
            for number, row in enumerate(rows):
                if row["text"] in chosen:
                    row["text"] = f"{user}{number:03d}".ljust(len(row["text"]), "xyzw"[number % 4])

    first = run("first")
    assert all(
        len(sides) == 1
        for sides in side_of(
            first, {user: {row["text"]: row["page"] for row in rows} for user, rows in users.items()}
        ).values()
    )
    held = first.documents("base", "validation")
    replace_text(("validation", "test"))
    second = run("second")
    assert second.documents("One", "test") != first.documents("One", "test")
    assert second.documents("base", "validation") == held
    assert second.manifest["tokeniser"]["sha256"] == first.manifest["tokeniser"]["sha256"]
    assert second.files["One", "train"] == first.files["One", "train"]
    replace_text(("train",))
    assert run("third").manifest["tokeniser"]["sha256"] != first.manifest["tokeniser"]["sha256"]


def test_a_document_cannot_forge_the_end_of_text(tmp_path: Path) -> None:
    rows = [{"text": f"{row['text']} <|endoftext|> more"} for row in toy_rows(50, 8)]
    one = write_jsonl(tmp_path / "one.jsonl", rows)
    made("text", "--user", f"One={one}", "--vocabulary", 280, "--output", tmp_path / "data")
    data = DataSet(tmp_path / "data")
    assert sum(entry["documents"] for entry in data.files.values()) == 50
    decoded = {text for documents in data.everything().values() for text in documents}
    assert decoded == {row["text"] for row in rows}


def tokenizer_file(path: Path, vocabulary: int) -> Path:
    """A byte-level tokenizer.json padded with unused tokens; its last id ends a text."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    names += [f"unused{number}" for number in range(vocabulary - len(names) - 1)] + ["</s>"]
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize(
    ("vocabulary", "dtype"), [(65_535, "uint16"), (65_536, "uint32"), (70_000, "uint32")]
)
def test_dtype_follows_the_vocabulary(vocabulary: int, dtype: str, tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", toy_rows(30, 9))
    file = tokenizer_file(tmp_path / "t.json", vocabulary)
    options = ["--user", f"One={one}", "--tokeniser", file, "--output", tmp_path / "data"]
    made("text", *options)
    data = DataSet(tmp_path / "data")
    data.check_against_manifest()
    assert data.manifest["dtype"] == dtype and data.end == vocabulary - 1
    assert {*data.documents("One", "train")} <= {row["text"] for row in toy_rows(30, 9)}
    assert int(numpy.max(data.ids("One", "train"))) == vocabulary - 1
    if dtype == "uint32":
        message = refused("text", *options[:-1], tmp_path / "small", "--dtype", "uint16")
        assert f"{vocabulary:,} ids" in message and not (tmp_path / "small").exists()
