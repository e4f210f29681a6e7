"""Entry of `python -m analysis`."""

from __future__ import annotations

import logging
import os

from console import terminal


def main(arguments: list[str]) -> int:
    """matplotlib is imported as it comes: figures go to files, which no back end, cache or setting of a person's
    own concerns."""
    os.environ.pop("MPLBACKEND", None)
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)
    from analysis.cli import main as run

    return run(arguments)


if __name__ == "__main__":
    terminal.run(main)
