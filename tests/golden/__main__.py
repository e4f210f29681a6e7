"""Compares the digests of all runs with those kept, or renews them.

python -m tests.golden [--renew] [--only NAME]      from the repository's root, after a build

They guard changes that are to leave every number as it is. What is right is for the tests against independent
references to say: renew them with a change that is meant to change numbers.
"""

from __future__ import annotations

import argparse
import sys

from . import golden, runs


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.golden",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--renew", action="store_true", help="keep what this program gives")
    parser.add_argument(
        "--only", action="append", choices=runs.RUNS, metavar="NAME", help="this run (repeatable)"
    )
    wanted = parser.parse_args()
    kept = golden.read()
    if kept is None and not wanted.renew:
        print(f"there are no digests of {golden.machine()}; --renew makes them", file=sys.stderr)
        return 2
    found = runs.made(wanted.only or tuple(runs.RUNS), tell=lambda name: print(name, flush=True))
    if wanted.renew:
        print(f"written: {golden.write((kept or {}) | found).name}")
        return 0
    unlike = golden.differences(kept or {}, found)
    print(
        "\n".join(unlike)
        if unlike
        else f"{sum(map(len, found.values()))} digests of {len(found)} runs: all equal"
    )
    return 1 if unlike else 0


if __name__ == "__main__":
    sys.exit(main())
