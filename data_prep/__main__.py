"""Entry of `python -m data_prep`."""

from __future__ import annotations

import signal
import sys

from console.terminal import run

from .cli import main


def _stop(number: int, _: object) -> None:
    """Unwinds, so that the temporary folder is removed."""
    sys.exit(128 + number)


signal.signal(signal.SIGTERM, _stop)
run(main)
