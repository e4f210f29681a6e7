"""Writes results files with chosen numbers, laid out as comigs writes them, and sweeps of them.

Defaults are simple enough to check by hand; with USERS = ("German", "Dutch") and rounds 0..3:
    perplexity/test[round, user]       = level / (round + 1) + user
    perplexity/validation[round, user] = test + 1
    perplexity/train[round, user]      = test - 1
    routing/score[round, user, layer, expert]: expert 0 falls from 0.6 by 0.1 a round, others share the rest
    time: experts 4 s, routers 2 s, aggregation 1 s, evaluation 2 s, round 10 s; user u takes u + 1 times that
    communication/bytes = 1 MiB a round and user; memory/peak = (user + 1) GiB
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

USERS = ("German", "Dutch")
PHASES = {"experts": 4.0, "routers": 2.0, "aggregation": 1.0, "evaluation": 2.0, "round": 10.0}
CONFIGURATION = """[run]
seed = {seed}
rounds = {rounds}
output = runs/{method}-{seed}

[data]
folder = {data}

[model]
folder = {model}

[method]
name = {method}
experts = {experts}
"""


def write_results(
    folder: Path,
    *,
    method: str = "comigs-1g1s",
    seed: int = 0,
    users: Sequence[str] = USERS,
    rounds: int = 4,
    planned: int | None = None,
    folders: tuple[str, str] = ("runs/data", "runs/base"),
    experts: Sequence[int] | None = None,
    generalists: Sequence[int] | None = None,
    generalist: Sequence[Sequence[int]] | None = None,
    layers: int = 3,
    level: float = 100.0,
    perplexity: Mapping[str, np.ndarray] | None = None,
    score: np.ndarray | None = None,
    router: bool = True,
    before: Mapping[str, Sequence[float]] | None = None,
    attributes: Mapping[str, object] | None = None,
    users_extra: Mapping[str, Sequence[int]] | None = None,
    categories: Sequence[str] = (),
    arrays: Mapping[str, tuple[str, np.ndarray]] | None = None,
    omit: Sequence[str] = (),
) -> Path:
    """Writes folder/results.h5 with `rounds` rows (round 0 first) and returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.h5"
    experts = list(experts or [2] * len(users))
    generalists = list(generalists if generalists is not None else [1] * len(users))
    with h5py.File(path, "w") as file:
        for name, value in (
            _attributes(method, seed, users, rounds, planned, experts, folders) | dict(attributes or {})
        ).items():
            if name not in omit:
                file.attrs[name] = value
        _coordinates(file, users, rounds, layers, max(experts), categories)
        _users(file, experts, generalists, users_extra or {})
        if generalist is not None:
            _array(file, "users/generalist", np.array(generalist), "user expert", np.int64)
        _perplexities(file, perplexity or default_perplexity(len(users), rounds, level))
        _array(
            file,
            "routing/score",
            _scores(score, rounds, experts, layers, router),
            "round user layer expert",
            np.float32,
        )
        _costs(file, len(users), rounds)
        for name, (dimensions, values) in (arrays or {}).items():
            _array(file, name, values, dimensions, np.float32)
        for split, values in (before or {}).items():
            _array(file, f"before_aggregation/perplexity/{split}", np.asarray(values), "user", np.float64)
        for name in omit:
            if name in file:
                del file[name]
    return path


def default_perplexity(users: int, rounds: int, level: float = 100.0) -> dict[str, np.ndarray]:
    """The perplexities of the module's comment, by split, over (round, user)."""
    test = level / (np.arange(rounds)[:, None] + 1.0) + np.arange(users)[None, :]
    return {"test": test, "validation": test + 1, "train": test - 1}


