"""slurm/submit among stand-ins for `comigs plan` and sbatch, in a folder of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from slurm.submit import main
from tests.helpers.built_program import read_job_files

GIB, MIB = 2**30, 2**20
SITE = """
partition=gpu account=me qos= options=() gpus_per_task=0 cpus_per_task=4 longest= lead=120 restarts=3
launcher=pmix
enter() { :; }
"""


def plan(memory: Sequence[float], flops: Sequence[float] = (), seconds: float = 600.0) -> dict:
    """What `comigs plan --json` prints, as far as it is read."""
    users = [
        {"name": f"user {i}", "host_memory_bytes": total, "flops_round": work}
        for i, (total, work) in enumerate(zip(memory, flops or [1e12] * len(memory), strict=True))
    ]
    return {"users": users, "seconds": {"total": seconds}, "problems": []}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    monkeypatch.setenv("COMIGS_SITE", str(tmp_path / "site.sh"))
    Path("bin").mkdir()
    answer = 'echo "$*" >>calls; cat plan.json; exit "$(cat code 2>/dev/null || echo 0)"'
    program("comigs", f"{read_job_files()}\n{answer}")
    program("sbatch", 'cat >submitted; echo "Submitted batch job 7"')
    Path("site.sh").write_text(SITE)
    Path("job.ini").write_text("[run]\noutput = runs/a 5%\n[method]\nname = comigs-1g1s\n")
    Path("plan.json").write_text(json.dumps(plan([GIB] * 4)))


def program(name: str, body: str) -> None:
    path = Path("bin", name)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def submit(*arguments: str) -> int:
    return main(["job.ini", "--comigs", "bin/comigs", *arguments])


def options(text: str) -> list[list[str]]:
    """Slurm's, by component."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line == "#SBATCH hetjob":
            found.append([])
        elif line.startswith("#SBATCH "):
            found[-1].append(line.removeprefix("#SBATCH "))
    return found


def dry(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert submit("--dry-run", *arguments) == 0
    text = capsys.readouterr().out
    assert not Path("submitted").exists()
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    return text
