"""A Slurm array script for the runs of one data set: a task a run, a rank a user."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence

from .ini import JobError
from .runs import Run, runs_of, users
from .scale import DataSet

_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --ntasks={users}
#SBATCH --output={log}
# Time, partition and devices: SBATCH_TIMELIMIT, SBATCH_PARTITION, SBATCH_GPUS_PER_TASK, or options of sbatch.

run() {{ # folder, then the command; the exit code and the seconds stay in the folder
    local folder=$1 code=0
    shift
    srun --mpi=pmix "$@" >"$folder/run.log" 2>&1 || code=$?
    printf '{{"code": %d, "seconds": %d}}\\n' "$code" "$SECONDS" >"$folder/ended.json"
    exit "$code"
}}

case $SLURM_ARRAY_TASK_ID in
{lines}
esac
"""


def script(data_set: DataSet, runs: Sequence[Run], comigs: str) -> str:
    """To be submitted from the working directory of the sweep, by which all folders are named."""
    lines = [
        f"{task}) run {shlex.quote(str(run.folder))} {shlex.join(run.command(comigs))} ;;"
        for task, run in enumerate(runs)
    ]
    folder = str(runs_of(data_set)).replace("%", "%%")  # '%' begins a pattern of sbatch
    return _SCRIPT.format(
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", f"comigs-{data_set.scale}-{data_set.name}"),
        last=len(runs) - 1,
        users=users(data_set),
        log=shlex.quote(f"{folder}/slurm-%A_%a.log"),
        lines="\n".join(lines),
    )


def submit(text: str) -> str:
    """Hands a script to sbatch and returns what it says."""
    try:
        done = subprocess.run(["sbatch"], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise JobError("--submit: no 'sbatch' on this machine, expected Slurm's") from None
    if done.returncode != 0:
        raise JobError(f"sbatch refused the script: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()
