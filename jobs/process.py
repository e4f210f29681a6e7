"""Runs a command with its output in a log, and stops it in order when the sweep is stopped."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_SECONDS_TO_STOP = 120.0  # a long step, then a checkpoint
_RULE = re.compile(r"-{60,}")  # mpirun frames what it has to say with two of them


def run_logged(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    lock: int,
    stop: signal.Signals = signal.SIGTERM,
) -> int:
    """Appends to the log; returns the exit code. The command holds the lock too: what a killed sweep leaves
    keeps others away. `stop`: what asks the command to end in order."""
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
            _stop(process, stop)
            raise


def last_line(log: Path) -> str:
    """What a failed command said last: comigs' own message, else what does not come from mpirun."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    own = [number for number, line in enumerate(lines) if line.startswith("comigs: ")]
    if own:
        problems = itertools.takewhile(lambda line: line.startswith("  - "), lines[own[-1] + 1 :])
        return " ".join([lines[own[-1]], *map(str.strip, problems)])
    framed: list[str] = []
    others: list[str] = []
    inside = False
    for line in lines:
        if _RULE.fullmatch(line):
            inside = not inside
        else:
            (framed if inside else others).append(line)
    return (others or framed or ["no message"])[-1].strip()


def _stop(process: subprocess.Popen[bytes], request: signal.Signals) -> None:
    """What does not end, or a second Ctrl-C, kills it."""
    print("waiting until the command has ended; a second Ctrl-C kills it", file=sys.stderr, flush=True)
    process.send_signal(request)
    try:
        process.wait(_SECONDS_TO_STOP)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
