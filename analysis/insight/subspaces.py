"""How alike two experts' updates B A are: principal angles, from thin factorisations that never form B A."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np

from analysis.draw import style
from analysis.read.results import ResultsError, reading
from analysis.read.run import ExpertKind, Run

NEEDED, GATE = ("up", "down"), "gate"  # projections; the third where activations are gated
PAIRS = (
    "specialist and generalist",
    "specialists of two users",
    "specialists of one user",
    "two generalists",
)
# Directions below this share of the largest singular value are rounding, not learning.
SMALLEST = 1e-6


@dataclass(frozen=True)
class Directions:
    """Orthonormal bases of what an update writes (its columns) and of what it reads (its rows)."""

    output: np.ndarray
    input: np.ndarray


def directions(down: np.ndarray, up: np.ndarray) -> Directions:
    """The singular directions of the product up @ down, with down (rank, in) and up (out, rank)."""
    left, left_core = np.linalg.qr(up.astype(np.float64))
    right, right_core = np.linalg.qr(down.astype(np.float64).T)
    inner_left, strength, inner_right = np.linalg.svd(left_core @ right_core.T)
    kept = strength > SMALLEST * max(strength[0], np.finfo(np.float64).tiny)
    return Directions(left @ inner_left[:, kept], right @ inner_right.T[:, kept])


def principal_angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The angles between two subspaces with orthonormal bases, ascending, in radians."""
    if first.shape[1] == 0 or second.shape[1] == 0:
        return np.array([])
    return np.arccos(np.clip(np.linalg.svd(first.T @ second, compute_uv=False), 0.0, 1.0))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """The mean squared cosine of the principal angles: 1 same directions, 0 orthogonal; NaN without any."""
    angles = principal_angles(first, second)
    return float(np.mean(np.cos(angles) ** 2)) if angles.size else float("nan")


@dataclass(frozen=True)
class Expert:
    """An expert that differs from all others; `user`, the first who holds it, has it as expert `number`."""

    name: str
    role: str
    user: int
    number: int
    holders: tuple[str, ...]


@dataclass
class Similarities:
    """Overlaps by side ("output", "input") over (round, layer, expert, expert), mean over projections."""

    experts: list[Expert]
    rounds: list[int]
    layers: list[int]
    overlap: dict[str, np.ndarray]
    chance: dict[str, float]

    def between(self) -> dict[str, dict[str, np.ndarray]]:
        """By kind of pair and side: mean overlap of two different experts, by (round, layer)."""
        pairs: dict[str, list[tuple[int, int]]] = {kind: [] for kind in PAIRS}
        for j, other in enumerate(self.experts):
            for i, one in enumerate(self.experts[:j]):
                pairs[_kind(one, other)].append((i, j))
        return {
            kind: {
                side: np.mean([table[:, :, i, j] for i, j in found], axis=0)
                for side, table in self.overlap.items()
            }
            for kind, found in pairs.items()
            if found
        }


def _kind(one: Expert, other: Expert) -> str:
    """Which of PAIRS two experts are."""
    if one.role != other.role:
        return "specialist and generalist"
    if one.role == "generalist":
        return "two generalists"
    return "specialists of one user" if one.user == other.user else "specialists of two users"


def distinct_experts(run: Run, weights: h5py.Group) -> list[Expert]:
    """Every generalist once (once a version where its holders' differ), then every user's specialists."""
    # Each version of a generalist: the users who hold it, and which of their experts it is.
    versions: dict[ExpertKind, list[list[tuple[int, int]]]] = {}
    specialists = []
    for user, name in enumerate(run.users):
        own = run.experts(name)
        for number, (kind, words) in enumerate(zip(own, style.expert_names(own))):
            if kind.role == "specialist":
                own_name = name + words.removeprefix("specialist")
                specialists.append(Expert(own_name, kind.role, user, number, (name,)))
                continue
            known = versions.setdefault(kind, [])
            same = (holders for holders in known if _are_equal(run, weights, holders[0], (user, number)))
            holders = next(same, None)
            if holders is None:
                known.append(holders := [])
            holders.append((user, number))
    kinds = sorted(versions)
    generalists = []
    for kind, words in zip(kinds, style.expert_names(kinds)):
        for holders in versions[kind]:
            names = tuple(run.users[user] for user, _ in holders)
            name = words if len(versions[kind]) == 1 else f"g{kind.number} {names[0]}"
            generalists.append(Expert(name, kind.role, *holders[0], names))
    return [*generalists, *specialists]


