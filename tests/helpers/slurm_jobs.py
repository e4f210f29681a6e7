"""Jobs of comigs on the test cluster: what they run, where their ranks were, what their runs left."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from tests.helpers.built_program import ROOT
from tests.helpers.slurm_cluster import Cluster, Ended
from tests.helpers.tiny import executable

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
        return self._submitted([*self._command(), *arguments], hold, kill)

    def submit_within(self, *options: str, hold: str = "") -> tuple[str, str]:
        """In a step of another job, with these options of sbatch. The numbers of that job, which stays, and of
        the new one."""
        said, outer = self.folder / "said", self.folder / "outer.sh"
        command = shlex.join(map(str, self._command()))
        outer.write_text(
            f'#!/bin/bash\n[ -n "$SLURM_RESTART_COUNT" ] || srun --mpi=pmix {command} >{said}\nexec sleep 600\n'
        )
        number = self._submitted(
            ["sbatch", f"--output={self.folder}/outer.log", "--requeue", *options, outer], hold, ""
        )
        self.cluster.wait_for("the job within", lambda: said.exists() and "\n" in said.read_text())
        return number, said.read_text().split()[-1]

    def _command(self) -> list[object]:
        return [SUBMIT, self.file, "--site", self.folder / "site.sh", "--comigs", self.folder / "comigs"]

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


def make_job(cluster: Cluster, folder: Path, base: Path, data: Path) -> Job:
    found = Job(cluster, folder)
    write_job(found.file, base, data, found.output)
    (folder / "site.sh").write_text(SITE)
    program = folder / "comigs"
    program.write_text(PROGRAM.replace("COMIGS", executable()))
    program.chmod(0o755)
    return found


def write_job(file: Path, base: Path, data: Path, output: Path) -> None:
    file.write_text(
        f"[run]\noutput = {output}\nrounds = 8\nthreads = 1\ndevice = cpu\n[data]\nfolder = {data}\n"
        f"[model]\nfolder = {base}\n[method]\nname = comigs-1g1s\n"
        "[user]\nexperts = 2\nbatch_sequences = 2\nlocal_steps = 5\ncontext_tokens = 16\n"
    )


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
