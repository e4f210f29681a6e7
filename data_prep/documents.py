"""What every source gives and every split keeps whole: documents, and the corpus they make up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Document:
    """A text and its key: documents with the same key (translations of one page) always stay together."""

    text: str
    key: str


@dataclass(frozen=True)
class Source:
    """Where text came from; goes into the manifest."""

    name: str
    origin: str
    licence: str
    documents: int
    sha256: str


@dataclass
class Corpus:
    """All documents before splitting. `aligned`: users share keys, so that they are split together."""

    users: dict[str, list[Document]]
    base: list[Document] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    aligned: bool = False


def rank(seed: int, purpose: str, key: str) -> str:
    """Where a key comes in the order of (seed, purpose): a hash, so the order of files does not matter."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()


def in_order(documents: list[Document], seed: int) -> list[Document]:
    """The documents in their hash order (ties, that is translations or parts of a page, by their text)."""
    return sorted(documents, key=lambda document: (rank(seed, "document", document.key), document.text))


def without_duplicates(corpus: Corpus, seed: int) -> tuple[Corpus, int]:
    """Each text once in the whole corpus: the first user keeps it, a user before the base.

    Gives how many documents went, empty ones among them. What is left is in hash order.
    """
    seen: set[bytes] = set()
    dropped = 0

    def kept(documents: list[Document]) -> list[Document]:
        nonlocal dropped
        result = []
        for document in in_order(documents, seed):
            digest = hashlib.sha256(document.text.encode()).digest()
            if digest in seen or not document.text.strip():
                dropped += 1
            else:
                seen.add(digest)
                result.append(document)
        return result

    users = {user: kept(documents) for user, documents in corpus.users.items()}
    return Corpus(users, kept(corpus.base), corpus.sources, corpus.aligned), dropped
