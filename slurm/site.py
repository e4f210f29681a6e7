"""The site file: what a cluster calls its partitions, accounts, devices. In shell, as jobs source it too."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from console.mistakes import JobError

HERE = Path(__file__).resolve().parent
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")
_VALUES = ("partition", "account", "qos", "gpus_per_task", "cpus_per_task", "longest", "lead", "launcher")
# The values go to a file, last of all: what a site file prints is no value, nor is anything where it leaves early.
_READ = f"""\
readonly COMIGS_VALUES=$2
. "$1"
code=$?; [ "$code" -eq 0 ] || exit "$code" # an '||' behind it would undo its 'set -e'
declare -F enter >/dev/null || {{ echo 'no function enter' >&2; exit 2; }}
case $(declare -p options 2>/dev/null) in
    'declare -a'*) ;;
    *) echo 'options is no array, expected options=(...)' >&2; exit 2 ;;
esac
printf '%s\\0' {" ".join(f'"${name}"' for name in _VALUES)} "${{options[@]}}" >"$COMIGS_VALUES"
"""
_SECONDS_TO_READ = 60.0


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
    words = _words(file)
    named, options = dict(zip(_VALUES, words, strict=False)), words[len(_VALUES) :]
    for value in options:
        check_plain(f"{file}: options", value)
    for name, value in named.items():
        check_plain(f"{file}: {name}", value)
        if " " in value:
            raise JobError(f"{file}: {name}={value}, expected one word")
    longest = named["longest"]
    return Site(
        file=file,
        partition=named["partition"],
        account=named["account"],
        qos=named["qos"],
        gpus_per_task=_number(file, "gpus_per_task", named["gpus_per_task"], 0),
        cpus_per_task=_number(file, "cpus_per_task", named["cpus_per_task"], 1),
        longest_minutes=minutes(f"{file}: longest={longest}", longest) if longest else None,
        lead_seconds=_number(file, "lead", named["lead"], 1),
        launcher=named["launcher"],
        options=tuple(options),
    )


def check_plain(place: str, text: str) -> None:
    """Raises JobError for what a line of a script cannot hold."""
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise JobError(f"{place}: found a line end or control character in {text!r}, expected one plain line")


def _words(file: Path) -> list[str]:
    """The values, then the options. Runs the site file with neither input nor a pipe that what it starts could
    hold, and ends it where it does not end."""
    with tempfile.NamedTemporaryFile() as values, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            ["bash", "-uc", _READ, "bash", str(file), values.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = process.wait(_SECONDS_TO_READ)
        except subprocess.TimeoutExpired:
            raise JobError(
                f"{file}: has not ended after {_SECONDS_TO_READ:g} s, expected settings only"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
        words = [word.decode("utf-8", "surrogateescape") for word in values.read().split(b"\0")[:-1]]
    if code != 0:
        reason = said[-1] if said else f"exit code {code}"
        raise JobError(f"{file}: {reason}; expected what {HERE / 'site.sh'} sets")
    if len(words) < len(_VALUES):
        raise JobError(f"{file}: calls exit; expected what {HERE / 'site.sh'} sets")
    return words


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