def _attributes(
    method: str,
    seed: int,
    users: Sequence[str],
    rounds: int,
    planned: int | None,
    experts: Sequence[int],
    folders: tuple[str, str],
) -> dict[str, object]:
    counts, (data, model) = ",".join(map(str, experts)), folders
    planned = rounds - 1 if planned is None else planned
    return {
        "title": f"{method}, seed {seed}",
        "schema_version": "1",
        "program_version": "0.1.0",
        "git_commit": "0123abcd",
        "created": "2030-01-02T03:04:05Z",
        "configuration": CONFIGURATION.format(
            method=method, seed=seed, rounds=planned, experts=counts, data=data, model=model
        ),
        "method": method,
        "data_set": "multilingual",
        "data_digest": "da7a" * 16,
        "base_model": "small-base",
        "base_digest": "f00d" * 16,
        "seed": seed,
        "N": len(users),
        "hosts": "node-a\nnode-b",
        "devices": np.array(["cpu"] * len(users), dtype=h5py.string_dtype()),
        "library_versions": "HDF5 1.10.8\nOpen MPI 4.1.4",
    }


def _coordinates(
    file: h5py.File, users: Sequence[str], rounds: int, layers: int, experts: int, categories: Sequence[str]
) -> None:
    labels = {
        "round": np.arange(rounds, dtype=np.int64),
        "user": np.array(list(users), dtype=h5py.string_dtype()),
        "layer": np.arange(layers, dtype=np.int64),
        # Root has a group named expert, so these labels live with the first array that has them.
        "routing/expert": np.arange(experts, dtype=np.int64),
    }
    if categories:  # a group is named category, too
        labels["category/category"] = np.array(list(categories), dtype=h5py.string_dtype())
    for name, values in labels.items():
        limit = (None,) if name == "round" else None
        scale = file.create_dataset(name, data=values, maxshape=limit, chunks=True if limit else None)
        scale.make_scale(name.rpartition("/")[2])


def _array(file: h5py.File, name: str, values: np.ndarray, dimensions: str, kind: type) -> None:
    """An array with its scales; the group gets a link to each, for readers that look into one group only."""
    names = dimensions.split()
    limit = tuple(None if label == "round" else size for label, size in zip(names, values.shape))
    dataset = file.create_dataset(name, data=values.astype(kind), maxshape=limit, chunks=True)
    dataset.attrs["long_name"] = name
    for axis, label in enumerate(names):
        scale = file[{"expert": "routing/expert", "category": "category/category"}.get(label, label)]
        dataset.dims[axis].attach_scale(scale)
        if label not in dataset.parent and dataset.parent.name != "/time":
            dataset.parent[label] = scale


def _users(
    file: h5py.File, experts: Sequence[int], generalists: Sequence[int], extra: Mapping[str, Sequence[int]]
) -> None:
    count = len(experts)
    entries = {"experts": experts, "generalists": generalists, "lora_rank": [8] * count}
    entries |= {
        "train_tokens": [10000] * count,
        "validation_tokens": [2000] * count,
        "test_tokens": [3000] * count,
        "top_k": [2] * count,
    }
    entries |= extra
    for name, values in entries.items():
        _array(file, f"users/{name}", np.array(values), "user", np.int64)


def _perplexities(file: h5py.File, splits: Mapping[str, np.ndarray]) -> None:
    for split, values in splits.items():
        _array(file, f"perplexity/{split}", np.asarray(values, dtype=float), "round user", np.float64)
        with np.errstate(invalid="ignore"):
            _array(file, f"loss/{split}", np.log(np.asarray(values, dtype=float)), "round user", np.float64)


def _scores(
    given: np.ndarray | None, rounds: int, experts: Sequence[int], layers: int, router: bool
) -> np.ndarray:
    if given is not None:
        return given
    scores = np.full((rounds, len(experts), layers, max(experts)), np.nan)
    for user, count in enumerate(experts):
        if router and count > 1:
            first = np.clip(0.6 - 0.1 * np.arange(rounds), 0.0, 1.0)[:, None]
            scores[:, user, :, 0] = first
            scores[:, user, :, 1:count] = (1 - first[..., None]) / (count - 1)
    return scores


def _costs(file: h5py.File, users: int, rounds: int) -> None:
    for phase, seconds in PHASES.items():
        values = np.tile(seconds * (np.arange(users) + 1), (rounds, 1))
        values[:1] = 2.0 if phase in ("evaluation", "round") else 0.0
        _array(file, f"time/{phase}", values, "round user", np.float64)
    sent = np.full((rounds, users), 2**20)
    sent[:1] = 0
    _array(file, "communication/bytes", sent, "round user", np.int64)
    _array(file, "memory/peak", np.tile(2**30 * (np.arange(users) + 1), (rounds, 1)), "round user", np.int64)


