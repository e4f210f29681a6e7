"""Writes batch scripts; their common body is run.sh. The only place where Slurm's options are chosen."""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from console.mistakes import JobError

from .environment import for_new_job, passed_over
from .needs import Component
from .site import HERE, Site, check_plain

_SECONDS_TO_ANSWER = 120.0  # Slurm's commands give up much earlier where the controller is away


@dataclass(frozen=True)
class Job:
    """`commands`: lines of shell, one for each task of an array; a job that is no array has one. `log`: a
    file, in which %j, %A and %a stand for Slurm's numbers. `nodes`: None leaves it to Slurm."""

    name: str
    components: Sequence[Component]
    minutes: int
    log: str
    commands: Sequence[str]
    is_array: bool = False
    nodes: int | None = None


def script(job: Job, site: Site) -> str:
    """To be submitted from the working directory by which the commands name their files. Raises JobError
    where the ranks would be told to leave before they begin."""
    if job.minutes * 60 <= site.lead_seconds:
        raise JobError(
            f"a time limit of {job.minutes} minutes: {site.file} has lead={site.lead_seconds}, the seconds before"
            " the limit at which ranks leave; expected a longer limit or a shorter lead"
        )
    lines = ["#!/bin/bash"]
    for number, component in enumerate(job.components):
        if number > 0:
            lines.append("#SBATCH hetjob")
        options = (
            [*_of_job(job), *_of_component(job, component, site)]
            if number == 0
            else _of_component(job, component, site)
        )
        lines += [f"#SBATCH {option}" for option in options]
    lines += [
        "",
        f"export COMIGS_SITE={shlex.quote(str(site.file))}",
        f". {shlex.quote(str(HERE / 'run.sh'))}",
    ]
    if job.is_array:
        cases = [f"{task}) {command} ;;" for task, command in enumerate(job.commands)]
        lines += ["case $SLURM_ARRAY_TASK_ID in", *cases, "esac"]
    else:
        lines += job.commands
    return "\n".join(lines) + "\n"


def submit(text: str) -> str:
    """Hands a script to sbatch and returns what it says. The job inherits nothing of one that runs here."""
    if others := passed_over():
        print(
            f"note: {', '.join(others)}: not used; what else sbatch needs belongs into 'options' of the site file",
            file=sys.stderr,
        )
    try:
        done = subprocess.run(
            ["sbatch"], input=encoded(text), env=for_new_job(text), capture_output=True, check=False
        )
    except FileNotFoundError:
        raise JobError("no 'sbatch' on this machine, expected Slurm's") from None
    said, errors = (output.decode(errors="replace").strip() for output in (done.stdout, done.stderr))
    if done.returncode != 0:
        raise JobError(f"sbatch refused the script: {errors or said}")
    return said


def encoded(text: str) -> bytes:
    """A script as bash reads it, in any locale: UTF-8, and names of files as they are."""
    return text.encode("utf-8", "surrogateescape")


def number_in(said: str) -> str:
    """The job's number in what sbatch says."""
    found = re.search(r"\bjob (\d+)", said)
    if found is None:
        raise JobError(f"sbatch said {said!r}, expected the job's number")
    return found[1]


def in_queue(job: str) -> bool:
    """Whether a job, or a task of an array, waits or runs. True where Slurm does not tell."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        done = subprocess.run(
            ["squeue", "--noheader", f"--jobs={job}"],
            env=own,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS_TO_ANSWER,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return True
    if done.returncode != 0:
        return "Invalid job id" not in done.stderr
    return done.stdout.strip() != ""


def log_in(folder: Path, name: str) -> str:
    """A log's name for sbatch, in which '%' begins a pattern."""
    check_plain("the folder of the results", str(folder))
    return f"{folder}/".replace("%", "%%") + name


def _of_job(job: Job) -> list[str]:
    options = [f"--job-name={re.sub(r'[^A-Za-z0-9_.-]', '_', job.name)}"]
    if job.is_array:
        options.append(f"--array=0-{len(job.commands) - 1}")
    return [*options, f"--output={shlex.quote(job.log)}", "--open-mode=append"]


def _of_component(job: Job, component: Component, site: Site) -> list[str]:
    """Slurm asks for these anew in every component of a heterogeneous job."""
    to_shell = "B:" if site.launcher == "mpirun" else ""  # its ranks are no step of Slurm's
    options = [f"--ntasks={component.tasks}", f"--cpus-per-task={component.cpus}"]
    if job.nodes is not None:
        options.append(f"--nodes={job.nodes}")
        options.append(f"--ntasks-per-node={math.ceil(component.tasks / job.nodes)}")
    if site.gpus_per_task > 0:
        options.append(f"--gpus-per-task={site.gpus_per_task}")
    options += [
        f"--mem-per-cpu={math.ceil(component.memory_mebibytes / component.cpus)}M",
        f"--time={job.minutes}",
        f"--signal={to_shell}USR1@{site.lead_seconds}",
        "--requeue",
    ]
    named = {"partition": site.partition, "account": site.account, "qos": site.qos}
    return [
        *options,
        *(f"--{name}={value}" for name, value in named.items() if value),
        *map(shlex.quote, site.options),
    ]
