"""The command line: `python -m jobs.sweep ITEM...` runs what tables and figures need and is not there yet."""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import signal
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from console import program, terminal
from console.mistakes import JobError
from console.terminal import Parser

from .plan import Plan, planned
from .progress import Progress
from .runs import DONE, FOLDER, users
from .scale import PAPER
from .work import Means, array, make_ready, mpi_environment, run_missing

DESCRIPTION = """Runs what tables and figures of the paper need: prepares text and base, then trains every
method, data set and seed through mpirun, one run after another. What is done is not run again; what failed
or was interrupted is. runs/SCALE/index.json lists all runs. See jobs/README.md."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 done, 1 something failed, 2 bad input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    os.umask(os.umask(0) | stat.S_IWOTH)  # nothing that is written is writable for everyone
    try:
        return _run(options)
    except JobError as error:
        return _told(error, 2)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _told(f"{error.filename or 'input or output'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _told("interrupted; the same command goes on from here", 130)


def _run(options: argparse.Namespace) -> int:
    plan = planned(options)
    if options.print:
        return _print(plan, options)
    if options.index:
        print(f"{plan.write_index()}: {plan.counted()}")
        return 0
    with _alone(FOLDER / options.scale) as lock:
        return _work(plan, options, lock)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m jobs.sweep", description=DESCRIPTION)
    add = parser.add_argument
    add("items", nargs="+", metavar="ITEM", help="a job file of jobs/: table1, figure6, ...")
    add("--dataset", metavar="NAME[,NAME]", help="of the items' data sets only these")
    add("--scale", default=PAPER, help="'paper', or a folder of jobs/datasets such as small (default: paper)")
    add("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 (default: 3)")
    add("--rows", metavar="TEXT", help="only the row of this name, or those with TEXT in theirs")
    add(
        "--source",
        action="append",
        default=[],
        metavar="NAME=PLACE",
        help="text of a data set from another folder, file or hub; give it with every call that needs it",
    )
    add(
        "--replace",
        action="store_true",
        help="make pruned bases and runs anew that are there with other settings",
    )
    add("--comigs", default=program.default(), metavar="FILE", help="the program (default: %(default)s)")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--print", action="store_true", help="print the commands; run nothing")
    add("--index", action="store_true", help="bring the index up to date; run nothing")
    add("--slurm", action="store_true", help="prepare, then print a Slurm array script for each data set")
    add("--submit", action="store_true", help="the same, handed to sbatch")
    return parser


def _print(plan: Plan, options: argparse.Namespace) -> int:
    """Lines for a shell: the preparation, which does nothing where it is done, then the missing runs."""
    for data_set, runs in plan.by_data_set():
        for _, command in data_set.preparation(_python(), options.comigs, options.replace):
            print(shlex.join(command))
        try:
            ranks = users(data_set)
        except JobError:
            ranks = 4
            print(f"# {data_set.data} is not made yet: 4 users, as in the paper, are expected")
        for run in runs:
            if run.status() != DONE:
                print(shlex.join(["mpirun", "-n", str(ranks), *run.command(options.comigs)]))
    return 0


def _work(plan: Plan, options: argparse.Namespace, lock: int) -> int:
    """A data set that cannot be prepared does not keep the others from running."""
    means = Means(options.comigs, mpi_environment(), lock)
    progress = Progress(plan.runs)
    by_slurm = options.slurm or options.submit
    unprepared = False
    for data_set, runs in plan.by_data_set():
        try:
            make_ready(data_set, runs, means, options.replace)
        except JobError as error:
            unprepared = True
            _told(error, 2)
            continue
        plan.write_index()
        if by_slurm:
            print(array(runs, options.comigs, options.submit))
        else:
            run_missing(plan, runs, means, progress)
    index = plan.write_index()
    for run, what in progress.failed:
        print(f"failed: {run.folder}, {what}", file=sys.stderr)
    if not by_slurm:
        print(f"{index}: {plan.counted()}, {progress.elapsed()} elapsed")
    return 1 if progress.failed else 2 if unprepared else 0


@contextmanager
def _alone(home: Path) -> Iterator[int]:
    """One sweep at a time in a scale's folder."""
    home.mkdir(parents=True, exist_ok=True)
    lock = os.open(home / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        _hold(lock, home)
        yield lock
    finally:
        os.close(lock)


def _hold(lock: int, home: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JobError(f"{home}: another sweep, or a run that a killed one left, is at work there") from None
    except OSError as error:
        words = "let one sweep end before the next one begins (each run still keeps others away)"
        print(f"{home}: no locks on this file system ({error.strerror}): {words}", file=sys.stderr)


def _python() -> str:
    """This Python as one would type it here."""
    path, here = Path(sys.executable), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _told(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    terminal.run(main)
