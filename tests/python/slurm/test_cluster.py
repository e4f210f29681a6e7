"""comigs on a real Slurm of two nodes: many nodes, heterogeneous jobs, arrays, time limits, failures."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers.built_program import ROOT
from tests.helpers.slurm_cluster import Cluster
from tests.helpers.slurm_jobs import SITE, Job, check_equal, make_job, write_job
from tests.helpers.tiny import MPI_ENVIRONMENT, executable, train

ALL = "0 1 2 3"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    state = Path(tempfile.mkdtemp(prefix="comigs-"))  # sockets need a short path
    found = Cluster(state, tmp_path_factory.getbasetemp())
    try:
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def limited(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_data: Path
) -> tuple[Job, str]:
    """A job that meets its time limit, and its number. It does so while other tests run."""
    job = make_job(cluster, tmp_path_factory.mktemp("limited"), tiny_base, tiny_data)
    return job, job.submit("--nodes", 2, "--time", 1, hold=ALL)


@pytest.fixture
def job(
    cluster: Cluster, limited: tuple[Job, str], tmp_path: Path, tiny_base: Path, tiny_data: Path
) -> Iterator[Job]:
    yield make_job(cluster, tmp_path, tiny_base, tiny_data)
    cluster.clear(limited[1])


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_data: Path) -> Path:
    """The results of the same job, run by mpirun in one go."""
    folder = tmp_path_factory.mktemp("unbroken")
    write_job(folder / "job.ini", tiny_base, tiny_data, folder / "run")
    train(folder / "job.ini")
    return folder / "run" / "results.h5"


def test_four_ranks_over_both_nodes(job: Job, unbroken: Path) -> None:
    ended = job.wait(job.submit("--nodes", 2))
    assert (ended.state, ended.code) == ("COMPLETED", 0), job.log()
    assert sorted(place.node for place in job.places()) == ["n1", "n1", "n2", "n2"]
    assert [place.rank for place in job.places()] == [0, 1, 2, 3]
    check_equal(job.output / "results.h5", unbroken)


def test_a_gpu_for_every_rank(job: Job) -> None:
    ended = job.wait(job.sbatch("many-nodes.sh", "--rounds", 1, options=("--nodes=2", "--cpus-per-task=1")))
    assert ended.state == "COMPLETED", job.log()
    given = [(place.node, place.gpu) for place in job.places()]
    assert len(set(given)) == 4 and {gpu for _, gpu in given} <= {"0", "1", "2", "3"}


def test_big_and_small_allocations_in_one_run(job: Job) -> None:
    users = ("--method", "comigs-1gxs", "--experts", "4,2,1,1")
    number = job.submit("--components", "2,2", *users, "--rounds", 2)
    components = job.cluster.wait(number)
    assert [part.state for part in components] == ["COMPLETED"] * 2, job.log()
    with h5py.File(job.output / "results.h5") as file:
        assert list(file["users/experts"]) == [4, 2, 1, 1]
        assert file["perplexity/test"].shape == (3, 4)
        assert np.isfinite(file["perplexity/test"][2]).all()


def test_ranks_know_the_cores_of_their_component(job: Job) -> None:
    number = job.sbatch("heterogeneous.sh", "--rounds", 1)
    assert [part.state for part in job.cluster.wait(number)] == ["COMPLETED"] * 2, job.log()
    assert [(place.rank, place.cpus) for place in job.places()] == [(0, "4"), (1, "4"), (2, "1"), (3, "1")]


@pytest.mark.parametrize("rounds, state, code", [("1", "COMPLETED", 0), ("-1", "FAILED", 2)])
def test_an_srun_that_stays_does_not_hold_the_job(job: Job, rounds: str, state: str, code: int) -> None:
    stays = job.folder / "srun"  # as Slurm's own sometimes does after the ranks of a heterogeneous job
    stays.write_text(f'#!/bin/bash\n{shutil.which("srun")} "$@"\nexec sleep 600\n')
    stays.chmod(0o755)
    (job.folder / "site.sh").write_text(SITE + f"enter() {{ PATH={job.folder}:$PATH; }}\n")
    options = ("--cpus-per-task=1", ":", "--cpus-per-task=1")
    leader = job.cluster.wait(job.sbatch("heterogeneous.sh", "--rounds", rounds, options=options))[0]
    assert (leader.state, leader.code) == (state, code), job.log()
    assert "all ranks have left, but srun had not" in job.log()


def test_a_signal_to_the_shell_around_a_rank_reaches_it(tmp_path: Path) -> None:
    # Where Slurm tracks processes by control groups it signals nothing but its own child.
    rank = subprocess.Popen(
        [ROOT / "slurm" / "rank.sh", tmp_path, "bash", "-c", "trap 'exit 3' USR1; echo up; while :; do sleep 0.1; done"],
        env=os.environ | {"SLURM_PROCID": "2"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert rank.stdout is not None and rank.stdout.readline() == "up\n"
    rank.send_signal(signal.SIGUSR1)
    assert rank.wait(60) == 3
    assert (tmp_path / "rank-2").read_text() == "3\n"


def test_an_array_of_methods_and_seeds(job: Job) -> None:
    number = job.submit("--methods", "comigs-1g1s,fedavg", "--seeds", 2, "--rounds", 1)
    tasks = job.cluster.wait(number)
    assert [task.state for task in tasks] == ["COMPLETED"] * 4, job.log()
    for method in ("comigs-1g1s", "fedavg"):
        for seed in (0, 1):
            with h5py.File(job.output / f"{method}-seed{seed}" / "results.h5") as file:
                assert (file.attrs["method"], file.attrs["seed"]) == (method, seed)


def test_a_component_that_is_told_to_leave_requeues_all(job: Job) -> None:
    number = job.submit("--components", "2,2", hold="3")
    job.wait_until_held(number, ranks=1)
    job.cluster.run("scancel", "--signal=USR1", number)
    assert [part.state for part in job.cluster.wait(number)] == ["COMPLETED"] * 2, job.log()
    assert [place.restart for place in job.places()] == [0] * 4 + [1] * 4


def test_a_task_of_an_array_is_requeued_alone(job: Job) -> None:
    number = job.submit("--methods", "comigs-1g1s", "--seeds", 2, hold=ALL)
    for seed in (0, 1):
        job.wait_until_held(number, job.output / f"comigs-1g1s-seed{seed}")
    for task, restarts in (("1", ["0", "1"]), ("0", ["1", "1"])):
        job.cluster.run("scancel", "--signal=USR1", f"{number}_{task}")
        job.cluster.wait_for("its requeue", lambda: job.restarts(number) == restarts)  # noqa: B023
    assert [task.state for task in job.cluster.wait(number)] == ["COMPLETED"] * 2, job.log()


def test_a_killed_rank_ends_the_job_soon(job: Job) -> None:
    number = job.submit("--nodes", 2, kill="1")
    ended = job.wait(number)
    gone = time.time()
    assert (ended.state, ended.code, ended.restarts) == ("FAILED", 137, 0), job.log()
    assert gone - float((job.folder / "places.killed").read_text()) < 60
    with h5py.File(job.output / "results.h5") as file:
        assert file["perplexity/test"].shape[0] >= 1


def test_bad_input_is_not_requeued(job: Job) -> None:
    ended = job.wait(job.sbatch("one-node.sh", "--rounds", "-1"))
    assert (ended.state, ended.code, ended.restarts) == ("FAILED", 2, 0)
    assert "comigs: --rounds" in job.log()


def test_a_cancelled_job_stays_cancelled(job: Job) -> None:
    number = job.submit(hold=ALL)
    job.wait_until_held(number)
    job.cluster.run("scancel", number)
    ended = job.wait(number)
    assert (ended.state, ended.restarts) == ("CANCELLED", 0), job.log()
    assert "slurm: interrupted; Slurm ends the job itself" in job.log()


def test_restarts_come_to_an_end(job: Job) -> None:
    (job.folder / "site.sh").write_text(SITE + "restarts=0\n")
    number = job.submit(hold=ALL)
    job.wait_until_held(number)
    job.cluster.run("scancel", "--signal=USR1", number)
    ended = job.wait(number)
    assert (ended.state, ended.code, ended.restarts) == ("FAILED", 3, 0), job.log()
    assert "not requeued: this was restart 0 of 0" in job.log()


def test_ranks_by_mpirun_where_srun_has_no_pmix(job: Job, unbroken: Path) -> None:
    (job.folder / "site.sh").write_text(SITE + "launcher=mpirun\n")
    for name, value in MPI_ENVIRONMENT.items():
        job.cluster.environment.setdefault(name, value)
    number = job.submit("--nodes", 2, hold=ALL)
    job.wait_until_held(number)
    job.cluster.run("scancel", "--batch", "--signal=USR1", number)
    ended = job.wait(number)
    assert (ended.state, ended.restarts) == ("COMPLETED", 1), job.log()
    check_equal(job.output / "results.h5", unbroken)


def test_submitted_in_a_task_of_an_array_it_is_requeued_and_the_array_is_not(
    job: Job, unbroken: Path
) -> None:
    # With options that no job may have beside its own; in a step, which has more variables.
    options = ("--array=3", "--ntasks=1", "--mem=500M", "--gpus-per-task=1")
    outer, number = job.submit_within(*options, hold=ALL)
    job.wait_until_held(number)
    job.cluster.run("scancel", "--signal=USR1", number)
    ended = job.wait(number)
    assert (ended.state, ended.code, ended.restarts) == ("COMPLETED", 0, 1), job.log()
    check_equal(job.output / "results.h5", unbroken)
    (task,) = job.cluster.records(outer)
    assert (task["JobState"], task["Restarts"]) == ("RUNNING", "0")


def test_what_the_site_file_loads_reaches_ranks_where_sbatch_exports_nothing(job: Job) -> None:
    loaded = f"export PLACES={job.folder}/places OMP_NUM_THREADS=1 OMPI_MCA_btl_tcp_if_include=lo"
    (job.folder / "site.sh").write_text(f"{SITE}options=(--export=NONE)\nenter() {{ {loaded}; }}\n")
    number = job.submit("--components", "2,2", "--rounds", 1)
    assert [part.state for part in job.cluster.wait(number)] == ["COMPLETED"] * 2, job.log()
    assert [place.rank for place in job.places()] == [0, 1, 2, 3]


def test_suspended_longer_than_ranks_wait_for_each_other_it_goes_on(job: Job) -> None:
    # The first user has so much more to do that the others wait for it nearly all the time.
    work = ("--local-steps", "600,5,5,5", "--rounds", 3, "--evaluate-every", 3)
    number = job.submit("--patience", 30, *work)
    job.cluster.wait_for("the first round", lambda: re.search("^ *0/", job.log(), re.M) is not None)
    time.sleep(0.5)
    job.cluster.run("scontrol", "suspend", number)
    time.sleep(33)
    job.cluster.run("scontrol", "resume", number)
    ended = job.wait(number)
    assert (ended.state, ended.code, ended.restarts) == ("COMPLETED", 0, 0), job.log()


@pytest.mark.parametrize("mpi", ["none", "pmix", "pmi2"])
def test_commands_of_one_process_in_the_shell_of_a_step(job: Job, unbroken: Path, mpi: str) -> None:
    run = shutil.copytree(unbroken.parent, job.folder / "copy")  # its results get what route finds
    route = f"{executable()} route {run} --tokens 8"
    step = ("srun", "--ntasks=1", "--mem-per-cpu=500M", f"--mpi={mpi}")
    said = job.cluster.run(*step, "bash", "-c", f"{executable()} methods && {route} && {route}")
    assert "comigs-1g1s" in said and said.count("mean gate weight") == 2


@pytest.mark.parametrize("mpi", ["none", "pmix"])
def test_mpirun_in_the_shell_of_a_step(job: Job, unbroken: Path, mpi: str) -> None:
    # As jobs.sweep and jobs/quickstart.sh call it; the step has one task, of two cores.
    step = ("srun", "--ntasks=1", "--cpus-per-task=2", "--mem-per-cpu=800M", f"--mpi={mpi}")
    mpirun = f'eval "$(bash setup.sh --env)" && mpirun -n 4 {executable()} train {job.file}'
    job.cluster.run(*step, "bash", "-c", mpirun)
    check_equal(job.output / "results.h5", unbroken)


def test_a_time_limit_requeues_and_the_end_is_that_of_an_unbroken_run(
    limited: tuple[Job, str], unbroken: Path
) -> None:
    job, number = limited
    ended = job.wait(number)
    assert (ended.state, ended.code, ended.restarts) == ("COMPLETED", 0, 1), job.log()
    assert "slurm: interrupted; the job goes back into the queue" in job.log()
    assert [place.restart for place in job.places()] == [0] * 4 + [1] * 4
    check_equal(job.output / "results.h5", unbroken)


def test_a_failed_node_is_left_and_the_end_is_that_of_an_unbroken_run(job: Job, unbroken: Path) -> None:
    number = job.submit("--nodes", 2, hold=ALL)
    job.wait_until_held(number)
    assert job.cluster.control("fail", "n2").returncode == 0
    job.cluster.wait_for("Slurm to see it", lambda: job.cluster.records(number)[0]["JobState"] == "PENDING")
    repaired = job.cluster.control("repair", "n2")
    assert repaired.returncode == 0, repaired.stderr
    ended = job.wait(number)
    assert (ended.state, ended.code, ended.restarts) == ("COMPLETED", 0, 1), job.log()
    assert {(place.restart, place.node) for place in job.places()} >= {(1, "n1"), (1, "n2")}
    check_equal(job.output / "results.h5", unbroken)


def test_a_second_cluster_in_the_same_folder_is_refused(cluster: Cluster) -> None:
    done = cluster.control("start")
    assert done.returncode == 2 and "a cluster is there already" in done.stderr
    names = re.findall(r"^\w+", cluster.control("status").stdout, re.M)
    assert names[:4] == ["munged", "slurmctld", "n1", "n2"]


def test_stop_ends_what_a_failure_left_and_nobody_else(cluster: Cluster, tmp_path: Path) -> None:
    state = Path(tempfile.mkdtemp(prefix="comigs-"))
    other = Cluster(state, tmp_path)
    other.start()
    job = other.submit(["sbatch", "--wrap", "sleep 300", "--output", "/dev/null"])
    other.wait_for("the job", lambda: other.records(job)[0]["JobState"] == "RUNNING")
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        os.kill(process_in(state, "slurmctld"), signal.SIGKILL)
        assert other.control("status").returncode == 1
        munged = process_in(state, "munged")
        # As if another process had got the number of one of ours.
        (state / "munged.process").write_text(f"{bystander.pid} 1\n")
        other.stop()
        assert bystander.poll() is None and not state.exists()
        assert [pid for pid in processes_about(state) if pid != munged] == []
        os.kill(munged, signal.SIGTERM)
    finally:
        bystander.kill()
        bystander.wait()
    assert cluster.control("status").returncode == 0


def process_in(state: Path, name: str) -> int:
    return int((state / f"{name}.process").read_text().split()[0])


def processes_about(state: Path) -> list[int]:
    """Those with the folder in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue  # it has ended
            if str(state) in line:
                found.append(int(entry.name))
    return found
