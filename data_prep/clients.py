"""Clients that hold every category, each category heavily by one of them: a skewed federation of instruction data.

Base, test and perhaps validation are cut by passage from every category; of what is left samples are drawn, and each
category's are dealt in partitions, one to a client, all of one size but the heavy one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .documents import Corpus, Document, in_order, rank
from .errors import DataError
from .splits import SPLITS, Assigned, Plan, base_of, cut, parts_of_keys


@dataclass(frozen=True)
class Deal:
    """`samples` at most are dealt to `clients`; a heavy partition is `heavy` times any other one, and more by what a
    division leaves. `validation`: "own", of each client's own part, or "common", of every category beforehand."""

    clients: int
    samples: int
    heavy: int
    validation: str

    @property
    def names(self) -> list[str]:
        return [f"client_{number}" for number in range(self.clients)]


# Documents by category.
Pool = dict[str, list[Document]]


def dealt(corpus: Corpus, plan: Plan, deal: Deal) -> Assigned:
    """The corpus, whose users are categories, dealt to clients."""
    pools = _pools(corpus, plan, deal.validation == "common")
    drawn = _drawn(pools["train"], deal.samples, plan.seed)
    _check_count(drawn, deal)
    parts = {client: dict[str, list[Document]]() for client in deal.names}
    for category, documents in drawn.items():
        partitions = _partitions(documents, deal)
        for place, client in enumerate(_permuted(deal.names, category, plan.seed)):
            parts[client][category] = partitions[place]
    splits = _trained(parts, plan) if deal.validation == "own" else _all_trained(parts, pools["validation"])
    test = _together(pools["test"])
    users = {
        client: {split: in_order({**splits[client], "test": test}[split], plan.seed) for split in SPLITS}
        for client in deal.names
    }
    _check_splits(users)
    held_back = [Document(document.text, document.key) for document in _together(pools["base"])]
    found = Assigned(users, base_of(corpus, held_back, plan), _rule(deal))
    return replace(found, categories=list(corpus.users), clients=_told(deal, drawn))


def _pools(corpus: Corpus, plan: Plan, validation: bool) -> dict[str, Pool]:
    """Base, test, validation and what can be dealt, by category. A passage falls into one of them, that of the first
    category that has it."""
    base, test, common, train = plan.shares()
    shares = [base, test, common, train] if validation else [base, test, 0.0, common + train]
    names = ("base", "test", "validation", "train")
    pools = {name: {category: list[Document]() for category in corpus.users} for name in names}
    part_of: dict[str, int] = {}
    for category, documents in corpus.users.items():
        what = f"category {category}"
        part_of = parts_of_keys(documents, shares, "document", plan.seed, what) | part_of
        for document in documents:
            pools[names[part_of[document.key]]][category].append(document)
        if not pools["train"][category] or not pools["test"][category]:
            raise DataError(f"too little text for {what}: no example is left to deal, or for the test split")
    return pools


def _drawn(pool: Pool, samples: int, seed: int) -> Pool:
    """So many of all examples, each as likely as any other: of a category in proportion to its size."""
    everything = [(rank(seed, "sample", one.text), category) for category in pool for one in pool[category]]
    last = sorted(everything)[:samples][-1]
    return {
        category: in_order(
            [one for one in documents if (rank(seed, "sample", one.text), category) <= last], seed
        )
        for category, documents in pool.items()
    }


def _check_count(drawn: Pool, deal: Deal) -> None:
    """Every partition needs an example."""
    smallest = min(drawn, key=lambda category: len(drawn[category]))
    most = len(drawn[smallest]) - deal.heavy + 1
    if deal.clients > most:
        works = f"at most {most} clients" if most >= 2 else "a lower --heavy, or more --samples,"
        raise DataError(
            f"--clients {deal.clients}: category {smallest} has {len(drawn[smallest])} samples, too few for that many"
            f" partitions and one {deal.heavy} times as large; {works} can be served"
        )


def _partitions(documents: list[Document], deal: Deal) -> list[list[Document]]:
    """All of one size but the last, which is the heavy one."""
    size = len(documents) // (deal.heavy + deal.clients - 1)
    ends = [size * place for place in range(deal.clients)] + [len(documents)]
    return [documents[begin:end] for begin, end in zip(ends, ends[1:])]


def _permuted(clients: list[str], category: str, seed: int) -> list[str]:
    """Another order for every category."""
    return sorted(clients, key=lambda client: rank(seed, "client", f"{category}\0{client}"))


def _together(pool: Pool) -> list[Document]:
    return [document for documents in pool.values() for document in documents]


def _all_trained(parts: dict[str, Pool], validation: Pool) -> dict[str, dict[str, list[Document]]]:
    common = _together(validation)
    return {client: {"train": _together(part), "validation": common} for client, part in parts.items()}


def _trained(parts: dict[str, Pool], plan: Plan) -> dict[str, dict[str, list[Document]]]:
    """Each part is cut into training and validation by passage. One that several parts share is trained on by all who
    hold it: else one client would be validated on what another has trained on."""
    holders: dict[str, int] = {}
    for part in parts.values():
        for documents in part.values():
            for key in {document.key for document in documents}:
                holders[key] = holders.get(key, 0) + 1
    shared = {key for key, count in holders.items() if count > 1}
    share = plan.fractions["validation"] / sum(plan.fractions.values())
    result = {}
    for client, part in parts.items():
        splits: dict[str, list[Document]] = {"train": [], "validation": []}
        for documents in part.values():
            held_out = _held_out(documents, shared, share)
            for document in documents:
                splits["validation" if document.key in held_out else "train"].append(document)
        result[client] = splits
    return result


def _held_out(documents: list[Document], shared: set[str], share: float) -> set[str]:
    """The passages of a part that validate: about `share` of its examples, at least one where it has two passages."""
    weights: dict[str, int] = {}
    for document in documents:
        weights[document.key] = weights.get(document.key, 0) + 1
    if len(weights) < 2:
        return set()
    keys = sorted(weights, key=lambda key: key in shared)  # keeps the hash order within each half
    end = cut([weights[key] for key in keys], [share, 1.0 - share], "a client's part")[0]
    return set(keys[:end]) - shared


def _check_splits(users: dict[str, dict[str, list[Document]]]) -> None:
    for client, splits in users.items():
        for split in SPLITS:
            if not splits[split]:
                raise DataError(
                    f"too little text for {client}: no example is left for its {split} split; fewer --clients, or"
                    " --validation common"
                )


def _rule(deal: Deal) -> str:
    validation = (
        "validation is cut from each client's own part of every category"
        if deal.validation == "own"
        else "validation is common to all clients"
    )
    return (
        "by example: test is common to all clients and holds every category; each category's samples are dealt in"
        f" partitions, one of them heavy, one to a client in an order of the category's own; {validation}; examples"
        " with the same longest line are in one split"
    )


def _told(deal: Deal, drawn: Pool) -> dict[str, Any]:
    """What the manifest says of the deal: `ratio` is how many times the others' a heavy partition is."""
    sizes = {}
    for category, documents in drawn.items():
        partitions = [len(part) for part in _partitions(documents, deal)]
        ratio = round(partitions[-1] / partitions[0], 3)
        sizes[category] = {
            "samples": len(documents),
            "partition": partitions[0],
            "heavy": partitions[-1],
            "ratio": ratio,
        }
    return {
        "count": deal.clients,
        "samples_asked": deal.samples,
        "samples": sum(len(documents) for documents in drawn.values()),
        "heavy": deal.heavy,
        "validation": deal.validation,
        "categories": sizes,
    }
