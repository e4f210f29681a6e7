"""Runs comigs' programs and plain PyTorch, one process after the other."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "bench"
BUILT_BY = "cmake --preset dev && cmake --build --preset dev --target comigs bench_steps"


class BenchError(Exception):
    """What the user is told; exit code 2 where `usage`, else 1."""

    def __init__(self, message: str, usage: bool = False) -> None:
        super().__init__(message)
        self.exit_code = 2 if usage else 1


@functools.cache
def environment() -> dict[str, str]:
    """What `bash setup.sh --env` asks for: mpirun works in it, on few cores and as root too."""
    shell = 'eval "$(bash setup.sh --env)" && env -0'
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)


def run(command: Sequence[object]) -> tuple[str, float]:
    """What the command prints, and its seconds. Raises BenchError with the end of it if it fails."""
    words = [str(word) for word in command]
    begun = time.perf_counter()
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise BenchError(f"exit code {done.returncode}: {' '.join(words)}\n{tail}")
    return done.stdout, seconds


def run_module(name: str, *arguments: object) -> tuple[Any, float]:
    """The JSON that a module of this package prints, and its seconds."""
    output, seconds = run([sys.executable, "-m", f"tests.bench.{name}", *arguments])
    return json.loads(output), seconds


@dataclass(frozen=True)
class Executables:
    """Where the build has put the programs."""

    folder: Path

    def path(self, name: str) -> Path:
        program = self.folder / name
        if not os.access(program, os.X_OK):
            raise BenchError(
                f"{program} is not there; build it: {BUILT_BY} (or see --executables)", usage=True
            )
        return program

    def comigs(self, *arguments: object, ranks: int) -> float:
        """Runs `comigs` and gives its seconds, from start to end."""
        return run(["mpirun", "-n", ranks, self.path("comigs"), *arguments])[1]

    def steps(self, *arguments: object, ranks: int = 1) -> dict[str, Any]:
        """The report of `bench_steps`."""
        return json.loads(run(["mpirun", "-n", ranks, self.path("bench_steps"), *arguments])[0])
