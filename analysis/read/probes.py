"""Token-level routing: the texts that `comigs route` ran through users' models, and what gates said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from analysis.read.results import ResultsError, as_text, reading
from analysis.read.run import Run

# More than any tokeniser has; counts of tokens are kept by number.
MOST_TOKENS_OF_A_VOCABULARY = 2**24


@dataclass(frozen=True)
class Probe:
    """One text as tokens; `score` is over (user, token, layer, expert), NaN where a user lacks the expert."""

    name: str
    owner: str  # the user whose text it is, empty for a free text
    ids: np.ndarray
    texts: list[str]
    score: np.ndarray

    def top(self, user: int, layer: int) -> np.ndarray:
        """Each token's expert with the largest gate weight; -1 where the user's model has no scores."""
        score = self.score[user, :, layer]
        known = ~np.isnan(score).all(axis=1)
        return np.where(known, np.where(np.isnan(score), -np.inf, score).argmax(axis=1), -1)


def read_probes(run: Run) -> list[Probe]:
    """The run's probes: the users' own texts in the users' order, then free texts. Raises ResultsError."""
    with reading(run.path) as file:
        tokens = file["tokens"] if "tokens" in file else {}
        # Beside the probes may lie their arrays' dimension scales.
        groups = {name: tokens[name] for name in tokens if isinstance(tokens[name], h5py.Group)}
        found = [_probe(run, name, group) for name, group in groups.items()]
    owners = [*run.users, ""]
    return sorted(found, key=lambda probe: (_place(owners, probe.owner), probe.name))


def _place(owners: Sequence[str], owner: str) -> int:
    return owners.index(owner) if owner in owners else len(owners)


def _probe(run: Run, name: str, group: h5py.Group) -> Probe:
    ids, score = group["ids"][()], group["score"][()]
    texts = [as_text(text) for text in group["text"][()]]
    if score.ndim != 4 or score.shape[:2] != (len(run.users), len(ids)) or len(texts) != len(ids):
        raise ResultsError(
            f"{run.path}: 'tokens/{name}' has {len(ids)} ids, {len(texts)} texts and scores of shape "
            f"{score.shape} (expected user, token, layer, expert for {len(run.users)} users)"
        )
    if (
        ids.dtype.kind not in "iu"
        or ids.ndim != 1
        or (ids < 0).any()
        or (ids >= MOST_TOKENS_OF_A_VOCABULARY).any()
    ):
        raise ResultsError(f"{run.path}: 'tokens/{name}/ids' are no numbers of tokens")
    return Probe(name, as_text(group.attrs.get("owner", "")), ids, texts, score)


def middle_layer(layers: int) -> int:
    """Layer 5 of 12, as in the paper's Figures 14 and 17."""
    return (layers - 1) // 2
