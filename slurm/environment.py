"""The environment of a new job: without what Slurm or mpirun set for the job, step or rank that submits it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

# How Slurm is reached and how it prints. All its other variables are a job's or a step's: sbatch hands them on, and
# srun takes them for its options. What is meant for srun belongs into the site file's `enter`.
_SLURM = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_TIME_FORMAT"}
# On whose account and where, and what is exported. Slurm puts them before the script's lines, so that they hold only
# where the script is silent; all other options are the script's.
_SBATCH = {
    "SBATCH_ACCOUNT": "--account|-A",
    "SBATCH_CLUSTERS": "--clusters?|-M",
    "SBATCH_CONSTRAINT": "--constraint|-C",
    "SBATCH_EXPORT": "--export",
    "SBATCH_PARTITION": "--partition|-p",
    "SBATCH_QOS": "--qos|-q",
    "SBATCH_RESERVATION": "--reservation",
    "SBATCH_WCKEY": "--wckey",
}
_BY_A_JOB = re.compile(r"SBATCH_(CPU|MEM)_BIND.*")
_DEVICES = {"CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES"}
# What a rank has from its launcher. Other MCA parameters are the user's.
_RANK = re.compile(
    r"(PMI2?|PRTE)_.*|PMIX_(?!MCA_).*"
    r"|OMPI_(COMM_WORLD_.*|APP_CTX_NUM_PROCS|ARGV|COMMAND|FILE_LOCATION|FIRST_RANKS|NUM_APP_CTX|UNIVERSE_SIZE)"
    r"|OMPI_MCA_(ess(_base_.*)?|initial_wdir|pmix|mpi_oversubscribe|shmem_RUNTIME_QUERY_hint)"
    r"|OMPI_MCA_orte_(app_num|ess_.*|hnp_uri|jobfam_session_dir|launch|local_daemon_uri|node_regex|num_nodes"
    r"|precondition_transports|tmpdir_base|top_session_dir)"
)


def for_new_job(script: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What sbatch is to be called with. `script`: whose lines come before the user's SBATCH_* variables."""
    in_job = "SLURM_JOB_ID" in environment

    def is_kept(name: str) -> bool:
        if name.startswith("SBATCH_"):
            flag = _SBATCH.get(name)
            return flag is not None and not re.search(rf"^#SBATCH '?({flag})\b", script, re.MULTILINE)
        if name.startswith(("SLURM", "SALLOC_", "SRUN_")):
            return name in _SLURM
        return not (_RANK.fullmatch(name) or (in_job and name in _DEVICES))

    return {name: value for name, value in environment.items() if is_kept(name)}


def passed_over(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Options for sbatch which the user has set, and which no script here takes from the environment."""
    return sorted(
        name
        for name in environment
        if name.startswith("SBATCH_") and name not in _SBATCH and not _BY_A_JOB.fullmatch(name)
    )
