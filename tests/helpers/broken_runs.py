"""Runs that are signalled, killed or stopped on their way, and what they leave behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from tests.helpers.tiny import FRAMED, MPI_ENVIRONMENT, Done, comigs, executable

PATIENCE_SECONDS = 120
# What depends on the clock and the machine, and what says so.
MEASURED = ("time/", "memory/")
ABOUT_THE_RUN = ("created", "hosts", "devices", "configuration")
# Of what is told of a machine, of mpirun's counts of its own messages, and of its event loop, which may find a rank's
# input closed as it ends the others; they are no errors.
NOTES = ("share the cores", "that a rank has on", "no locks on this file system")
NOTES += ("sent help message", "orte_base_help_aggregate", "ORTE_ERROR_LOG", "[warn] Epoll")
# flock as Lustre answers without -o flock (ENOSYS), and as a network file system does that locks for one machine.
NO_FLOCK = """
#include <errno.h>
#include <stdlib.h>
int flock(int descriptor, int operation) {
  (void)descriptor, (void)operation;
  if (getenv("LOCKS_PRETEND")) return 0;
  errno = ENOSYS;
  return -1;
}
"""


class Running:
    """`mpirun -n RANKS comigs ...`, on its way. What it prints is in `output()`. `of_rank`: prefixes of some ranks."""

    def __init__(
        self,
        *arguments: object,
        ranks: int = 4,
        prefix: Sequence[str] = (),
        of_rank: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        self._printed = tempfile.TemporaryFile("w+")
        self._errors = tempfile.TemporaryFile("w+")
        self.begun = time.monotonic()
        self._process = subprocess.Popen(
            [*prefix, *_launch([executable(), *map(str, arguments)], ranks, of_rank or {})],
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=self._errors,
            env=os.environ | MPI_ENVIRONMENT,
            start_new_session=True,
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            for pid in self.ranks().values():
                _send(pid, signal.SIGKILL)
            self._process.terminate()
            self._process.wait(30)
        self._printed.close()
        self._errors.close()

    def output(self) -> str:
        return os.pread(self._printed.fileno(), 1 << 24, 0).decode()

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def ranks(self) -> dict[int, int]:
        """Process ids by rank, of those that are there."""
        found: dict[int, int] = {}
        for pid in _descendants(self._process.pid):
            try:
                words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            for word in words:
                if word.startswith(b"OMPI_COMM_WORLD_RANK="):
                    found[int(word.partition(b"=")[2])] = pid
        return found

    def signal(self, rank: int, number: signal.Signals) -> bool:
        """False: there is no such rank (any more)."""
        pid = self.ranks().get(rank)
        return pid is not None and _send(pid, number)

    def signal_launcher(self, number: signal.Signals) -> None:
        """To mpirun itself."""
        self._process.send_signal(number)

    @contextmanager
    def held(self, rank: int, number: int) -> Iterator[None]:
        """From the end of a round on, a rank is stopped: the others come no further than the end of the next."""
        self.wait_for_round(number)
        assert self.signal(rank, signal.SIGSTOP), self.output()
        yield
        assert self.signal(rank, signal.SIGCONT), self.output()

    def signal_all(self, number: signal.Signals) -> None:
        for rank in self.ranks():
            self.signal(rank, number)

    def wait_for_round(self, number: int) -> None:
        self.wait_until(lambda: any(_round_of(line) >= number for line in self.output().splitlines()))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition() and not self.is_over():
            assert time.monotonic() - self.begun < PATIENCE_SECONDS, self.output()
            time.sleep(0.002)

    def end(self) -> Done:
        self._process.wait(PATIENCE_SECONDS)
        errors = os.pread(self._errors.fileno(), 1 << 24, 0).decode()
        epilogue = "".join(FRAMED.findall(errors))
        return Done(self._process.returncode, self.output(), FRAMED.sub("", errors), epilogue)


def mounted(instead: Path, at: Path) -> list[str]:
    """Before a command: it alone sees one file or folder in the place of another. Needs root."""
    return ["unshare", "-m", "sh", "-c", f'mount --bind "{instead}" "{at}" && exec "$@"', "sh"]


def compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")


def no_flock(folder: Path) -> Path:
    """A library for LD_PRELOAD with which locks fail or, with LOCKS_PRETEND set, do nothing; needs a C compiler."""
    library, text = folder / "flock.so", folder / "flock.c"
    text.write_text(NO_FLOCK)
    subprocess.run([compiler(), "-shared", "-fPIC", "-o", library, text], check=True)
    return library


def holds_back(pid: int, number: signal.Signals) -> bool:
    """Whether a signal to this process would wait: from the program's first moments on."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(blocked.split()[1], 16) >> (number - 1) & 1)


def check_it_ends_at_once(number: signal.Signals, command: Sequence[object]) -> None:
    """A command of one process, signalled as soon as it, which is still being loaded, holds signals back."""
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not holds_back(process.pid, number):
        pass
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 3 and output == "", errors
    assert errors == f"comigs: stopped by {number.name}; nothing was written, the same command does it\n"


def arguments(*options: object) -> list[object]:
    """`train` and these options, each followed by its value; of an option given twice the last value counts."""
    given = {"--device": "cpu", "--threads": 1} | dict(zip(options[::2], options[1::2], strict=True))
    return ["train", *(word for pair in given.items() for word in pair)]


def finish(command: Sequence[object], code: int = 0, ranks: int = 4) -> Done:
    """Lets a command run to its end."""
    done = comigs(*command, ranks=ranks)
    assert done.code == code, done.output + done.errors
    return done


def without_notes(errors: str) -> str:
    return "".join(line for line in errors.splitlines(True) if not any(note in line for note in NOTES))


def rounds_in(results: Path) -> int:
    """The last round that the file holds; -1: none yet."""
    with h5py.File(results) as file:
        return len(file["round"]) - 1


def rounds_told(output: str) -> int:
    """The last round that the output reports as done; -1: none."""
    return max((_round_of(line) for line in output.splitlines()), default=-1)


def contents(results: Path) -> dict[str, np.ndarray]:
    """All that a results file holds but what was measured by the clock: arrays, and what describes the run."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(MEASURED):
            found[name] = item[()]

    with h5py.File(results) as file:
        file.visititems(visit)
        for name, value in file.attrs.items():
            if name not in ABOUT_THE_RUN:
                found[f"/{name}"] = np.asarray(value)
    return found


def differing(one: Path, other: Path) -> list[str]:
    """Names of what is not the same, bit for bit."""
    first, second = contents(one), contents(other)
    return sorted(
        name
        for name in first.keys() | second.keys()
        if name not in first or name not in second or not _same(first[name], second[name])
    )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.tolist() == b.tolist() if a.dtype.hasobject else a.tobytes() == b.tobytes()


def _round_of(line: str) -> int:
    number, slash, _ = line.strip().partition("/")
    return int(number) if slash and number.isdigit() else -1


def _launch(program: list[str], ranks: int, of_rank: Mapping[int, Sequence[str]]) -> list[str]:
    if not of_rank:
        return ["mpirun", "-n", str(ranks), *program]
    parts = [[":", "-n", "1", *of_rank.get(rank, ()), *program] for rank in range(ranks)]
    return ["mpirun", *[word for part in parts for word in part][1:]]


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, children) for found in (child, *_descendants(child))]


def _send(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