class Sweep:
    """Collects runs into folder/index.json; `add` writes the results file of a run that is done."""

    def __init__(self, folder: Path, scale: str = "small") -> None:
        self.folder, self.scale = folder, scale
        self.runs: list[dict] = []

    def add(
        self,
        dataset: str,
        method: str,
        seed: int,
        places: Sequence[tuple],
        *,
        status: str = "done",
        options: Mapping[str, str] | None = None,
        **results,
    ) -> Path:
        """`places`: (item, row) or (item, row, section, alternative)."""
        options = {"method": method, **(options or {})}
        name = f"{dataset}/{'-'.join(options.values()).replace(' ', '')}-seed{seed}"
        items = [
            dict(zip(("item", "row", "section", "alternative"), (*place, "", {})[:4])) for place in places
        ]
        self.runs.append(
            {
                "folder": name,
                "dataset": dataset,
                "seed": seed,
                "options": options,
                "status": status,
                "seconds": 1.0 if status == "done" else None,
                "items": items,
            }
        )
        if status == "done":
            attributes = {"data_set": dataset}
            write_results(
                self.folder / name,
                method=method,
                seed=seed,
                attributes=attributes,
                **{"layers": 3, **results},
            )
        self.write()
        return self.folder / name

    def write(self) -> Path:
        """Writes the index and returns its path."""
        content = {
            "format": "comigs-sweep-index",
            "format_version": 1,
            "scale": self.scale,
            "runs": self.runs,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "index.json").write_text(json.dumps(content), encoding="utf-8")
        return self.folder / "index.json"


def final_test(test: float, *, validation: float | None = None, users: int = 2) -> dict[str, np.ndarray]:
    """Perplexities of two rounds: 100 for all, then `test` as the mean over users, who lie 1 apart."""
    spread = np.arange(users) - (users - 1) / 2
    rows = np.stack([np.full(users, 100.0), test + spread])
    other = np.stack([np.full(users, 100.0), (test if validation is None else validation) + spread])
    return {"test": rows, "validation": other, "train": other - 1}


def write_probe(
    run: Path, name: str, texts: Sequence[str], score: np.ndarray, *, owner: str = "", ids: Sequence[int] = ()
) -> None:
    """Adds tokens/<name> to run/results.h5; score is over (user, token, layer, expert)."""
    with h5py.File(run / "results.h5", "a") as file:
        group = file.create_group(f"tokens/{name}")
        if "tokens/user" not in file:
            file["tokens/user"] = np.arange(score.shape[0])
        group.attrs["owner"] = owner
        group["ids"] = np.asarray(ids or range(len(texts)), dtype=np.int64)
        group.create_dataset("text", data=list(texts), dtype=h5py.string_dtype())
        group["score"] = score.astype(np.float32)


def write_factors(
    run: Path,
    number: int,
    user: int,
    layer: int,
    expert: int,
    down: np.ndarray,
    up: np.ndarray,
    projections: Sequence[str] = ("up", "down"),
) -> None:
    """Adds the same factors A (rank, in) and B (out, rank) for these projections of an expert."""
    home = f"expert/weights/{number}/user_{user}"
    place = f"{home}/layer_{layer}/expert_{expert}"
    with h5py.File(run / "results.h5", "a") as file:
        if f"{home}/lora_rank" not in file:
            file[f"{home}/lora_rank"] = np.arange(len(down))
        for projection in projections:
            file[f"{place}/{projection}_A"] = down.astype(np.float32)
            file[f"{place}/{projection}_B"] = up.astype(np.float32)


def two_experts(users: int, tokens: int, layers: int, generalist: float) -> np.ndarray:
    """Scores of one generalist and one specialist, the same for every token."""
    score = np.empty((users, tokens, layers, 2))
    score[..., 0], score[..., 1] = generalist, 1 - generalist
    return score
