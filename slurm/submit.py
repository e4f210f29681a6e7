"""The command line: `slurm/submit JOB.ini` asks `comigs plan` what a job needs, writes and submits it."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from console import program, terminal
from console.mistakes import JobError, check_seeds
from console.name_lists import names_of
from console.terminal import Parser

from .needs import Needs, ask, components, limit, sizes_by_need, together
from .script import Job, encoded, log_in, script, submit
from .site import Site, minutes, read_site

DESCRIPTION = """Submits a job of comigs: a rank for every user, memory and time as `comigs plan` says,
partition and devices as the site file says. Users with unlike needs become components of a heterogeneous job.
The job is requeued when its time ends and goes on where it was. Options not listed here go to `comigs train`.
See slurm/README.md."""


@dataclass(frozen=True)
class _Run:
    """One run of comigs. `method`: None for the job file's. `arguments`: those of `comigs train`."""

    method: str | None
    arguments: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 submitted or printed, 1 something failed, 2 bad input, 141 nobody reads on."""
    options, others = _parser().parse_known_args(arguments)
    try:
        return _submit(options, others)
    except JobError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 141
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="slurm/submit", description=DESCRIPTION, allow_abbrev=False)
    add = parser.add_argument
    add("job", metavar="JOB.ini", type=Path, help="job file of comigs train; it comes before all options")
    add("--dry-run", action="store_true", help="print the script; submit nothing")
    add("--site", type=Path, metavar="FILE", help="site file (default: $COMIGS_SITE, else slurm/site.sh)")
    add("--time", metavar="LIMIT", help="time limit as sbatch writes it (default: as planned, with a margin)")
    add(
        "--nodes",
        type=int,
        metavar="N",
        help="nodes of the job, or of each of its components (default: Slurm's choice)",
    )
    add(
        "--components",
        metavar="N,N,...",
        help="users in each component of a heterogeneous job, in rank order (default: by their needs)",
    )
    add(
        "--methods",
        metavar="NAME,...",
        help="an array with these methods; each run gets a folder in that of the job",
    )
    add("--seeds", type=int, metavar="N", help="an array with seeds 0 to N-1")
    add("--force", action="store_true", help="submit also what this machine's memory cannot hold on one node")
    add("--comigs", default=program.default(), metavar="FILE", help="the program (default: %(default)s)")
    return parser


def _submit(options: argparse.Namespace, others: Sequence[str]) -> int:
    site = read_site(options.site)
    if options.nodes is not None and options.nodes < 1:
        raise JobError(f"--nodes {options.nodes}: expected at least 1")
    if not options.job.is_file():
        raise JobError(f"{options.job}: no such file, expected a job file; it comes before all options")
    settings = program.settings(options.comigs, options.job)
    output = _output(options.job, settings, others)
    runs = _runs(options, others, output)
    is_array = options.methods is not None or options.seeds is not None
    if sys.stderr.isatty():  # it takes a while
        print("comigs plan works out what the job needs ...", file=sys.stderr)
    needs = together(
        ask(options.comigs, run.arguments, site, settings, not options.force)
        for run in _one_of_each_method(runs)
    )
    sizes = _sizes(options.components, needs, site, is_array)
    text = script(
        Job(
            name=output.name,
            components=components(needs.users, sizes, site.cpus_per_task),
            minutes=minutes(f"--time {options.time}", options.time) if options.time else limit(needs, site),
            log=log_in(output, "slurm-%A_%a.log" if is_array else "slurm-%j.log"),
            commands=[shlex.join(["federate", options.comigs, "train", *run.arguments]) for run in runs],
            is_array=is_array,
            nodes=options.nodes,
        ),
        site,
    )
    if options.dry_run:
        _print(text)
        return 0
    output.mkdir(parents=True, exist_ok=True)  # Slurm makes no folder for its log
    _keep(text, output / "slurm.sh")
    _print(submit(text) + "\n")
    return 0


def _print(text: str) -> None:
    """In any locale, and at once: what cannot be written is an error of this program, not of its end."""
    if sys.stdout is None:  # closed by the caller
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    try:
        sys.stdout.buffer.write(encoded(text))
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is not written yet
        raise


def _keep(text: str, file: Path) -> None:
    """Writes the script down, in the place of an earlier one only."""
    try:
        found = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        found = ""
    if found and "\nexport COMIGS_SITE=" not in found:
        raise JobError(f"{file}: found another file, expected none or an earlier script; move it away")
    file.write_bytes(encoded(text))


def _output(job: Path, settings: Mapping[str, str], others: Sequence[str]) -> Path:
    """Where the results go: the command line's folder, else the job file's."""
    found = settings.get("output", "")
    for place, word in enumerate(others):
        if word.startswith("--output="):
            found = word.removeprefix("--output=")
        elif word == "--output" and place + 1 < len(others):
            found = others[place + 1]
    if not found:
        raise JobError(f"{job}: no 'output' in [run], and no --output: expected the folder of the results")
    return Path(found)


def _runs(options: argparse.Namespace, others: Sequence[str], output: Path) -> list[_Run]:
    """One, or methods x seeds, each in a folder of its own."""
    common = [str(options.job), *others]
    if options.methods is None and options.seeds is None:
        return [_Run(None, tuple(common))]
    if options.seeds is not None:
        check_seeds(options.seeds)
    asked = options.methods
    methods = [None] if asked is None else names_of(asked, f"--methods {asked}")
    runs = []
    for method in methods:
        for seed in [None] if options.seeds is None else range(options.seeds):
            name = "-".join([*([method] if method else []), *([f"seed{seed}"] if seed is not None else [])])
            own = {"--method": method, "--seed": seed, "--output": output / name}
            words = _without(common, [flag for flag, value in own.items() if value is not None])
            for flag, value in own.items():
                words += [flag, str(value)] if value is not None else []
            runs.append(_Run(method, tuple(words)))
    return runs


def _without(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The words less these flags and their values."""
    kept, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] not in flags:
            kept.append(word)
        skip = not skip and word in flags
    return kept


def _one_of_each_method(runs: Sequence[_Run]) -> list[_Run]:
    """Seeds do not change what a run needs."""
    return list({run.method: run for run in reversed(runs)}.values())


def _sizes(asked: str | None, needs: Needs, site: Site, is_array: bool) -> list[int]:
    """How many users each component has."""
    users = len(needs.users)
    if asked is None:
        # Slurm has no arrays of heterogeneous jobs, and mpirun starts no ranks in other components.
        return [users] if is_array or site.launcher == "mpirun" else sizes_by_need(needs.users)
    words = asked.split(",")
    sizes = [int(word) if word.isdecimal() else 0 for word in words]
    if not all(sizes) or sum(sizes) != users:
        raise JobError(
            f"--components {asked}: expected numbers of users that add up to {users}, such as 2,{users - 2}"
        )
    if len(sizes) > 1 and is_array:
        raise JobError(
            "--components: Slurm has no arrays of heterogeneous jobs; leave out --methods and --seeds"
        )
    if len(sizes) > 1 and site.launcher == "mpirun":
        raise JobError(
            f"--components: {site.file} has launcher=mpirun, which starts no ranks in other components"
        )
    return sizes


if __name__ == "__main__":
    terminal.run(main)
