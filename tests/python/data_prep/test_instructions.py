"""`python -m data_prep instructions`: templates, borders, what is cut, splits; read back with numpy and tokenizers."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.helpers.data_set_reader import DataSet, made, refused, write_jsonl

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n' }}{% endfor %}\n{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}\n"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = "lamp river seven quick over stone paper cloud glass window engine garden".split()


def words(count: int, draw: int) -> str:
    return " ".join(random.Random(draw).choices(WORDS, k=count))


def dolly(category: str, number: int, context: str = "") -> dict[str, str]:
    return {
        "category": category,
        "instruction": f"What of {words(6, number)} {number}?",
        "context": context,
        "response": f"{words(3, number + 1000)} {number}",
    }


def superni(category: str, number: int) -> dict[str, str]:
    return {
        "category": category,
        "task": "task1",
        "definition": "Say whether the two are alike, a rather long definition that all examples of a task share.",
        "input": f"{words(8, number)} {number}",
        "output": f"{number} is alike",
    }


RECORDS = [dolly("open_qa", i) for i in range(60)]
RECORDS += [
    dolly("closed_qa", 100 + i, f"{words(12, i // 2)} passage {i // 2}.\nIt ends.") for i in range(60)
]
RECORDS += [superni("alike", i) for i in range(60)]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("source") / "records.jsonl", RECORDS)


@pytest.fixture(scope="module")
def tokeniser(tmp_path_factory) -> Path:
    """Bytes, a merge across the border of an instruction and its response, special tokens, a chat template."""
    folder = tmp_path_factory.mktemp("tokeniser")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": CHATML,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder / "tokenizer.json"


class Instructions(DataSet):
    """With the examples of users: (instruction ids, response ids, category)."""

    def examples(self, user: str, split: str) -> list[tuple[list[int], list[int], int]]:
        index = self.folder / self.files[user, split]["examples"]["file"]
        ids = self.ids(user, split).tolist()
        rows = np.fromfile(index, dtype="<i8").reshape(-1, 4).tolist()
        return [(ids[b : b + n], ids[b + n : b + n + r], c) for b, n, r, c in rows]

    def texts(self, user: str, split: str) -> list[tuple[str, str]]:
        """The end of text of a response is looked at elsewhere."""
        decode = self.tokenizer.decode
        return [
            (decode(n, skip_special_tokens=False), decode(r[:-1], skip_special_tokens=False))
            for n, r, _ in self.examples(user, split)
        ]


SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def plain(source, tmp_path_factory) -> tuple[Instructions, str]:
    folder = tmp_path_factory.mktemp("plain") / "data"
    told = made("instructions", "--source", source, "--vocabulary", 400, "--output", folder)
    return Instructions(folder), told


def expected_plain(record: dict[str, str]) -> tuple[str, str]:
    asked = record.get("instruction") or record["definition"]
    about = record.get("context") or record.get("input", "")
    return f"{asked}\n\n{about}\n" if about else f"{asked}\n", record.get("response") or record["output"]


def test_records_of_both_shapes_come_back_with_their_borders(plain):
    data, told = plain
    assert data.manifest["format_version"] == 2 and data.manifest["reading"] == "examples"
    assert data.users == data.manifest["categories"] == ["alike", "closed_qa", "open_qa"]
    expected = {pair: record["category"] for record in RECORDS for pair in [expected_plain(record)]}
    seen = 0
    for number, user in enumerate(data.users):
        for split in SPLITS:
            found = data.texts(user, split)
            assert all(expected[pair] == user for pair in found) and found
            for _, response, category in data.examples(user, split):
                assert response[-1] == data.end and data.end not in response[:-1] and category == number
            seen += len(found)
    held_back = sum(entry["documents"] for entry in data.manifest["base"]["splits"].values())
    assert seen + held_back == len(RECORDS)
    assert "\ntemplate: plain\n" in told
    assert "0 instructions lost" in told and "0 responses" in told and "0 duplicates" in told


def test_the_manifest_tells_of_every_file(plain):
    data, _ = plain
    for user in data.users:
        for split in SPLITS:
            entry, rows = data.files[user, split], data.examples(user, split)
            told = entry["examples"]
            assert told["count"] == entry["documents"] == len(rows)
            assert sum(told["by_category"]) == len(rows) and told["by_category"][rows[0][2]] == len(rows)
            assert told["longest"] == max(len(n) + len(r) for n, r, _ in rows)
            assert told["response_tokens"] == sum(len(r) for _, r, _ in rows)
            assert entry["tokens"] == sum(len(n) + len(r) for n, r, _ in rows) == len(data.ids(user, split))
            share = {"train": 0.64, "validation": 0.08, "test": 0.08}[split]
            assert abs(len(rows) - 60 * share) <= 2
    files = {path.relative_to(data.folder).as_posix() for path in data.folder.rglob("*") if path.is_file()}
    named = {entry["file"] for entry in data.files.values()}
    named |= {data.files[user, split]["examples"]["file"] for user in data.users for split in SPLITS}
    assert files == named | {"manifest.json", "tokenizer.json"}


def test_nothing_is_in_two_splits_nor_is_a_passage(plain):
    data, _ = plain
    whole = [pair for user in data.users for split in SPLITS for pair in data.texts(user, split)]
    assert len(whole) == len(set(whole))
    splits_of: dict[str, set[str]] = {}
    for split in SPLITS:
        for instruction, _ in data.texts("closed_qa", split):
            splits_of.setdefault(instruction.split("\n")[2], set()).add(split)
    assert len(splits_of) > 15 and all(len(splits) == 1 for splits in splits_of.values())
    base = " ".join(data.documents("base", "train") + data.documents("base", "validation"))
    assert not any(passage in base for passage in splits_of)


def test_a_passage_of_two_categories_is_in_one_split(tmp_path):
    records = [
        dolly(c, i, f"passage {i // 2} {words(9, i // 2)}") for i in range(80) for c in ("asked", "told")
    ]
    for number, record in enumerate(records):
        record["response"] += str(number)
    source = write_jsonl(tmp_path / "r.jsonl", records)
    made("instructions", "--source", source, "--vocabulary", 300, "--output", tmp_path / "data")
    data = Instructions(tmp_path / "data")
    splits_of: dict[str, set[str]] = {}
    for user in data.users:
        for split in SPLITS:
            for instruction, _ in data.texts(user, split):
                splits_of.setdefault(instruction.split("\n")[2], set()).add(split)
    assert all(len(splits) == 1 for splits in splits_of.values())


def test_the_same_call_gives_the_same_files_whatever_the_order_of_records(source, plain, tmp_path):
    data, _ = plain
    shuffled = RECORDS[:]
    random.Random(1).shuffle(shuffled)
    other = write_jsonl(tmp_path / "records.jsonl", shuffled)
    made("instructions", "--source", other, "--vocabulary", 400, "--output", tmp_path / "data")
    again = Instructions(tmp_path / "data")
    for key, entry in data.files.items():
        assert again.files[key]["sha256"] == entry["sha256"]
        if "examples" in entry:
            assert again.files[key]["examples"] == entry["examples"]
    told = made("instructions", "--source", source, "--vocabulary", 400, "--output", data.folder)
    assert "nothing to do" in told


def test_the_tokeniser_s_chat_template_is_rendered_as_transformers_does(source, tokeniser, tmp_path):
    arguments = ["instructions", "--source", source, "--tokeniser", tokeniser]
    told = made(*arguments, "--output", tmp_path / "data")
    assert (
        told.count("template: ") == 1 and f"template: {tokeniser.parent / 'tokenizer_config.json'}\n" in told
    )
    data = Instructions(tmp_path / "data")
    theirs = PreTrainedTokenizerFast.from_pretrained(tokeniser.parent)
    assert data.end == theirs.eos_token_id
    by_text = {}
    for record in RECORDS:
        content, response = expected_plain(record)
        messages = [{"role": "user", "content": content.removesuffix("\n")}]
        ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        by_text[tuple(ids), tuple(theirs(response, add_special_tokens=False).input_ids)] = record["category"]
    for user in data.users:
        for split in SPLITS:
            for instruction, response, _ in data.examples(user, split):
                assert by_text[tuple(instruction), tuple(response[:-1])] == user


def test_templates_plain_and_own(source, tokeniser, tmp_path):
    arguments = ["instructions", "--source", source, "--tokeniser", tokeniser, "--users", "open_qa"]
    made(*arguments, "--template", "plain", "--output", tmp_path / "plain")
    data = Instructions(tmp_path / "plain")
    assert data.users == ["open_qa"] and data.end == data.tokenizer.token_to_id("<|endoftext|>")
    expected = {expected_plain(record) for record in RECORDS}
    assert set(data.texts("open_qa", "train")) <= expected
    template = tmp_path / "own.jinja"
    template.write_text("{% if context %}{{ context }}\n{% endif %}\nQ: {{ instruction }}\nA: \n")
    made(*arguments, "--template", template, "--output", tmp_path / "own")
    found = {instruction for instruction, _ in Instructions(tmp_path / "own").texts("open_qa", "train")}
    assert found <= {f"Q: {record.get('instruction')}\nA: " for record in RECORDS} and found


def test_tokens_do_not_merge_across_the_border(tmp_path):
    """In one piece "riv" and "er" are a token, which would be of both."""
    records = [dolly("one", i) | {"response": f"er {words(2, i)}"} for i in range(40)]
    source = write_jsonl(tmp_path / "r.jsonl", records)
    template = tmp_path / "t.jinja"
    template.write_text("{{ instruction }} answer: riv")
    arguments = ["instructions", "--source", source, "--vocabulary", 310, "--template", template]
    made(*arguments, "--output", tmp_path / "data")
    data = Instructions(tmp_path / "data")
    in_one = [data.tokenizer.encode(n + r).ids for n, r in data.texts("one", "train")]
    apart = [n + r[:-1] for n, r, _ in data.examples("one", "train")]
    assert any(one != two for one, two in zip(in_one, apart))  # else the case says nothing
    assert all(n.endswith(" answer: riv") and r.startswith("er ") for n, r in data.texts("one", "train"))


@pytest.mark.parametrize("context", [16, 17, 40])
def test_what_is_too_long_is_cut_as_told(context, tokeniser, tmp_path):
    """Bytes as tokens: what is left can be told by hand."""
    records = [dolly("one", i) | {"response": words(i % 9 + 1, i)} for i in range(80)]
    source = write_jsonl(tmp_path / "r.jsonl", records)
    arguments = ["instructions", "--source", source, "--tokeniser", tokeniser, "--template", "plain"]
    told = made(*arguments, "--context", context, "--base-share", 0, "--output", tmp_path / "data")
    data, cut = Instructions(tmp_path / "data"), [0, 0]
    whole = {expected_plain(record) for record in records}
    found = [pair for split in SPLITS for pair in data.texts("one", split)]
    expected = set()
    for instruction, response in whole:
        room = max(context // 2, context - len(instruction)) - 1  # beside the end of text
        kept = response[:room]
        over = max(0, len(instruction) + len(kept) + 1 - context)
        cut = [cut[0] + (over > 0), cut[1] + (len(kept) < len(response))]
        expected.add((instruction[over:], kept))
    assert set(found) == expected and len(found) == 80
    assert f"{cut[0]} instructions lost" in told and f"{cut[1]} responses" in told and cut[0] > 0
    assert data.manifest["context"] == context
    for split in SPLITS:
        assert data.files["one", split]["examples"]["longest"] <= context
        for _, response, _ in data.examples("one", split):
            assert response[-1] == data.end


def test_what_is_left_out_is_counted(tokeniser, tmp_path):
    records = [dolly("one", i) for i in range(30)]
    records += [records[0], dolly("one", 50) | {"response": "  "}]
    records += [dolly("one", 51) | {"instruction": "forged <|im_end|> turn"}]
    source = write_jsonl(tmp_path / "r.jsonl", records)
    arguments = ["instructions", "--source", source, "--tokeniser", tokeniser]
    told = made(*arguments, "--output", tmp_path / "data")
    assert "1 duplicates, 1 without a response, 1 that spell special tokens" in told
    splits = json.loads((tmp_path / "data" / "manifest.json").read_text())["splits"]
    assert splits["dropped"] == {"without_response": 1, "special_tokens": 1}
    # Where no special token is meant, none can be forged: the words are text.
    told = made(*arguments, "--template", "plain", "--output", tmp_path / "plain")
    assert "0 that spell special tokens" in told
    data = Instructions(tmp_path / "plain")
    ends = {data.tokenizer.token_to_id(token) for token in SPECIAL}
    for split in SPLITS:
        assert not any(ends & set(n + r[:-1]) for n, r, _ in data.examples("one", split))


GOOD = dolly("one", 1)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"instruction": "Why?", "response": "So."}, "'category'"),
        (GOOD | {"category": "a" * 65}, "at most 64 bytes"),
        (GOOD | {"category": 3}, "'category'"),
        (GOOD | {"instruction": ""}, "an instruction is expected"),
        (GOOD | {"instruction": ["Why?"]}, "'instruction' is no text"),
        (GOOD | {"context": 7}, "'context' is no text"),
        (GOOD | {"response": None}, "a response is expected"),
        (GOOD | {"response": "\ud800"}, "lone surrogate"),
    ],
)
def test_records_that_are_none(record, expected, tmp_path):
    source = write_jsonl(tmp_path / "r.jsonl", [GOOD, record])
    message = refused("instructions", "--source", source, "--output", tmp_path / "data")
    assert f"{source}:2" in message and expected in message
    assert not (tmp_path / "data").exists()


def test_options_that_do_not_go(source, tokeniser, tmp_path):
    output = ["--output", tmp_path / "data"]
    given = ["instructions", "--source", source, *output]
    (tmp_path / "bad.jinja").write_text("{% if %}")
    (tmp_path / "angry.jinja").write_text("{{ raise_exception('no system') }}")
    (tmp_path / "void.jinja").write_text("{{ nothing }}")
    (tmp_path / "out.jinja").write_text("{{ instruction.__class__.__mro__ }}")
    (tmp_path / "text.txt").write_text("text")
    for arguments, expected in (
        ([*given, "--template", "chat"], "--template chat: no chat template"),
        ([*given, "--template", tmp_path / "none.jinja"], "No such file"),
        ([*given, "--template", tmp_path / "bad.jinja"], "bad.jinja: the template fails"),
        ([*given, "--template", tmp_path / "angry.jinja"], "no system"),
        ([*given, "--template", tmp_path / "void.jinja"], "gives no text"),
        ([*given, "--template", tmp_path / "out.jinja"], "unsafe"),
        ([*given, "--context", 1], "--context"),
        ([*given, "--users", "poetry"], "--users poetry: no such category; the source has alike, closed_qa"),
        ([*given, "--category", "task"], "'task'"),
        ([*given, "--tokeniser", tokeniser, "--end-of-text", "<none>"], "no <none> is in its vocabulary"),
        (["instructions", "--source", tmp_path / "text.txt", *output], "a .jsonl file"),
        (["instructions", "--source", tmp_path / "none.jsonl", *output], "no such file"),
        ([*given, "--train-tokens", 100], "--train-tokens"),
    ):
        message = refused(*arguments)
        assert expected in message, message
    few = write_jsonl(tmp_path / "few.jsonl", RECORDS[:3])
    assert "too little text for category open_qa" in refused("instructions", "--source", few, *output)
    assert not (tmp_path / "data").exists()
