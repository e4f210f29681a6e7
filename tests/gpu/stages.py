"""The stages: what each runs, and how its end is judged."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TextIO

# What comigs warns of when it takes the slow way: passes that are not recorded, a base for each rank.
FALLBACK = re.compile(r"not recorded as CUDA graphs|upload a copy of the base|go through the host")
NO_DEVICE = re.compile(
    r"no CUDA device is visible|No CUDA GPUs are available|no CUDA-capable device|Found no NVIDIA driver"
)
# A profiler that is there and cannot work: no access to the card's counters, a container's runtime.
NO_TOOL = re.compile(r"ERR_NVGPUCTRPERM|LibraryNotLoaded|Device not supported")
PASSED, FAILED, NO_CARD, ABSENT = "passed", "FAILED", "no card", "not here"
PYTHON = sys.executable
SANITIZER = ("--target-processes", "all", "--error-exitcode", "9")


@dataclass(frozen=True)
class Stage:
    """`tool`: without this program on PATH the stage is left out."""

    name: str
    command: tuple[str, ...]
    limit: int = 120  # seconds
    tool: str | None = None


@dataclass(frozen=True)
class Outcome:
    stage: Stage
    verdict: str
    seconds: float
    fell_back: int  # lines that say so
    note: str  # its last line


def _measure(*words: object) -> tuple[str, ...]:
    return (PYTHON, "-m", "tests.gpu.measure", *map(str, words))


def _test(program: str, *words: str) -> tuple[str, ...]:
    return (program, "--log_level=message", "--color_output=no", "--report_level=short", *words)


def _pytest(*words: str) -> tuple[str, ...]:
    return (PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "tests/python/project/test_gpu.py", *words)


# What test_gpu.py is about, and which of its tests are.
OF_COMMANDS = {"experts": "test_ranks", "prompts": "test_prompts", "comigs prune": "prunes"}
MACHINE = Stage("machine", _measure("machine"))  # before either half
FIRST = [
    Stage("test_kernels (on the host)", _test("test_kernels")),
    Stage("test_kernels_card", ("test_kernels_card",), 180),
    Stage("test_adapter, device", _test("test_adapter", "--run_test=device")),
    Stage("test_adapter, prompts", _test("test_adapter", "--run_test=prompts_on_every_device")),
    Stage("test_train, resuming", _test("test_train", "--run_test=resuming")),
    *(Stage(f"test_gpu.py, {what}", _pytest("-k", name), 180) for what, name in OF_COMMANDS.items()),
    *(
        Stage(
            f"compute-sanitizer, {tool}",
            ("compute-sanitizer", "--tool", tool, *SANITIZER, "bin/test_kernels_card", "small"),
            90,
            "compute-sanitizer",
        )
        for tool in ("memcheck", "racecheck")
    ),
]
SIZES = [(batch, "bf16", experts) for batch in (64, 8) for experts in (2, 1, 4, 8)]
SIZES += [(batch, "float32", 2) for batch in (64, 8)]
SMOLLM2 = ("--base", "smollm2")
SECOND = [
    Stage("random base and data", _measure("material")),
    *(
        Stage(f"{batch} x 128, {precision}, {experts} experts", _measure("steps", batch, precision, experts))
        for batch, precision, experts in SIZES
    ),
    Stage("64 x 128, bf16, 2 experts, routers", _measure("steps", 64, "bf16", 2, "--routers"), 60),
    *(
        Stage(f"SmolLM2, {batch} x 128, bf16, 2 experts", _measure("steps", batch, "bf16", 2, *SMOLLM2))
        for batch in (64, 8)
    ),
    Stage(
        "SmolLM2, 64 x 128, bf16, 8 x 10 prompts", _measure("steps", 64, "bf16", 8, *SMOLLM2, "--prompts", 10)
    ),
    *(Stage(f"four ranks of the card, {p}", _measure("ranks", p), 60) for p in ("bf16", "float32")),
    Stage("1, 2, 4 ranks of the card", _measure("sharing"), 90),
    Stage("the same under MPS", _measure("sharing", "--mps"), 90, "nvidia-cuda-mps-control"),
    *(Stage(f"matrix products, V {v}, bf16", _measure("products", v, "bf16"), 60) for v in (50257, 50304)),
    Stage("ncu, time by kernel", _measure("kernels"), 120, "ncu"),
    Stage("nsys", _measure("timeline"), 60, "nsys"),
]


def _run(command: tuple[str, ...], limit: float) -> tuple[int | None, str]:
    """Exit code, None past the limit, and all that was printed; what it has started ends with it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output = process.communicate(timeout=limit)[0]
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # mpirun ends its ranks, which have sessions of their own
    try:
        return None, process.communicate(timeout=5)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0]


def carry_out(stage: Stage, left: float, log: TextIO, patience: int = 1) -> Outcome:
    """Runs the stage, in at most `left` seconds; all that it prints goes into the log. Its own limit is
    `patience` times as long."""
    if stage.tool is not None and shutil.which(stage.tool) is None:
        return Outcome(stage, ABSENT, 0.0, 0, f"no {stage.tool} on PATH")
    if left < 5:
        return Outcome(stage, FAILED, 0.0, 0, "not begun: the time is up")
    if shutil.which(stage.command[0]) is None:
        return Outcome(stage, FAILED, 0.0, 0, f"{stage.command[0]} is not in the bundle")
    limit = min(float(patience * stage.limit), left)
    begun = time.monotonic()
    code, output = _run(stage.command, limit)
    seconds = time.monotonic() - begun
    log.write(f"\n===== {stage.name}: {' '.join(stage.command)}\n{output}\n")
    log.write(f"===== exit code {code}, {seconds:.1f} s\n")
    log.flush()
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    note = lines[-1] if lines else "printed nothing"
    if code is None:
        note = f"ended after {limit:.0f} s; last: {note}"
    verdict = PASSED if code == 0 else NO_CARD if NO_DEVICE.search(output) else FAILED
    if verdict == FAILED and stage.tool is not None and NO_TOOL.search(output):
        verdict = ABSENT
    if verdict in (NO_CARD, ABSENT):
        reason = NO_DEVICE if verdict == NO_CARD else NO_TOOL
        note = next(line for line in lines if reason.search(line))
    return Outcome(stage, verdict, seconds, len(FALLBACK.findall(output)), note)
