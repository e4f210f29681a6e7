"""Runs a command on a broken input or in odd surroundings, in bounds, and judges how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
SUPPRESSIONS = ROOT / "tests" / "sanitizers"
GIB = 2**30

# A report of a sanitizer ends the program with a code that it has no other use for.
REPORT_CODE = 99
MOST_ALLOCATION_MIB, MOST_MEMORY_MIB, MOST_ADDRESS_SPACE_BYTES = 2048, 6144, 64 * GIB
LONGEST_MESSAGE = 6000


# Link order: where locks are to fail, a library is loaded before the sanitizer's own.
def _options(leaks: int) -> dict[str, str]:
    return {
        "ASAN_OPTIONS": f"exitcode={REPORT_CODE}:detect_leaks={leaks}"
        f":max_allocation_size_mb={MOST_ALLOCATION_MIB}:hard_rss_limit_mb={MOST_MEMORY_MIB}"
        ":allocator_may_return_null=0:detect_odr_violation=0:verify_asan_link_order=0",
        "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:exitcode={REPORT_CODE}",
        "LSAN_OPTIONS": f"suppressions={SUPPRESSIONS / 'leaks.supp'}:print_suppressions=0",
    }


# Leaks are looked for in single processes: the search itself crashes at the end of several ranks, among what their
# MPI has unloaded.
SANITIZERS, SANITIZERS_OF_RANKS = _options(leaks=1), _options(leaks=0)
# One process without mpirun, one thread, no network.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_btl": "self",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}
REPORTS = (
    "ERROR: AddressSanitizer",
    "ERROR: LeakSanitizer",
    "runtime error:",
    "Traceback",
    "terminate called",
)
REPORTS += ("Exception raised from", "SUMMARY: ", "Segmentation fault", "MPI_ABORT", "json.exception")

CLEAN_REFUSAL, CORRECT_RUN, NAMED_STOP, OTHER = "clean refusal", "correct run", "named stop", "other"
REFUSALS = {2: CLEAN_REFUSAL}


@dataclass(frozen=True)
class Verdict:
    """How it ended: one of the four words; why, for the last."""

    kind: str
    reason: str = ""


@dataclass(frozen=True)
class Ended:
    """`code` None: it had not ended in time and was killed."""

    code: int | None
    errors: str
    printed: str = ""


def is_sanitized(executable: Path) -> bool:
    return b"__asan_init" in executable.read_bytes()


def run(command: Sequence[object], folder: Path, seconds: float, limited: bool) -> Ended:
    """In `folder`. `limited`: in an address space that no right run needs (a sanitizer's shadow takes more)."""
    # A file: Open MPI's daemon may hold a pipe for longer than the program itself runs.
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as printed:
        code = code_of(start(command, folder, limited, errors, printed), seconds)
        return Ended(code, text_in(errors), text_in(printed))


def code_of(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """None: it had not ended in time and was killed."""
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def text_in(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def start(
    command: Sequence[object],
    folder: Path,
    limited: bool,
    errors: IO[bytes] | int,
    printed: IO[bytes] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    limits = ["prlimit", "--core=0", *([f"--as={MOST_ADDRESS_SPACE_BYTES}"] if limited else []), "--"]
    return subprocess.Popen(
        [os.fsencode(str(word)) for word in (*limits, *command)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=printed,
        stderr=errors,
        env=os.environ | SANITIZERS | ENVIRONMENT,
        start_new_session=True,
    )


def beginning(module: str) -> str:
    """Of the messages of the program, or of a Python module."""
    return "error: " if module else "comigs: "


def judge(
    ended: Ended, names: Sequence[str], beginning: str, may_run: bool, codes: Mapping[int, str] = REFUSALS
) -> Verdict:
    """`names`: of which a message must hold one; `beginning`: of the program's messages; `codes`: that may come
    with one, and their verdicts."""
    if ended.code is None:
        return Verdict(OTHER, "hangs")
    for report in REPORTS:
        if report in ended.errors:
            return Verdict(OTHER, _excerpt(ended.errors, report))
    if any(ord(c) < 32 and c != "\n" for c in ended.errors):
        return Verdict(OTHER, f"garbled: {ended.errors[:300]!r}")
    if ended.code == 0:
        return Verdict(CORRECT_RUN) if may_run else Verdict(OTHER, "accepted what must be refused")
    if ended.code not in codes:
        return Verdict(OTHER, f"exit code {ended.code}: {ended.errors.strip()[-300:]}")
    lines = [line for line in ended.errors.splitlines() if line.strip()]
    # One line, or a line and the list that it announces.
    if (
        not lines
        or not lines[0].startswith(beginning)
        or any(not line.startswith("  - ") for line in lines[1:])
    ):
        return Verdict(OTHER, f"not one message: {ended.errors[:300]!r}")
    if len(ended.errors) > LONGEST_MESSAGE:
        return Verdict(OTHER, f"an endless message: {ended.errors[:300]!r}")
    if not any(name in ended.errors for name in names):
        return Verdict(OTHER, f"names neither file nor option: {ended.errors[:300]!r}")
    return Verdict(codes[ended.code])


def _excerpt(errors: str, report: str) -> str:
    begin = errors.index(report)
    return " | ".join(line.strip() for line in errors[begin : begin + 3000].splitlines()[:14])
