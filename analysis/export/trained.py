"""What a user of a finished run ended with: LoRA factors and routers, from results.h5."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import h5py
import numpy as np

from analysis.read.results import ResultsError, reading
from analysis.read.run import ExpertKind, Run
from console.mistakes import JobError, check_known


@dataclass(frozen=True)
class Lora:
    """What is added beside a frozen projection: gamma B A with A [r, in] and B [out, r], float32. `scale`: gamma =
    alpha / sqrt(R) with the rank R that the user began with."""

    A: np.ndarray
    B: np.ndarray
    scale: float

    @property
    def rank(self) -> int:
        return len(self.A)


# By what the projection is called in results.h5: "attn.c_attn", "self_attn.q_proj"; "gate", "up", "down".
Loras = dict[str, Lora]


@dataclass(frozen=True)
class TrainedUser:
    """`attention` by layer; `experts` by expert, then by layer; `routers` [E, C] by layer, none where the experts
    are weighted equally. Ranks that were pruned are left out."""

    name: str
    kinds: list[ExpertKind]
    top_k: int
    attention: list[Loras]
    experts: list[list[Loras]]
    routers: list[np.ndarray]

    @cached_property
    def gate(self) -> str:
        """How a token's experts are weighted: "top-k" (softmax over the k largest logits of the router; for k = 1
        the probability of that one among all) or "equal"."""
        return "top-k" if self.routers else "equal"


def trained_experts(run: Run, name: str) -> list[ExpertKind]:
    """The user's experts. Raises ResultsError where there is no such user, the run is not finished, or it trains
    nothing."""
    try:
        check_known("user", name, run.users)
    except JobError as error:
        raise ResultsError(f"--user: {error}") from None
    kinds = run.experts(name)
    if not kinds:
        raise ResultsError(f"{run.path}: method '{run.method}' trains nothing, so there is nothing to export")
    last = int(run.rounds.max())
    if run.is_unfinished:
        raise ResultsError(
            f"{run.path}: round {last} of {run.planned_rounds} is the last one there; models are stored when a "
            "run has finished"
        )
    return kinds


def stored_array(run: Run, file: h5py.File, place: str) -> np.ndarray:
    """Float32. Raises ResultsError where a number in it is not finite."""
    array = file[place][()].astype(np.float32)
    if not np.isfinite(array).all():
        raise ResultsError(f"{run.path}: '{place}' holds numbers that are not finite")
    return array


def read_user(run: Run, name: str) -> TrainedUser:
    """Of a run that trains LoRA. Raises ResultsError as `trained_experts`, and where something is missing."""
    kinds = trained_experts(run, name)
    with reading(run.path) as file:
        given = run["users"].sel(user=name)
        stored = _Stored(run, file, int(run.rounds.max()), run.users.index(name))
        return TrainedUser(
            name=name,
            kinds=kinds,
            top_k=int(given["top_k"]),
            attention=[stored.loras("attention", layer) for layer in stored.layers()],
            experts=[
                [stored.loras("expert", layer, f"/expert_{expert}") for layer in stored.layers()]
                for expert in range(len(kinds))
            ],
            routers=stored.routers(len(kinds)),
        )


def _setting(run: Run, user: int, name: str) -> str | None:
    """The configuration has it once where it is the same for all users."""
    return next(
        (run.settings[key] for key in (f"user.{user}.{name}", f"user.{name}") if key in run.settings), None
    )


def _alpha(run: Run, user: int) -> float:
    found = _setting(run, user, "lora_alpha")
    if found is None:
        raise ResultsError(f"{run.path}: its configuration lacks lora_alpha")
    return float(found)


def _ranks(run: Run, user: int) -> dict[str, tuple[int, int]]:
    """By role what a user began with and what is left in the last round; a user may prune itself, but not attention
    that has a rank of its own."""
    name = run.users[user]
    first = left = int(run["users"]["lora_rank"].sel(user=name))
    used = run.array("aggregation", "lora_rank")
    if used is not None:
        left = min(first, int(used.sel(user=name).values[-1]))
    own = int(_setting(run, user, "attention_rank") or 0)
    return {"expert": (first, left), "attention": (own, own) if own else (first, left)}


class _Stored:
    """The arrays of one user at one round, of each LoRA the ranks that are left."""

    def __init__(self, run: Run, file: h5py.File, round_: int, user: int) -> None:
        self._run, self._file = run, file
        self._place = f"weights/{round_}/user_{user}"
        if f"attention/{self._place}" not in file:
            raise ResultsError(
                f"{run.path}: 'attention/{self._place}' is missing, the user's trained numbers"
            )
        self._ranks, self._alpha = _ranks(run, user), _alpha(run, user)

    def layers(self) -> range:
        names = self._file[f"attention/{self._place}"]
        return range(sum(name.startswith("layer_") for name in names))

    def loras(self, role: str, layer: int, expert: str = "") -> Loras:
        place = f"{role}/{self._place}/layer_{layer}{expert}"
        names = [name.removesuffix("_A") for name in self._file[place] if name.endswith("_A")]
        return {name: self._lora(f"{place}/{name}", *self._ranks[role]) for name in names}

    def routers(self, experts: int) -> list[np.ndarray]:
        found = list(self._routers())
        if len(found) not in (0, len(self.layers())) or any(len(router) != experts for router in found):
            raise ResultsError(
                f"{self._run.path}: 'router/{self._place}' has {len(found)} routers (expected one a layer, of "
                f"{experts} experts, or none)"
            )
        return found

    def _routers(self) -> Iterator[np.ndarray]:
        for layer in self.layers():
            if (place := f"router/{self._place}/layer_{layer}/weight") in self._file:
                yield self._array(place)

    def _lora(self, place: str, first: int, left: int) -> Lora:
        A, B = (self._array(f"{place}_{factor}") for factor in "AB")
        if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1] or A.shape[0] < left:
            raise ResultsError(
                f"{self._run.path}: '{place}_A' and '_B' have the shapes {A.shape} and {B.shape} (expected "
                f"(rank, in) and (out, rank), the rank at least {left})"
            )
        scale = self._alpha / math.sqrt(first)
        return Lora(np.ascontiguousarray(A[:left]), np.ascontiguousarray(B[:, :left]), scale)

    def _array(self, place: str) -> np.ndarray:
        return stored_array(self._run, self._file, place)
