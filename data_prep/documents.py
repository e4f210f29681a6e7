"""What every source gives and every split keeps whole: documents, and the corpus they make up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Document:
    """A text and its key: documents with the same key (translations of one page) always stay together."""

    text: str
    key: str

    @property
    def weight(self) -> int:
        """How much of a corpus it is, of which splits are shares: its bytes in UTF-8."""
        return len(self.text.encode())


@dataclass(frozen=True)
class Example(Document):
    """An instruction as a model reads it and the response that is expected; `text` is both."""

    category: str
    instruction: str
    response: str

    @property
    def weight(self) -> int:
        """Each counts alike."""
        return 1


@dataclass(frozen=True)
class Source:
    """Where text came from; goes into the manifest."""

    name: str
    origin: str
    licence: str
    documents: int | None  # None: not known
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
    """Each text once in the whole corpus: of the users who have it one keeps it, each as likely as the others,
    and a user before the base.

    Gives how many documents went, empty ones among them. What is left is in hash order.
    """
    holders: dict[bytes, list[str]] = {}
    for user, documents in corpus.users.items():
        for digest in {_digest(document) for document in documents}:
            holders.setdefault(digest, []).append(user)
    seen: set[bytes] = set()
    dropped = 0

    def keeps(user: str | None, digest: bytes) -> bool:
        all_who_have = holders.get(digest, [None])
        return user == all_who_have[int(rank(seed, "holder", digest.hex()), 16) % len(all_who_have)]

    def kept(user: str | None, documents: list[Document]) -> list[Document]:
        nonlocal dropped
        result = []
        for document in in_order(documents, seed):
            digest = _digest(document)
            if digest in seen or not document.text.strip() or not keeps(user, digest):
                dropped += 1
            else:
                seen.add(digest)
                result.append(document)
        return result

    users = {user: kept(user, documents) for user, documents in corpus.users.items()}
    return Corpus(users, kept(None, corpus.base), corpus.sources, corpus.aligned), dropped


def _digest(document: Document) -> bytes:
    return hashlib.sha256(document.text.encode()).digest()
