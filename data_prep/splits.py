"""Who gets which documents: train, validation and test of every user, and of the base corpus.

Both rules cut the hash order of the documents into consecutive parts, so a split depends on the seed and on
the documents, never on the order of files, and no document can fall into two parts.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from .documents import Corpus, Document, in_order, rank
from .errors import DataError

SPLITS = ("train", "validation", "test")
# The order in which parts are cut off: the held-back base first, then the small splits, training text last.
_CUT_ORDER = ("base", "test", "validation", "train")


@dataclass(frozen=True)
class Plan:
    """Shares of text: `fractions` of what users hold, `base_share` of all, `base_validation` of the base."""

    fractions: dict[str, float]
    base_share: float
    base_validation: float
    seed: int

    def shares(self) -> list[float]:
        """Share of the whole for each part in cutting order."""
        total = sum(self.fractions.values())
        held = 1.0 - self.base_share
        return [self.base_share] + [held * self.fractions[split] / total for split in _CUT_ORDER[1:]]


@dataclass
class Assigned:
    """Documents by user and split, by split of the base (None: there is no base), and the rule in words. Where users
    are not categories themselves: the categories, and what is to be told of how they were dealt to clients."""

    users: dict[str, dict[str, list[Document]]]
    base: dict[str, list[Document]] | None
    rule: str
    categories: list[str] = field(default_factory=list)
    clients: dict[str, Any] | None = None


def cut(weights: list[int], shares: list[float], what: str) -> list[int]:
    """Ends of the parts of a row of items: part i holds about shares[i] of the weight and, unless its share
    is zero, at least one item."""
    wanted = [1 if share > 0 else 0 for share in shares]
    if len(weights) < sum(wanted):
        raise DataError(
            f"too little text for {what}: {len(weights)} documents, but {sum(wanted)} splits need one each"
        )
    middles = [end - weight / 2 for weight, end in zip(weights, accumulate(weights))]
    bounds = [share * sum(weights) for share in accumulate(shares)]
    ends = [bisect_right(middles, bound) for bound in bounds]
    ends[-1] = len(weights)
    before = 0
    for part, least in enumerate(wanted):
        after = sum(wanted[part + 1 :])
        ends[part] = max(before + least, min(ends[part], len(weights) - after))
        if not least:
            ends[part] = before
        before = ends[part]
    return ends


def parts_of_keys(
    pool: list[Document], shares: list[float], purpose: str, seed: int, what: str
) -> dict[str, int]:
    """The part of every key of a pool of documents, by share of their weight."""
    weights: dict[str, int] = {}
    for document in pool:
        weights[document.key] = weights.get(document.key, 0) + document.weight
    keys = sorted(weights, key=lambda key: rank(seed, purpose, key))
    ends = cut([weights[key] for key in keys], shares, what)
    return {key: bisect_right(ends, position) for position, key in enumerate(keys)}


def in_domain(corpus: Corpus, plan: Plan) -> Assigned:
    """Every split is cut from the user's own documents; with an aligned corpus all users are cut alike."""
    pools = [list(corpus.users)] if corpus.aligned else [[user] for user in corpus.users]
    users: dict[str, dict[str, list[Document]]] = {}
    held_back: list[Document] = []
    for pool in pools:
        what = f"user {pool[0]}" if len(pool) == 1 else "the users"
        everything = [document for user in pool for document in corpus.users[user]]
        part_of = parts_of_keys(everything, plan.shares(), "document", plan.seed, what)
        for user in pool:
            users[user], base = _dealt(corpus.users[user], part_of, f"user {user}")
            held_back += base
    rule = "by document, in domain: train, validation and test of a user are cut from its own documents"
    if corpus.aligned:
        rule += "; translations of a page fall into the same split for every user"
    return Assigned(users, base_of(corpus, held_back, plan), rule)


def _dealt(
    documents: list[Document], part_of: dict[str, int], what: str
) -> tuple[dict[str, list[Document]], list[Document]]:
    """Documents by split, none of them empty, and those of the base."""
    parts: dict[str, list[Document]] = {part: [] for part in _CUT_ORDER}
    for document in documents:
        parts[_CUT_ORDER[part_of[document.key]]].append(document)
    empty = [split for split in SPLITS if not parts[split]]
    if empty:
        raise DataError(f"too little text for {what}: no document is left for its {empty[0]} split")
    return {split: parts[split] for split in SPLITS}, parts["base"]


def by_category(corpus: Corpus, plan: Plan) -> Assigned:
    """As in_domain; users are categories, and what some of them share (a key: the passage that examples are
    about) is in one split alone, the one that it falls into in the first of them."""
    users: dict[str, dict[str, list[Document]]] = {}
    held_back: list[Document] = []
    part_of: dict[str, int] = {}
    for category, documents in corpus.users.items():
        what = f"category {category}"
        part_of = parts_of_keys(documents, plan.shares(), "document", plan.seed, what) | part_of
        users[category], base = _dealt(documents, part_of, what)
        held_back += [Document(document.text, document.key) for document in base]
    rule = (
        "by example: a user is a category; examples with the same longest line fall into the same split for"
        " every user"
    )
    return Assigned(users, base_of(corpus, held_back, plan), rule)


def mixture(corpus: Corpus, plan: Plan) -> Assigned:
    """Users train on their own documents; validation and test hold equally many of every user's kind.

    Counts are the same for all users and kinds, so that each mixture is exactly equal.
    """
    names = list(corpus.users)
    smallest = min(len(documents) for documents in corpus.users.values())
    base_share, test_share, validation_share, _ = plan.shares()
    base = int(base_share * smallest)
    share = {
        "test": int(test_share * smallest / len(names)),
        "validation": int(validation_share * smallest / len(names)),
    }
    short = [split for split, count in share.items() if count < 1]
    if short or base + len(names) * sum(share.values()) >= smallest:
        split = short[0] if short else "train"
        poorest = min(names, key=lambda name: len(corpus.users[name]))
        raise DataError(
            f"too little text: {poorest} has {smallest} documents; its {split} split would be empty (every"
            f" one of the {len(names)} users takes as many documents of each kind)"
        )
    users: dict[str, dict[str, list[Document]]] = {name: {split: [] for split in SPLITS} for name in names}
    held_back: list[Document] = []
    for owner, documents in corpus.users.items():
        row = in_order(documents, plan.seed)
        held_back += row[:base]
        start = base
        for split, count in share.items():
            for name in names:
                users[name][split] += row[start : start + count]
                start += count
        users[owner]["train"] = row[start:]
    for splits in users.values():
        for split in share:
            splits[split] = in_order(splits[split], plan.seed)
    rule = (
        "by document, out of domain: a user trains on its own kind of documents; validation and test hold"
        " equally many documents of every kind, disjoint between users"
    )
    return Assigned(users, base_of(corpus, held_back, plan), rule)


def base_of(corpus: Corpus, held_back: list[Document], plan: Plan) -> dict[str, list[Document]] | None:
    """The base corpus: its own text and the documents held back from all users, split by key like theirs."""
    documents = in_order(corpus.base + held_back, plan.seed)
    if not documents:
        return None
    shares = [plan.base_validation, 1.0 - plan.base_validation]
    part_of = parts_of_keys(documents, shares, "base", plan.seed, "the base")
    return {
        "train": [document for document in documents if part_of[document.key] == 1],
        "validation": [document for document in documents if part_of[document.key] == 0],
    }
