"""slurm/submit with stand-ins for `comigs plan` and sbatch: the script it writes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from slurm.needs import UserNeeds, components, sizes_by_need
from slurm.site import minutes
from slurm.submit import main
from tests.helpers.built_program import ROOT, read_job_files
from tests.helpers.submit import GIB, MIB, SITE, dry, here, options, plan, program, submit

__all__ = ["here"]  # the fixture is for every test here


def test_one_component_for_users_alike(capsys: pytest.CaptureFixture[str]) -> None:
    text = dry(capsys, "--rounds", "3")
    assert options(text) == [
        [
            "--job-name=a_5_",
            "--output='runs/a 5%%/slurm-%j.log'",
            "--open-mode=append",
            "--ntasks=4",
            "--cpus-per-task=4",
            "--mem-per-cpu=320M",  # 1.25 GiB for four cores
            "--time=18",  # one and a half times ten minutes, the lead, and one for rounding
            "--signal=USR1@120",
            "--requeue",
            "--partition=gpu",
            "--account=me",
        ]
    ]
    assert text.splitlines()[-1] == "federate bin/comigs train job.ini --rounds 3"
    assert Path("calls").read_text() == "plan job.ini --rounds 3 --json\n"


def test_submitted_with_a_folder_for_its_log_and_a_copy_of_the_script() -> None:
    assert submit("--output", "runs/b") == 0
    assert Path("submitted").read_text() == Path("runs/b/slurm.sh").read_text()
    assert "--output=runs/b/slurm-%j.log" in Path("submitted").read_text()


def test_a_script_of_somebody_else_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    script = Path("runs/b/slurm.sh")
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text("#!/bin/bash\necho mine\n")
    assert submit("--output", "runs/b") == 2
    assert "runs/b/slurm.sh: found another file" in capsys.readouterr().err
    assert script.read_text() == "#!/bin/bash\necho mine\n" and not Path("submitted").exists()


def test_users_with_unlike_needs_become_components(capsys: pytest.CaptureFixture[str]) -> None:
    needs = plan([4 * GIB, 3 * GIB, GIB, GIB], [8e12, 8e12, 2e12, 2e12])
    Path("plan.json").write_text(json.dumps(needs))
    big, small = options(dry(capsys))
    assert {"--ntasks=2", "--cpus-per-task=4", "--mem-per-cpu=1280M"} <= set(big)
    assert {"--ntasks=2", "--cpus-per-task=1", "--mem-per-cpu=1280M"} <= set(small)
    for both in ("--requeue", "--signal=USR1@120", "--time=18", "--partition=gpu", "--account=me"):
        assert both in big and both in small


def test_components_as_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    found = options(dry(capsys, "--components", "1,3", "--nodes", "1"))
    assert [entry for part in found for entry in part if entry.startswith(("--ntasks", "--nodes"))] == [
        "--ntasks=1",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--ntasks=3",
        "--nodes=1",
        "--ntasks-per-node=3",
    ]


def test_a_gpu_for_every_rank(capsys: pytest.CaptureFixture[str]) -> None:
    Path("site.sh").write_text(SITE + "gpus_per_task=1\noptions=('--constraint=a100|h100' --exclusive)\n")
    (found,) = options(dry(capsys))
    assert "--gpus-per-task=1" in found
    assert found[-2:] == ["'--constraint=a100|h100'", "--exclusive"]
    assert Path("calls").read_text().split()[-3:] == ["--device", "cuda", "--json"]
    dry(capsys, "--device=cpu")
    assert Path("calls").read_text().split()[-2:] == ["--device=cpu", "--json"]
    Path("job.ini").write_text("[run]\noutput = run\ndevice = cpu\n")
    dry(capsys)
    assert Path("calls").read_text().split()[-2:] == ["job.ini", "--json"]


@pytest.mark.parametrize("limit", ["--time=2", "longest"])
def test_a_limit_within_the_lead_gets_nowhere(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("site.sh").write_text(SITE + ("longest=2\n" if limit == "longest" else ""))
    assert submit(*([] if limit == "longest" else [limit])) == 2
    assert "a time limit of 2 minutes: " in capsys.readouterr().err
    assert not Path("submitted").exists()


def test_an_array_of_methods_and_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    text = dry(capsys, "--methods", "fedavg,local", "--seeds", "2", "--rounds=3", "--seed", "7")
    assert "#SBATCH --array=0-3" in text and "slurm-%A_%a.log" in text
    assert [line for line in text.splitlines() if "federate" in line] == [
        f"{task}) federate bin/comigs train job.ini --rounds=3 --method {method} --seed {seed}"
        f" --output 'runs/a 5%/{method}-seed{seed}' ;;"
        for task, (method, seed) in enumerate([("fedavg", 0), ("fedavg", 1), ("local", 0), ("local", 1)])
    ]
    assert len(Path("calls").read_text().splitlines()) == 2  # seeds need the same


def test_an_array_of_seeds_keeps_the_job_files_method(capsys: pytest.CaptureFixture[str]) -> None:
    text = dry(capsys, "--seeds", "1")
    assert "0) federate bin/comigs train job.ini --seed 0 --output 'runs/a 5%/seed0' ;;" in text


def test_a_run_longer_than_the_site_allows_is_cut_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("site.sh").write_text(SITE + "longest=0:10:00\n")
    assert submit("--dry-run") == 0
    told = capsys.readouterr()
    assert "#SBATCH --time=10\n" in told.out and "planned are 18 minutes" in told.err


def test_without_pmix_the_batch_shell_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("site.sh").write_text(SITE + "launcher=mpirun\n")
    Path("plan.json").write_text(json.dumps(plan([9 * GIB, GIB])))
    (found,) = options(dry(capsys))  # one component, as mpirun needs it
    assert "--signal=B:USR1@120" in found and "--ntasks=2" in found


def test_what_cannot_fit_is_said_before_the_launch(capsys: pytest.CaptureFixture[str]) -> None:
    problem = "user 0 needs 20 GiB of 16: --micro-batch-sequences 4 would fit"
    Path("plan.json").write_text(json.dumps({**plan([GIB]), "problems": [problem]}))
    Path("code").write_text("2")
    assert submit() == 2
    assert capsys.readouterr().err == f"error: comigs plan: {problem}\n"
    assert not Path("submitted").exists() and not Path("runs").exists()


def test_what_only_this_machine_cannot_hold_is_submitted_on_demand() -> None:
    content = {**plan([GIB]), "problems": ["all users on one node need 20 GiB"], "seconds": {"total": None}}
    Path("plan.json").write_text(json.dumps(content))
    Path("code").write_text("2")
    assert submit("--force", "--time", "1:00:00") == 0
    assert "#SBATCH --time=60\n" in Path("submitted").read_text()


def test_time_that_cannot_be_measured_here(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plan.json").write_text(json.dumps({**plan([GIB]), "seconds": {"total": None}}))
    assert submit() == 2
    assert "comigs plan measures no time here" in capsys.readouterr().err
    Path("site.sh").write_text(SITE + "longest=1-0\n")
    assert "--time=1440" in options(dry(capsys))[0]


def test_what_plan_refuses_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = "echo \"comigs: --rounds: found 'x', expected a number\" >&2; exit 2"
    program("comigs", f"{read_job_files()}\n{refusal}")
    assert submit("--rounds", "x") == 2
    assert capsys.readouterr().err == "error: comigs plan: --rounds: found 'x', expected a number\n"


def test_what_sbatch_refuses_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    program("sbatch", 'echo "sbatch: error: invalid partition specified: gpu" >&2; exit 1')
    assert submit() == 2
    assert "sbatch refused the script: sbatch: error: invalid partition" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--components", "2,3"], "--components 2,3: expected numbers of users that add up to 4"),
        (["--components", "2,x"], "--components 2,x: expected numbers of users"),
        (["--components", "2,2", "--seeds", "2"], "--components: Slurm has no arrays of heterogeneous jobs"),
        (["--seeds", "0"], "--seeds 0: expected 1 to 1,000"),
        (["--methods", "a,,b"], "--methods a,,b: expected names separated by commas"),
        (["--methods", "a,b,a"], "--methods a,b,a: 'a' stands there twice, expected once"),
        (["--time", "soon"], "--time soon: expected a time limit"),
        (["--nodes", "0"], "--nodes 0: expected at least 1"),
        (["--site", "none.sh"], "none.sh: no such file, expected a site file"),
    ],
)
def test_mistakes(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(*arguments) == 2
    assert told in capsys.readouterr().err
    assert not Path("submitted").exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("cpus_per_task=many", "cpus_per_task=many, expected a whole number of at least 1"),
        ("lead=0", "lead=0, expected a whole number of at least 1"),
        ("longest=1h", "longest=1h: expected a time limit"),
        ("unset qos", "qos: unbound variable"),
        ("exit 3", "exit code 3"),
    ],
)
def test_mistakes_in_the_site_file(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("site.sh").write_text(f"{SITE}{line}\n")
    assert submit() == 2
    assert told in capsys.readouterr().err


def test_a_job_file_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["none.ini"]) == 2
    assert capsys.readouterr().err.startswith("error: none.ini: no such file, expected a job file")
    Path("job.ini").write_text("[run]\nrounds = 1\n")
    assert submit() == 2
    assert "expected the folder of the results" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("1:30", 2), ("02:00:00", 120), ("1-00", 1440), ("1-02:30", 1590), ("2-00:00:01", 2881)],
)
def test_time_limits_as_slurm_writes_them(text: str, expected: int) -> None:
    assert minutes("", text) == expected


def test_components_keep_the_order_of_ranks() -> None:
    small, big = UserNeeds(GIB, 1e12), UserNeeds(4 * GIB, 1e12)
    assert sizes_by_need([big, big, small, small]) == [2, 2]
    assert sizes_by_need([small, big, small]) == [1, 1, 1]
    # Slowly growing needs do not creep into one component.
    growing = [UserNeeds(GIB * 1.2**i, 1e12) for i in range(6)]
    assert sizes_by_need(growing) == [3, 3]


def test_cores_follow_the_work() -> None:
    users = [UserNeeds(MIB, 8e12), UserNeeds(MIB, 3e12), UserNeeds(MIB, 0)]
    assert [part.cpus for part in components(users, [1, 1, 1], 8)] == [8, 3, 1]
    assert [part.cpus for part in components([UserNeeds(MIB, 0)], [1], 8)] == [8]


def test_the_executable_finds_its_package_from_anywhere() -> None:
    done = subprocess.run(
        [ROOT / "slurm/submit", "--help"], capture_output=True, text=True, check=False, cwd="bin"
    )
    assert done.returncode == 0 and "usage: slurm/submit" in done.stdout


SCRIPTS = sorted((ROOT / "slurm").glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("name", ["one-node", "many-nodes", "array", "heterogeneous", "pretrain"])
def test_scripts_submit_themselves_as_the_site_wants_it(name: str) -> None:
    Path("site.sh").write_text(SITE + "options=('--constraint=a100|h100')\n")
    program("sbatch", f"printf '%s\\n' \"$@\" >'{Path.cwd()}/submitted'")
    script = ROOT / "slurm" / f"{name}.sh"
    subprocess.run([script, "job.ini", "--rounds", "3"], cwd=ROOT, check=True)
    site = ["--partition=gpu", "--account=me", "--constraint=a100|h100"]
    words = Path("submitted").read_text().splitlines()
    assert words == [*site, str(script), "job.ini", "--rounds", "3"]


def test_the_test_cluster_explains_itself_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    script = ROOT / "slurm" / "test-cluster.sh"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "usage: slurm/test-cluster.sh" in done.stdout
    for words, told in (
        (["begin"], "unknown command 'begin'"),
        (["start", "--nodes", "3"], "unknown option '--nodes'"),
        (["start", "--cpus", "no"], "--cpus no: expected a number"),
        (["status", "--state", tmp_path / "none"], "no cluster is there"),
        (["start", "--state", ROOT / "slurm"], "found files, expected an empty folder"),
    ):
        done = subprocess.run([script, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and told in done.stderr
