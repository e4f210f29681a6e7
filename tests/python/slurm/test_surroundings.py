"""slurm/submit and its batch scripts where the surroundings are odd: called within a job, a site file that does more
than set values, locales, a controller that is away. Stand-ins of helpers.submit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import slurm.site
from tests.helpers.built_program import ROOT
from tests.helpers.submit import SITE, dry, here, program, submit

__all__ = ["here"]  # the fixture is for every test here too

# As Slurm 22.05 and Open MPI 4.1 set them for a step by `srun --mpi=pmix` in a task of an array, and a rank of mpirun.
OF_ANOTHER_JOB = """
SLURM_ARRAY_JOB_ID=1 SLURM_ARRAY_TASK_ID=3 SLURM_HET_SIZE=2 SLURM_JOB_ID_HET_GROUP_0=5 SLURM_JOB_ID=1 SLURM_JOBID=1
SLURM_MEM_PER_NODE=300 SLURM_MEM_PER_GPU=300 SLURM_GPUS_PER_TASK=1 SLURM_NTASKS_PER_NODE=1 SLURM_RESTART_COUNT=2
SLURM_STEP_ID=0 SLURM_STEPID=0 SLURM_CPU_BIND=quiet,map_cpu:0 SLURM_CPU_BIND_LIST=0 SLURM_MPI_TYPE=pmix
SLURM_WORKING_CLUSTER=c:127.0.0.1:20292:9728:109 SLURM_PMIXP_ABORT_AGENT_PORT=45985 SLURMD_NODENAME=n1 SRUN_DEBUG=3
SALLOC_PARTITION=old SBATCH_CPU_BIND=quiet SBATCH_MEM_BIND_LIST=0 CUDA_VISIBLE_DEVICES=3 GPU_DEVICE_ORDINAL=3
PMIX_RANK=0 PMIX_NAMESPACE=slurm.pmix.3.0 PMIX_SERVER_URI41=pmix-server.65;tcp4://127.0.0.1:56645
PMIX_SECURITY_MODE=native PMI_RANK=0 PMI_FD=8 PMI2_SPAWNED=0 OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=1
OMPI_MCA_ess=^singleton OMPI_MCA_ess_base_jobid=1818886145 OMPI_MCA_orte_hnp_uri=1818886144.0;tcp://192.0.2.2:44279
OMPI_MCA_orte_local_daemon_uri=1818886144.1;tcp://192.0.2.2:46255 OMPI_MCA_pmix=^s1,s2,cray,isolated
OMPI_UNIVERSE_SIZE=2 OMPI_COMMAND=sub.sh PRTE_LAUNCHED=1
"""
OF_THE_USER = """
SLURM_CONF=/etc/slurm.conf SLURM_CLUSTERS=c SLURM_TIME_FORMAT=relative OMPI_MCA_btl_tcp_if_include=lo
OMPI_ALLOW_RUN_AS_ROOT=1 PMIX_MCA_gds=hash SBATCH_EXPORT=NONE SBATCH_RESERVATION=course MODULEPATH=/sw OMP_PLACES=cores
"""


def words(text: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in text.split())


@pytest.fixture
def seen() -> Path:
    """Where sbatch leaves the environment it was called with."""
    program("sbatch", 'cat >submitted; env -0 >seen; echo "Submitted batch job 7"')
    return Path("seen")


def environment(file: Path) -> dict[str, str]:
    return dict(word.split("=", 1) for word in file.read_text().split("\0") if word)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_job_inherits_nothing_of_the_one_that_submits_it(
    seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, words(OF_ANOTHER_JOB) | words(OF_THE_USER))
    assert submit() == 0
    found = environment(seen)
    assert found.keys() & words(OF_ANOTHER_JOB).keys() == set()
    assert words(OF_THE_USER).items() <= found.items()
    assert {"PATH", "COMIGS_SITE"} <= found.keys()


def test_the_users_defaults_hold_where_the_script_is_silent(
    seen: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("site.sh").write_text(SITE + "options=(-C a100)\n")  # and a partition, but no qos
    names = ("SBATCH_PARTITION", "SBATCH_CONSTRAINT", "SBATCH_QOS", "SBATCH_WCKEY", "CUDA_VISIBLE_DEVICES")
    set_all(monkeypatch, dict.fromkeys(names, "mine"))
    assert submit() == 0
    assert environment(seen).keys() & set(names) == {"SBATCH_QOS", "SBATCH_WCKEY", "CUDA_VISIBLE_DEVICES"}
    assert "note" not in capsys.readouterr().err


def test_what_the_script_says_is_not_said_otherwise(
    seen: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("SBATCH_TIMELIMIT", "SBATCH_NO_REQUEUE", "SBATCH_OUTPUT", "SBATCH_WAIT", "SBATCH_ARRAY_INX")
    set_all(monkeypatch, dict.fromkeys(names, "5"))
    assert submit() == 0
    assert environment(seen).keys() & set(names) == set()
    assert f"note: {', '.join(sorted(names))}: not used" in capsys.readouterr().err


# Site files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "echo 'Loading openmpi/4.1'",
        "printf 'old\\0me\\0'; echo warning >&2",
        "printf 'Universit\\xe9\\n'",
        "set -e; cd /; set -- a b; mkdir -p /tmp",
        "read -r partition_of_input; cat",
        "sleep 3 &",
    ],
)
def test_a_site_file_may_do_more_than_set_values(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = dry(capsys)
    Path("site.sh").write_text(f"{line}\n{SITE}\n{line}\ntrue\n")
    assert dry(capsys) == expected


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("exit 0", "calls exit"),
        ("exec true", "calls exit"),
        ("false", "exit code 1"),
        ("set -e; false; true", "exit code 1"),
        ("if", "syntax error"),
        ("unset -f enter", "no function enter"),
        ("unset options; options='--exclusive --nice'", "options is no array"),
        ("partition=$'gpu\\n#SBATCH --begin=now'", "partition: found a line end or control character"),
        ("account=$'me\\e[31m'", "account: found a line end or control character"),
        ("options=(--comment=$'a\\nb')", "options: found a line end or control character"),
        ("partition='gpu long'", "partition=gpu long, expected one word"),
        ("while :; do sleep 0.1; done", "has not ended after 1 s"),
    ],
)
def test_mistakes_in_site_files(
    line: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "while" in line:
        monkeypatch.setattr(slurm.site, "_SECONDS_TO_READ", 1.0)
    Path("site.sh").write_text(f"{SITE}{line}\n")
    assert submit() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {Path.cwd()}/site.sh: ") and told in error and error.count("\n") == 1
    assert not Path("submitted").exists()


# Locales, names, outputs ------------------------------------------------------------------------------------


def run(
    *arguments: str | bytes, stdout: int = subprocess.PIPE, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "slurm.submit", "job.ini", "--comigs", "bin/comigs", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables, stdout=stdout, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip


LOCALES = [
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: "-".join(locale.values()))
@pytest.mark.parametrize("name", ["r/李".encode(), "r/é".encode("latin-1")], ids=["utf-8", "latin-1"])
def test_names_in_any_locale(locale: dict[str, str], name: bytes) -> None:
    printed = run("--output", name, "--dry-run", **locale)
    assert printed.returncode == 0, printed.stderr
    assert b"/slurm-%j.log" in printed.stdout and name + b"/slurm" in printed.stdout
    submitted = run("--output", name, **locale)
    assert (submitted.returncode, submitted.stdout) == (0, b"Submitted batch job 7\n"), submitted.stderr
    assert (
        Path("submitted").read_bytes() == printed.stdout == Path(os.fsdecode(name), "slurm.sh").read_bytes()
    )


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: "-".join(locale.values()))
def test_what_programs_say_in_any_encoding(locale: dict[str, str]) -> None:
    program("comigs", "printf 'comigs: no \\351 \\346\\235\\216' >&2; exit 2")
    done = run("--dry-run", **locale)
    assert done.returncode == 2 and done.stderr.startswith(b"error: comigs plan: no ")
    assert done.stderr.count(b"\n") == 1


def test_an_output_that_takes_nothing() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    done = run("--dry-run", stdout=full)
    os.close(full)
    assert (done.returncode, done.stderr) == (1, b"error: input or output: No space left on device\n")
    read, write = os.pipe()
    os.close(read)
    done = run("--dry-run", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_folder_that_no_line_can_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert submit("--output", "runs/a\n#SBATCH --begin=now") == 2
    assert "the folder of the results: found a line end" in capsys.readouterr().err


# The batch script -------------------------------------------------------------------------------------------


@pytest.fixture
def batch(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """A command that runs the batch script, whose ranks leave with code 3, and leaves what scontrol was told."""
    program("srun", 'env -0 >ranks; while [[ $1 = -* ]]; do shift; done; "$@"; exit 3')
    program("scontrol", 'echo "$*" >>told; [[ $1 != show ]] || cat record')
    Path("record").write_text(
        "JobId=7 ArrayJobId=7 ArrayTaskId=1 JobState=PENDING Reason=None\n"
        "JobId=8 JobName=a JobState=RUNNING Reason=None Restarts=0 BatchFlag=1\n"
    )
    Path("script").write_text(dry(capsys))
    return ["bash", "script"]


def in_job(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    numbers = {"SLURM_JOB_ID": "8", "PATH": f"{Path.cwd()}/bin:{os.environ['PATH']}"}
    return subprocess.run(
        command, env=os.environ | numbers | variables, stdin=subprocess.PIPE, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def requeued() -> list[str]:
    lines = Path("told").read_text().splitlines()
    return [line.removeprefix("requeue ") for line in lines if line.startswith("requeue")]


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ("JobState=RUNNING", "8"),
        ("ArrayJobId=4 ArrayTaskId=2 JobState=RUNNING", "4_2"),
        ("HetJobId=7 HetJobOffset=1 JobState=RUNNING", "7"),
        ("JobState=COMPLETING Reason=TimeLimit", "8"),
    ],
)
def test_requeued_is_the_job_on_record_not_the_one_around_it(
    batch: list[str], entries: str, name: str
) -> None:
    other = "JobId=1 ArrayJobId=1 ArrayTaskId=3 JobState=RUNNING BatchFlag=1\n"
    Path("record").write_text(f"{other}JobId=8 {entries} Restarts=0 BatchFlag=1\n")
    leaked = words("SLURM_ARRAY_JOB_ID=1 SLURM_ARRAY_TASK_ID=3 SLURM_RESTART_COUNT=5 SLURM_HET_JOB_ID=2")
    assert in_job(batch, **leaked).returncode == 3
    assert requeued() == [name]


def test_a_batch_script_submitted_by_hand_within_another_job_is_no_part_of_it(batch: list[str]) -> None:
    leaked = words(
        "SLURM_HET_SIZE=2 SLURM_NTASKS_HET_GROUP_0=1 SLURM_RESTART_COUNT=5 SLURM_STEP_ID=0 SLURM_MEM_PER_GPU=3"
    )
    # Slurm tells a batch script the number of its own process.
    in_job(["bash", "-c", "export SLURM_TASK_PID=$$; exec bash script"], **leaked)
    assert environment(Path("ranks")).keys() & leaked.keys() == set()
    assert requeued() == ["8"]


@pytest.mark.parametrize(
    ("record", "step"), [("JobState=RUNNING BatchFlag=0", None), ("JobState=RUNNING BatchFlag=1", "0")]
)
def test_a_job_around_an_interactive_shell_is_not_requeued(
    batch: list[str], record: str, step: str | None
) -> None:
    Path("record").write_text(f"JobId=8 {record} Restarts=0\n")
    done = in_job(batch, **({"SLURM_STEP_ID": step} if step else {}))
    assert done.returncode == 3 and "stays as it is" in done.stdout
    assert requeued() == []


def test_a_controller_that_is_away_is_waited_for(batch: list[str]) -> None:
    program("sleep", "echo slept >>told")
    program("scontrol", 'echo "$*" >>told; [ "$(grep -c slept told)" -ge 3 ] || exit 1; cat record')
    assert in_job(batch).returncode == 3
    assert requeued() == ["8"]


def test_a_signal_before_the_ranks_are_there_requeues(batch: list[str]) -> None:
    Path("site.sh").write_text(SITE + "enter() { kill -USR1 $$; }\n")
    assert in_job(batch).returncode == 3
    assert requeued() == ["8"] and not Path("ranks").exists()


def test_what_enter_sets_reaches_the_ranks_and_what_else_it_does_harms_nothing(batch: list[str]) -> None:
    enter = "enter() { export MODULE=loaded; set -u; set -f; cd /; cat; echo loading; }\n"
    Path("site.sh").write_text(f"{SITE}options=(); echo printed; set -eu; cd /\n{enter}")
    done = in_job(batch, SLURM_EXPORT_ENV="NONE")
    assert done.returncode == 3, done.stderr
    ranks = environment(Path("ranks"))
    assert (ranks["MODULE"], ranks["SLURM_EXPORT_ENV"], ranks["PWD"]) == ("loaded", "ALL", str(Path.cwd()))


@pytest.mark.parametrize(
    "line",
    [
        "exit 0",
        "set -e; false",
        "enter() { exit 0; }",
        "enter() { set -e; false; true; }",
        "unset -f enter",
        None,
    ],
)
def test_a_site_file_that_ends_the_job_is_named(batch: list[str], line: str | None) -> None:
    if line is None:
        Path("site.sh").unlink()
    else:
        Path("site.sh").write_text(f"{SITE}{line}\n")
    done = in_job(batch)
    assert done.returncode == 2 and f"slurm: {Path.cwd()}/site.sh: " in done.stdout
    assert not Path("ranks").exists()


def test_a_step_around_the_script_shares_its_resources(batch: list[str]) -> None:
    in_job(batch, SLURM_STEP_ID="0")
    assert environment(Path("ranks"))["SLURM_OVERLAP"] == "1"
