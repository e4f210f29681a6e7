"""Which tokens go to the generalist: by how frequent they are in training, and by class of word."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.read.probes import MOST_TOKENS_OF_A_VOCABULARY, Probe
from analysis.read.run import Run

# The rank of a token among its user's training tokens, 1 the most frequent; the last class has no end.
LAST_RANKS = (10, 30, 100, 300, 1000)
WORD_CLASSES = ("function word", "content word", "other")
_TOKEN_TYPES = {"uint16": "<u2", "uint32": "<u4"}
# Small lists of articles, pronouns, prepositions, conjunctions, auxiliaries. Users named like a
# language have its list.
_FUNCTION_WORDS = {
    "english": "a about after all also an and any are as at be because been before but by can could did "
    "do does for from had has have he her his how i if in into is it its may me more most my "
    "no nor not of on one only or other our out over she should so some such than that the "
    "their them then there these they this those to up was we were what when where which "
    "while who will with would you your",
    "german": "aber als also am an auch auf aus bei bis da damit dann das dass dem den der des die "
    "diese dieser dieses doch du durch ein eine einem einen einer eines er es für gegen haben "
    "hat ich ihr ihre im in ist ja kann kein mit nach nicht noch nur ob oder ohne sein seine "
    "sich sie sind so über um und uns unter vom von vor war was wenn wer werden wie wir wird "
    "zu zum zur zwischen",
    "dutch": "aan al als bij daar dan dat de deze die dit door een en er geen had heb hebben heeft het "
    "hier hij hun ik in is ja je kan maar me meer met mijn na naar niet nog nu of om omdat "
    "onder ook op over te tegen tot uit van veel voor was wat we werd wij worden wordt zal ze "
    "zich zij zijn zo zou",
    "french": "à au aux avec ce ces cet cette comme d dans de des donc du elle en est et été être il "
    "ils je l la le les leur leurs lui mais me même n ne nous on ont ou où par pas plus pour "
    "qu que qui s sa sans se ses si son sont sous sur tout très tu un une vous y",
    "italian": "a ad al alla alle anche che chi ci come con cui da dal dalla dei del della delle di e ed "
    "era è fra gli ha hanno i il in io l la le lo loro ma mi nei nel nella nelle noi non o "
    "per più quale quando questa questo se si sia sono sua sul sulla suo tra un una uno",
}  # fmt: skip
FUNCTION_WORDS = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}


def frequency_names() -> list[str]:
    """The classes in words: `1\N{EN DASH}10`, ..., `over 1,000`."""
    firsts = [1, *[last + 1 for last in LAST_RANKS[:-1]]]
    names = [f"{first:,}\N{EN DASH}{last:,}" for first, last in zip(firsts, LAST_RANKS)]
    return [*names, f"over {LAST_RANKS[-1]:,}"]


def training_counts(run: Run) -> list[np.ndarray] | None:
    """How often each token stands in what each user trained on; None where that data is not there."""
    folder = Path(run.settings.get("data.folder") or "-")
    try:
        text = (folder / "manifest.json").read_bytes()
        if hashlib.sha256(text).hexdigest() != run.attribute("data_digest"):
            return None
        manifest = json.loads(text)
        files = {user["name"]: user["splits"]["train"]["file"] for user in manifest["users"]}
        # A user trains on the leading tokens of its file.
        tokens = run.array("users", "train_tokens")
        used = [None] * len(run.users) if tokens is None else tokens.values.tolist()
        shards = [
            np.fromfile(_inside(folder, files[name]), dtype=_TOKEN_TYPES[manifest["dtype"]])[:count]
            for name, count in zip(run.users, used)
        ]
        if max(shard.max() for shard in shards) >= MOST_TOKENS_OF_A_VOCABULARY:
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return [np.bincount(shard) for shard in shards]


def _inside(folder: Path, name: str) -> Path:
    """The file; ValueError where it does not lie in the folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name} is not in {folder}")
    return path


def probe_counts(probes: Sequence[Probe]) -> np.ndarray:
    """How often each token stands in the probes themselves."""
    return np.bincount(np.concatenate([probe.ids for probe in probes]).astype(np.int64))


def frequency_classes(ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Each token's class by its rank; a token that was never counted is in the last class."""
    ordered = np.sort(counts)[::-1]
    known = np.where(ids < len(counts), counts[np.minimum(ids, len(counts) - 1)], 0)
    ranks = 1 + np.searchsorted(-ordered, -known, side="left")
    return np.where(known > 0, np.searchsorted(LAST_RANKS, ranks, side="left"), len(LAST_RANKS))


def word_classes(texts: Sequence[str], language: str) -> np.ndarray:
    """Each token's class (an index of WORD_CLASSES) from the word that it is a piece of."""
    known = FUNCTION_WORDS.get(language.lower(), FUNCTION_WORDS["english"])
    classes = np.full(len(texts), WORD_CLASSES.index("other"))
    word: list[int] = []

    def finish() -> None:
        written = "".join(texts[token] for token in word).strip().lower()
        if word:
            classes[word] = WORD_CLASSES.index("function word" if written in known else "content word")
        word.clear()

    for token, text in enumerate(texts):
        if not text[:1].isalpha():
            finish()
        if text.strip().isalpha():
            word.append(token)
        else:
            finish()
    finish()
    return classes


def generalist_share(probe: Probe, user: int, roles: Sequence[str]) -> np.ndarray:
    """The gate weight of all generalists together, by (token, layer)."""
    generalists = [index for index, role in enumerate(roles) if role == "generalist"]
    return probe.score[user][:, :, generalists].sum(axis=2)


def mean_by_class(values: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Means of values over (token, layer), by (class, layer); NaN where a class has no token."""
    means = np.full((count, values.shape[1]), np.nan)
    for one in np.unique(classes):
        means[one] = values[classes == one].mean(axis=0)
    return means