def _are_equal(run: Run, weights: h5py.Group, one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two users' experts, each as (user, expert), have the same factors in all that is recorded."""
    rounds, layers = _recorded(weights)
    # The last round first: there, versions differ most.
    return all(
        np.array_equal(first, second)
        for number in reversed(rounds)
        for layer in layers
        for ours, theirs in zip(*(_factors(run, weights, number, layer, *held) for held in (one, other)))
        for first, second in zip(ours, theirs)
    )


def _recorded(weights: h5py.Group) -> tuple[list[int], list[int]]:
    """The rounds and the layers whose weights the file holds."""
    rounds = sorted(int(name) for name in weights if name.isdigit())
    # Beside the layers lie their arrays' dimension scales.
    names = [name for name in weights[f"{rounds[0]}/user_0"] if name.startswith("layer_")]
    return rounds, sorted(int(name.removeprefix("layer_")) for name in names)


def similarities(run: Run) -> Similarities | None:
    """All overlaps at the rounds whose weights the file holds; None where there is nothing to compare."""
    with reading(run.path) as file:
        weights = file["expert/weights"] if "expert/weights" in file else {}
        if len(weights) == 0:
            return None
        experts = distinct_experts(run, weights)
        if len(experts) < 2:
            return None
        rounds, layers = _recorded(weights)
        shape = (len(rounds), len(layers), len(experts), len(experts))
        found = {side: np.full(shape, np.nan) for side in ("output", "input")}
        chance: dict[str, float] = {}
        for i, number in enumerate(rounds):
            for j, layer in enumerate(layers):
                factors = [_factors(run, weights, number, layer, one.user, one.number) for one in experts]
                read = [[directions(down, up) for down, up in own] for own in factors]
                for side in found:
                    found[side][i, j] = _table(read, side)
                    chance[side] = _chance(read, side)
    return Similarities(experts, rounds, layers, found, chance)


def _factors(
    run: Run, weights: h5py.Group, number: int, layer: int, user: int, expert: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A and B of each projection of a user's expert."""
    place = f"{number}/user_{user}/layer_{layer}/expert_{expert}"
    if f"{place}/prompt" in weights:
        raise ResultsError(
            f"{run.path}: method '{run.method}' trains soft prompts, which have no subspaces of LoRA"
        )
    gated = any(f"{place}/{GATE}_{factor}" in weights for factor in "AB")
    for projection in (*NEEDED, GATE) if gated else NEEDED:
        try:
            down, up = (weights[f"{place}/{projection}_{factor}"][()] for factor in "AB")
        except KeyError as error:
            raise ResultsError(f"{run.path}: 'expert/weights/{place}' lacks {projection}_A or _B") from error
        yield down, up


def _table(read: list[list[Directions]], side: str) -> np.ndarray:
    count = len(read)
    table = np.full((count, count), np.nan)
    for i in range(count):
        for j in range(i, count):
            both = zip(read[i], read[j])
            table[i, j] = table[j, i] = np.mean(
                [overlap(getattr(a, side), getattr(b, side)) for a, b in both]
            )
    return table


def _chance(read: list[list[Directions]], side: str) -> float:
    """The overlap to expect of random subspaces of these sizes: the larger rank over the dimension."""
    shapes = [getattr(one, side).shape for own in read for one in own]
    return float(np.mean([rank / size for size, rank in shapes]))
