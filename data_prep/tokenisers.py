"""Tokenisers by the `tokenizers` library: trained here, GPT-2's own, or a tokenizer.json."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console.small_files import LARGEST_JSON, Unreadable, json_of, text_of

from .errors import DataError
from .readers import refuse_pointer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.decoders import Decoder
    from tokenizers.pre_tokenizers import PreTokenizer

END_OF_TEXT = "<|endoftext|>"
USUAL_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>")
GPT2_VOCABULARY = 50257
BYTES = 256
DEFAULT_VOCABULARY = 4096


def _library() -> None:
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        raise DataError(
            "the Python package 'tokenizers' is missing (pip install tokenizers, or run setup.sh)"
        ) from None


@dataclass
class Tokeniser:
    """A tokenizer, its kind for the manifest, how many ids there are and the id that ends a document."""

    kind: str
    tokenizer: Tokenizer
    vocabulary: int
    end_of_text: int

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, followed by end_of_text; the library spreads a batch over the cores."""
        return [ids + [self.end_of_text] for ids in self.encode_parts(texts, False)]

    def encode_parts(self, texts: list[str], with_special: bool) -> list[list[int]]:
        """The ids of each text alone; what spells a special token is that token only `with_special`."""
        self.tokenizer.encode_special_tokens = not with_special
        encoded = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        self.tokenizer.encode_special_tokens = True
        return [item.ids for item in encoded]


def _for_documents(tokenizer: Tokenizer) -> Tokenizer:
    """A document cannot forge the end of text: special tokens inside it are encoded as ordinary text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def vocabulary_of(tokenizer: Tokenizer) -> int:
    """One more than the largest id."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def _finished(kind: str, tokenizer: Tokenizer, end: str) -> Tokeniser:
    ids = tokenizer.get_vocab(with_added_tokens=True)
    return Tokeniser(kind, _for_documents(tokenizer), vocabulary_of(tokenizer), ids[end])


def _byte_level() -> tuple[PreTokenizer, Decoder]:
    from tokenizers import decoders, pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True), decoders.ByteLevel()


def trained(texts: Iterable[str], vocabulary: int | None) -> Tokeniser:
    """A byte-level BPE of exactly `vocabulary` ids, or, where nobody asked, of 4,096 if the text gives so many.

    Id 0 is the end of text, ids 1 to 256 are the bytes.
    """
    _library()
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if vocabulary is not None and vocabulary < BYTES + 2:
        raise DataError(
            f"--vocabulary {vocabulary}: at least {BYTES + 2} expected (the bytes, end of text and a merge)"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = _byte_level()
    trainer = trainers.BpeTrainer(
        vocab_size=DEFAULT_VOCABULARY if vocabulary is None else vocabulary,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    result = _finished("byte-level-bpe", tokenizer, END_OF_TEXT)
    if vocabulary is not None and result.vocabulary < vocabulary:
        raise DataError(
            f"too little text for --vocabulary {vocabulary}: training text gives only {result.vocabulary}"
            f" tokens; pass --vocabulary {result.vocabulary} or less, or more text"
        )
    return result


def gpt2(encoder: Path, merges: Path) -> Tokeniser:
    """GPT-2's own vocabulary from encoder.json and vocab.bpe as OpenAI published them."""
    _library()
    from tokenizers import AddedToken, Tokenizer, models

    try:
        for file in (encoder, merges):
            refuse_pointer(file)
        file = encoder
        ids = json_of(encoder)
        file = merges
        lines = text_of(merges, LARGEST_JSON).split("\n")
    except (OSError, Unreadable) as error:
        raise DataError(f"--gpt2-files: {file}: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(ids, dict) or len(ids) != GPT2_VOCABULARY or END_OF_TEXT not in ids:
        raise DataError(f"{encoder}: expected a JSON object of {GPT2_VOCABULARY} tokens with {END_OF_TEXT}")
    lines = [line for line in lines if line.strip() and not line.startswith("#version")]
    pairs: list[Any] = [tuple(line.split(" ")) for line in lines]
    if len(pairs) != GPT2_VOCABULARY - BYTES - 1 or any(len(pair) != 2 for pair in pairs):
        raise DataError(
            f"{merges}: expected {GPT2_VOCABULARY - BYTES - 1} merges of two tokens, found {len(pairs)}"
        )
    try:
        tokenizer = Tokenizer(models.BPE(vocab=ids, merges=pairs))
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{merges}: does not fit {encoder}: {error}") from None
    tokenizer.pre_tokenizer, tokenizer.decoder = _byte_level()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return _finished("gpt2", tokenizer, END_OF_TEXT)


def given(name: str, gpt2_files: list[str] | None, end: str | None) -> Tokeniser:
    """One that is there: "gpt2", of these two files, or a tokenizer.json, whose end of text is `end`."""
    return gpt2(*map(Path, gpt2_files or ())) if name == "gpt2" else from_file(Path(name), end)


def opened(path: Path) -> Tokenizer:
    """Any tokenizer.json."""
    _library()
    from tokenizers import Tokenizer

    if not path.is_file():
        raise DataError(f"--tokeniser {path}: no such file ('train', 'gpt2' or a tokenizer.json is expected)")
    try:
        refuse_pointer(path)
        return _for_documents(Tokenizer.from_buffer(path.read_bytes()))
    except DataError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"--tokeniser {path}: is not a tokenizer.json: {error}") from None


def special_tokens(path: Path) -> tuple[str, ...]:
    """Of any tokenizer.json: what is no text but a sign, such as the end of text."""
    added = opened(path).get_added_tokens_decoder().values()
    return tuple(token.content for token in added if token.special)


def from_file(path: Path, end: str | None) -> Tokeniser:
    """Any tokenizer.json; `end` is its end-of-text token, found by its usual names when None."""
    tokenizer = opened(path)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    found = [name for name in ((end,) if end is not None else USUAL_ENDS) if name in ids]
    if not found:
        wanted = f"no {end}" if end is not None else "none of " + ", ".join(USUAL_ENDS)
        raise DataError(
            f"--tokeniser {path}: end-of-text token: {wanted} is in its vocabulary; see --end-of-text"
        )
    return _finished("file", tokenizer, found[0])
