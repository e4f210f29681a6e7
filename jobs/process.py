"""Runs a command with its output in a log, and stops it in order when the sweep is stopped."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_SECONDS_TO_STOP = 20.0


def run_logged(command: Sequence[str], log: Path, environment: Mapping[str, str], lock: int) -> int:
    """Returns the exit code. The command holds the lock too: what a killed sweep leaves keeps others away."""
    with log.open("wb") as output:
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
    """What a failed command said last."""
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    return (text.splitlines() or ["no message"])[-1]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """mpirun ends its ranks when it is asked to; one that does not end, or a second Ctrl-C, kills it."""
    process.terminate()
    try:
        process.wait(_SECONDS_TO_STOP)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
