"""What a run needs, as `comigs plan` says, and how its users are put into components of a job."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from console import program
from console.mistakes import JobError

from .site import Site

_MEMORY_MARGIN, _TIME_MARGIN = 1.25, 1.5
_MEBIBYTES_STEP = 64
_UNLIKE = 1.5  # users whose memory or work differs by more than this factor are in different components


@dataclass(frozen=True)
class UserNeeds:
    """`memory_bytes`: of the host, also where a GPU computes. Slurm has no limit for the GPU's own."""

    memory_bytes: float
    flops_round: float


@dataclass(frozen=True)
class Needs:
    """Of one run. `users`: in the order of ranks. `seconds`: of the whole run; None where this machine cannot
    measure it."""

    users: tuple[UserNeeds, ...]
    seconds: float | None


@dataclass(frozen=True)
class Component:
    """Users next to each other, all with the same allocation. Memory is for one rank."""

    tasks: int
    cpus: int
    memory_mebibytes: int


def ask(
    comigs: str, arguments: Sequence[str], site: Site, settings: Mapping[str, str], must_fit: bool = True
) -> Needs:
    """`arguments`: of `comigs train`; `settings`: what their job file says. Where the site gives ranks GPUs, needs are
    those on GPUs, also if this machine has none. Raises JobError with what comigs says where the run is wrong, or
    `must_fit` and is too large for this machine."""
    chosen = settings.get("device", "auto") != "auto"
    chosen = chosen or any(word.partition("=")[0] == "--device" for word in arguments)
    device = ["--device", "cuda"] if site.gpus_per_task > 0 and not chosen else []
    plan = program.plan(comigs, [*arguments, *device])
    if must_fit and plan.get("problems"):
        raise JobError("comigs plan: " + "; ".join(map(str, plan["problems"])))
    return Needs(
        tuple(UserNeeds(user["host_memory_bytes"], user["flops_round"]) for user in plan["users"]),
        plan["seconds"]["total"],
    )


def together(needs: Iterable[Needs]) -> Needs:
    """What is enough for each of several runs with the same number of users."""
    needs = list(needs)
    users = zip(*(run.users for run in needs), strict=True)
    most = (
        UserNeeds(max(user.memory_bytes for user in same), max(user.flops_round for user in same))
        for same in users
    )
    times = [run.seconds for run in needs]
    return Needs(tuple(most), max((time for time in times if time is not None), default=None))


def minutes_of(needs: Needs, lead_seconds: int) -> int | None:
    """Time limit with a margin; Slurm may tell the ranks a minute before the lead that it ends."""
    if needs.seconds is None:
        return None
    return math.ceil((needs.seconds * _TIME_MARGIN + lead_seconds) / 60) + 1


def limit(needs: Needs, site: Site) -> int:
    """The time limit in minutes: as planned, and no longer than the site allows."""
    wanted = minutes_of(needs, site.lead_seconds)
    if wanted is None and site.longest_minutes is None:
        raise JobError(
            f"comigs plan measures no time here, and {site.file} sets no longest=: expected that, or the"
            " --time of slurm/submit"
        )
    if wanted is None or site.longest_minutes is None:
        return wanted or site.longest_minutes or 0
    if wanted > site.longest_minutes:
        print(
            f"note: planned are {wanted} minutes, and {site.file} allows {site.longest_minutes}:"
            " the job will be requeued until it is done",
            file=sys.stderr,
        )
    return min(wanted, site.longest_minutes)


def sizes_by_need(users: Sequence[UserNeeds]) -> list[int]:
    """How many users each component has: a new one begins where memory or work is unlike those before."""
    sizes: list[int] = []
    for number, user in enumerate(users):
        start = number - sizes[-1] if sizes else 0
        if sizes and _alike([*users[start:number], user]):
            sizes[-1] += 1
        else:
            sizes.append(1)
    return sizes


def components(users: Sequence[UserNeeds], sizes: Sequence[int], cpus: int) -> list[Component]:
    """`cpus`: cores of a rank with the most work. Others get as many as let them end a round no later."""
    most = max(user.flops_round for user in users)
    found, begin = [], 0
    for size in sizes:
        group = users[begin : begin + size]
        begin += size
        share = max(user.flops_round for user in group) / most if most > 0 else 1.0
        memory = max(user.memory_bytes for user in group) * _MEMORY_MARGIN / 2**20
        found.append(
            Component(
                tasks=size,
                cpus=max(1, math.ceil(cpus * share)),
                memory_mebibytes=math.ceil(memory / _MEBIBYTES_STEP) * _MEBIBYTES_STEP,
            )
        )
    return found


def _alike(users: Sequence[UserNeeds]) -> bool:
    return all(
        max(values) <= _UNLIKE * min(values)
        for values in ([user.memory_bytes for user in users], [user.flops_round for user in users])
    )
