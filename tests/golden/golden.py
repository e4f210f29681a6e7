"""Digests as they are kept: a file for each kind of processor and version of LibTorch, since both decide last bits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch

Digests = dict[str, dict[str, str]]
FOLDER = Path(__file__).parent


def machine() -> str:
    """What decides the last bits: maker, family and model of the processor, and LibTorch's version."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")

    def entry(name: str) -> str:
        found = re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
        return found[1] if found else "unknown"

    processor = "-".join(entry(name) for name in ("vendor_id", "cpu family", "model"))
    return f"{processor}-torch-{torch.__version__.partition('+')[0]}"


def file_of(machine_name: str) -> Path:
    return FOLDER / f"{machine_name}.json"


def read() -> Digests | None:
    """Those of this kind of machine; None: nobody has made them yet."""
    file = file_of(machine())
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def write(digests: Digests) -> Path:
    file = file_of(machine())
    file.write_text(json.dumps(digests, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    return file


def differences(golden: Mapping[str, Mapping[str, str]], found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each run that is not as it was, with the first of what differs in it."""
    lines = []
    for name in sorted(found):
        then, now = golden.get(name), found[name]
        if then is None:
            lines.append(f"{name}: there are no digests of it")
            continue
        unlike = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
        if unlike:
            more = f" and {len(unlike) - 3} more" if len(unlike) > 3 else ""
            lines.append(f"{name}: {', '.join(unlike[:3])}{more} of {len(then)}")
    return lines
