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
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from built_program import ROOT
from slurm_cluster import Cluster, Ended
from tiny import MPI_ENVIRONMENT, executable, train

ALL = "0 1 2 3"
SUBMIT = ROOT / "slurm" / "submit"
SITE = """
partition= account= qos= options=() gpus_per_task=0 cpus_per_task=1 longest= lead=10 restarts=3 launcher=pmix
enter() { :; }
"""
# comigs, but every rank first writes down where it is. In the job's first start the ranks HOLD stop at the
# first checkpoint, on a machine of any speed, until they are told to leave, and rank KILL is killed there.
PROGRAM = """\
#!/bin/bash
[ "$1" != plan ] || exec COMIGS "$@"
told="${SLURM_CPUS_PER_TASK:--} ${CUDA_VISIBLE_DEVICES:--} ${SLURM_RESTART_COUNT:-0}"
echo "$SLURM_PROCID $SLURMD_NODENAME $told" >>"$PLACES"
rank=${OMPI_COMM_WORLD_RANK:-$SLURM_PROCID}
if [[ -n $SLURM_RESTART_COUNT || " $HOLD $KILL " != *" $rank "* ]]; then
    exec COMIGS "$@"
fi
for word; do
    [ "$last" != --output ] || OUTPUT=$word
    last=$word
done
COMIGS "$@" &
trap 'kill -USR1 $!; kill -CONT $!' USR1
trap 'kill -TERM $!; kill -CONT $!' TERM
until compgen -G "$OUTPUT/checkpoints/*/manifest.json" >/dev/null; do sleep 0.02; done
if [ "$rank" = "$KILL" ]; then
    kill -KILL $!
    date +%s.%N >"$PLACES.killed"
else
    kill -STOP $!
    touch "$OUTPUT/held-$rank"
fi
while kill -0 $! 2>/dev/null; do
    wait $!
    code=$?
done
exit $code
"""


@dataclass(frozen=True)
class Place:
    """Where a rank ran, and what Slurm told it."""

    rank: int
    node: str
    cpus: str
    gpu: str
    restart: int


@dataclass(frozen=True)
class Job:
    """A job file, and what its runs leave."""

    cluster: Cluster
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "job.ini"

    @property
    def output(self) -> Path:
        return self.folder / "run"

    def submit(self, *arguments: object, hold: str = "", kill: str = "") -> str:
        return self._submitted([SUBMIT, self.file, "--site", self.folder / "site.sh", "--comigs",
                                self.folder / "comigs", *arguments], hold, kill)  # fmt: skip

    def sbatch(self, script: str, *arguments: object, options: tuple[str, ...] = ()) -> str:
        """One of the scripts of slurm/, its log beside the job."""
        log = f"--output={self.folder}/%a-%j.log"
        return self._submitted(
            ["sbatch", log, *options, ROOT / "slurm" / script, self.file, *arguments], "", ""
        )

    def _submitted(self, command: list[object], hold: str, kill: str) -> str:
        variables = {
            "PLACES": str(self.folder / "places"),
            "OUTPUT": str(self.output),
            "HOLD": hold,
            "KILL": kill,
            "COMIGS": str(self.folder / "comigs"),
            "COMIGS_SITE": str(self.folder / "site.sh"),
            "OMP_NUM_THREADS": "1",
            "OMPI_MCA_mpi_yield_when_idle": "1",
        }
        return self.cluster.submit(command, **variables)

    def wait(self, number: str) -> Ended:
        return self.cluster.wait(number)[0]

    def wait_until_held(self, number: str, output: Path | None = None, ranks: int = 4) -> None:
        """All of them: one that is signalled before it stops would stop for ever."""

        def is_held() -> bool:
            states = {record["JobState"] for record in self.cluster.records(number)}
            assert states <= {"PENDING", "RUNNING", "CONFIGURING"}, self.log()
            return len([*(output or self.output).glob("held-*")]) == ranks

        self.cluster.wait_for("the first checkpoint", is_held)

    def restarts(self, number: str) -> list[str]:
        """Of an array's tasks, in their order."""
        records = self.cluster.records(number)
        return [record["Restarts"] for record in sorted(records, key=lambda record: record["ArrayTaskId"])]

    def places(self) -> list[Place]:
        """By start, then by rank."""
        lines = [line.split() for line in (self.folder / "places").read_text().splitlines()]
        found = [Place(int(r), node, cpus, gpu, int(start)) for r, node, cpus, gpu, start in lines]
        return sorted(found, key=lambda place: (place.restart, place.rank))

    def log(self) -> str:
        files = [*self.folder.glob("*.log"), *self.output.glob("slurm-*.log")]
        return "\n".join(file.read_text() for file in files)


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


def make_job(cluster: Cluster, folder: Path, base: Path, data: Path) -> Job:
    found = Job(cluster, folder)
    write_job(found.file, base, data, found.output)
    (folder / "site.sh").write_text(SITE)
    program = folder / "comigs"
    program.write_text(PROGRAM.replace("COMIGS", executable()))
    program.chmod(0o755)
    return found


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


def write_job(file: Path, base: Path, data: Path, output: Path) -> None:
    file.write_text(
        f"[run]\noutput = {output}\nrounds = 8\nthreads = 1\ndevice = cpu\n[data]\nfolder = {data}\n"
        f"[model]\nfolder = {base}\n[method]\nname = comigs-1g1s\n"
        "[user]\nexperts = 2\nbatch_sequences = 2\nlocal_steps = 5\ncontext_tokens = 16\n"
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_data: Path) -> Path:
    """The results of the same job, run by mpirun in one go."""
    folder = tmp_path_factory.mktemp("unbroken")
    write_job(folder / "job.ini", tiny_base, tiny_data, folder / "run")
    train(folder / "job.ini")
    return folder / "run" / "results.h5"


def data_of(results: Path) -> dict[str, np.ndarray]:
    """All arrays but those of what a run cost."""
    found: dict[str, np.ndarray] = {}

    def keep(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(("time/", "memory/")):
            found[name] = item[()]

    with h5py.File(results) as file:
        file.visititems(keep)
    return found


def check_equal(results: Path, expected: Path) -> None:
    found, wanted = data_of(results), data_of(expected)
    assert found.keys() == wanted.keys()
    different = [name for name in wanted if found[name].tobytes() != wanted[name].tobytes()]
    different = [
        name for name in different if found[name].dtype != object or list(found[name]) != list(wanted[name])
    ]
    assert different == []
    assert found["perplexity/test"].shape[0] == 9


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


def test_a_killed_rank_ends_the_job_within_ten_seconds(job: Job) -> None:
    number = job.submit("--nodes", 2, kill="1")
    ended = job.wait(number)
    gone = time.time()
    assert (ended.state, ended.code, ended.restarts) == ("FAILED", 137, 0), job.log()
    assert gone - float((job.folder / "places.killed").read_text()) < 10
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
    job.cluster.wait_for(
        "Slurm to see it", lambda: job.cluster.records(number)[0]["JobState"] == "PENDING"
    )
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
