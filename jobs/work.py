"""Does what a plan asks for, data set by data set: prepares text and base, then runs what is missing."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from console.mistakes import JobError
from slurm.needs import ask, components, limit, together
from slurm.script import Job, log_in, number_in, script, submit
from slurm.site import read_site

from .plan import Plan
from .process import last_line, run_logged
from .progress import Progress
from .runs import DONE, Run, runs_of, users
from .scale import DataSet


@dataclass(frozen=True)
class Means:
    """By what commands run. `lock` is the descriptor that keeps other sweeps away."""

    comigs: str
    environment: Mapping[str, str]
    lock: int


def mpi_environment() -> dict[str, str]:
    """What mpirun needs on this machine, or in this job of Slurm's, as setup.sh knows it."""
    shell = 'lines=$(bash setup.sh --env) && eval "$lines" && env -0'
    done = subprocess.run(
        ["bash", "-c", shell],
        capture_output=True,
        encoding=sys.getfilesystemencoding(),
        errors="surrogateescape",  # as in os.environ
        check=False,
    )
    if done.returncode != 0:
        raise JobError(f"bash setup.sh --env failed: {done.stderr.strip()}")
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)


def make_ready(data_set: DataSet, runs: Sequence[Run], means: Means, replace: bool) -> None:
    """Text and base; the commands find for themselves what an earlier call made. Raises JobError, too, where
    runs done with other settings, or results of somebody else, are in the way."""
    data_set.check_base()
    runs_of(data_set).mkdir(parents=True, exist_ok=True)
    for run in runs:
        if run.is_somebody_elses():
            raise JobError(f"{run.folder}: holds results that no sweep has made; move them away")
    for what, command in data_set.preparation(sys.executable, means.comigs, replace):
        _make(what, data_set, command, means)
    if not replace:
        _check_nothing_lost(runs)


def run_missing(plan: Plan, runs: Sequence[Run], means: Means, progress: Progress) -> None:
    """One after another; a run that fails does not keep the others from running."""
    for run in runs:
        if run.status() == DONE:
            continue
        if run.is_at_work():
            progress.at_work(run)
        else:
            progress.begins(run)
            code = run.execute(means.comigs, means.environment, means.lock)
            progress.ended(run, code)
            plan.write_index()


def array(runs: Sequence[Run], comigs: str, to_slurm: bool) -> str:
    """The script of the missing runs, or what sbatch says to it. Its tasks find their folders ready, and go on
    where they were interrupted. What waits in the queue or may be at work stays as it is."""
    missing = []
    for run in runs:
        if run.status() == DONE:
            continue
        if run.is_at_work():
            _leave_out(run, "at work, or in Slurm's queue")
        elif run.is_unaccounted_for():
            _leave_out(
                run, "begun and not ended; if nothing is at work there, go on with it here, without Slurm"
            )
        else:
            missing.append(run)
    if not missing:
        return f"# {runs[0].data_set.name}: none of {len(runs)} runs is to be started"
    text = _array_script(missing, comigs)
    for run in missing:
        run.prepare()
    if not to_slurm:
        return text
    said = submit(text)
    for task, run in enumerate(missing):
        run.given_to(f"{number_in(said)}_{task}")
    return said


def _leave_out(run: Run, why: str) -> None:
    print(f"left out: {run.folder}: {why}", file=sys.stderr)


def _array_script(runs: Sequence[Run], comigs: str) -> str:
    """A task a run, a rank a user; each task gets what the most demanding run needs."""
    site, data_set = read_site(), runs[0].data_set
    one_of_each = {
        tuple(run.options.items()): run for run in runs
    }.values()  # seeds do not change what is needed
    needs = together(ask(comigs, run.arguments(), site, data_set.settings) for run in one_of_each)
    return script(
        Job(
            name=f"comigs-{data_set.scale}-{data_set.name}",
            components=components(needs.users, [users(data_set)], site.cpus_per_task),
            minutes=limit(needs, site),
            log=log_in(runs_of(data_set), "slurm-%A_%a.log"),
            commands=[shlex.join(["federate_in", str(run.folder), *run.command(comigs)]) for run in runs],
            is_array=True,
        ),
        site,
    )


def _make(what: str, data_set: DataSet, command: Sequence[str], means: Means) -> None:
    log = runs_of(data_set) / f"{what}.log"
    print(f"{data_set.name}: {what}, log in {log}", file=sys.stderr, flush=True)
    log.unlink(missing_ok=True)
    code = run_logged(command, log, means.environment, means.lock)
    if code != 0:
        raise JobError(f"{data_set.name}: {what} cannot be made (exit code {code}): {last_line(log)}")


def _check_nothing_lost(runs: Sequence[Run]) -> None:
    """A finished run may be hours of work: it goes only when that is asked for."""
    others = [(run, found) for run in runs if (found := run.differences())]
    if others:
        run, found = others[0]
        more = f" and {len(others) - 1} more runs" if len(others) > 1 else ""
        raise JobError(f"{run.folder}{more}: made with {'; '.join(found)}. --replace makes them anew")
