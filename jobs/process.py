"""Runs a command with its output in a log, and stops it in order when the sweep is stopped."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_SECONDS_TO_STOP = 20.0
_RULE = re.compile(r"-{60,}")  # mpirun frames what it has to say with two of them


def run_logged(command: Sequence[str], log: Path, environment: Mapping[str, str], lock: int) -> int:
    """Appends to the log; returns the exit code. The command holds the lock too: what a killed sweep leaves
    keeps others away."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C is for the sweep, which then stops the command in order
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            _stop(process)
            raise


def last_line(log: Path) -> str:
    """What a failed command said last: comigs' own message, else what does not come from mpirun."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    own = [number for number, line in enumerate(lines) if line.startswith("comigs: ")]
    if own:
        problems = itertools.takewhile(lambda line: line.startswith("  - "), lines[own[-1] + 1 :])
        return " ".join([lines[own[-1]], *map(str.strip, problems)])
    framed, others, inside = [], [], False
    for line in lines:
        if _RULE.fullmatch(line):
            inside = not inside
        else:
            (framed if inside else others).append(line)
    return (others or framed or ["no message"])[-1].strip()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """mpirun hands SIGUSR1 to its ranks, which write a checkpoint and leave; on SIGTERM it would kill them a
    second later. What does not end, or a second Ctrl-C, is killed."""
    for request in (signal.SIGUSR1, signal.SIGTERM):
        process.send_signal(request)
        try:
            process.wait(_SECONDS_TO_STOP)
            return
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            break
    process.kill()
    process.wait()
