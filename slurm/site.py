"""The site file: what a cluster calls its partitions, accounts, devices. In shell, as jobs source it too."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from jobs.ini import JobError

HERE = Path(__file__).resolve().parent
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")
_PRINT = """\
. "$1" || exit
printf '%s\\0' "$partition" "$account" "$qos" "$gpus_per_task" "$cpus_per_task" "$longest" "$lead" \\
    "$launcher" "${options[@]}"
"""


@dataclass(frozen=True)
class Site:
    """`longest_minutes`: None where a job may run without limit. `options`: further ones for sbatch."""

    file: Path
    partition: str
    account: str
    qos: str
    gpus_per_task: int
    cpus_per_task: int
    longest_minutes: int | None
    lead_seconds: int
    launcher: str
    options: tuple[str, ...]


def read_site(file: Path | None = None) -> Site:
    """`file`: None for the one that COMIGS_SITE names, else slurm/site.sh."""
    file = (file or Path(os.environ.get("COMIGS_SITE") or HERE / "site.sh")).absolute()
    if not file.is_file():
        raise JobError(f"{file}: no such file, expected a site file as {HERE / 'site.sh'}")
    done = subprocess.run(
        ["bash", "-uc", _PRINT, "bash", str(file)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise JobError(f"{file}: {reason}; expected what {HERE / 'site.sh'} sets")
    partition, account, qos, gpus, cpus, longest, lead, launcher, *options = done.stdout.split("\0")[:-1]
    return Site(
        file=file,
        partition=partition,
        account=account,
        qos=qos,
        gpus_per_task=_number(file, "gpus_per_task", gpus, 0),
        cpus_per_task=_number(file, "cpus_per_task", cpus, 1),
        longest_minutes=minutes(f"{file}: longest={longest}", longest) if longest else None,
        lead_seconds=_number(file, "lead", lead, 1),
        launcher=launcher,
        options=tuple(options),
    )


def minutes(place: str, text: str) -> int:
    """A time limit as Slurm writes it, in whole minutes: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise JobError(f"{place}: expected a time limit such as 90, 12:00:00 or 2-00:00:00")
    parts = [int(part) for part in match["parts"].split(":")]
    if match["days"] is not None:
        hours, mins, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, mins, seconds = parts
    else:
        hours, mins, seconds = 0, *[*parts, 0][:2]
    total = (int(match["days"] or 0) * 24 + hours) * 60 + mins + (seconds + 59) // 60
    if total < 1:
        raise JobError(f"{place}: expected at least a minute")
    return total


def _number(file: Path, name: str, text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise JobError(f"{file}: {name}={text}, expected a whole number of at least {least}")
    return int(text)
