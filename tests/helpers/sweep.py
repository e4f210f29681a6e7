"""jobs.sweep among stand-ins for comigs, mpirun, data_prep and Slurm, in a folder of its own."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from jobs.sweep import main
from tests.helpers.built_program import read_job_files

OTHER = Path("runs/paper/alpha/other-seed0")
FILES = {
    "jobs/one.ini": """
        [item]
        title = One
        datasets = alpha, beta
        [row.Local]   # a comment
        section = i) first
        method = local
        [row.Mix = both]
        method = mix
        router_every = 10 | 30
        experts = 4,2,2
        [row.Only beta]
        datasets = beta
        method = rare
    """,
    "jobs/two.ini": """
        [item]
        datasets = alpha
        [row.Other]
        method = other
        [row.The same as Local]
        method = local
        load_balancing = none
    """,
    "jobs/three.ini": """
        [item]
        datasets = alpha, beta
        use = one
        rows =
            Only beta
            Local
    """,
    "jobs/not-an-item.ini": "[run]\nrounds = 3",
    "jobs/datasets/common.ini": "[method]\nload_balancing = none",
    "jobs/datasets/prepare.ini": "[alpha]\ndata = text --source hub other --seed 1\n[beta]\ndata = text",
    "jobs/datasets/alpha.ini": (
        "[job]\ninherit = common.ini\n[data]\nfolder = data/alpha\n[model]\nfolder = gpt2"
    ),
    "jobs/datasets/beta.ini": "[data]\nfolder = data/beta\n[model]\nfolder = gpt2",
    "jobs/datasets/small/prepare.ini": "[alpha]\ndata = text --seed 1\nbase = alpha-base.ini",
    "jobs/datasets/small/alpha-base.ini": "[pretrain]\nlayers = 1",
    "jobs/datasets/small/alpha.ini": "[job]\ninherit = ../alpha.ini\n[model]\nfolder = data/base",
    "gpt2/config.json": "{}",
    "gpt2/model.safetensors": "weights",
    "setup.sh": "echo 'export FROM_SETUP=yes'",
    "data_prep.py": """
        import json, pathlib, sys
        folder = pathlib.Path(sys.argv[-1])
        if pathlib.Path(f"no-{folder.name}").exists():
            sys.exit("error: no such text")
        folder.mkdir(parents=True, exist_ok=True)
        print("data_prep", *sys.argv[1:], file=open("calls", "a"))
        (folder / "manifest.json").write_text(json.dumps({"users": ["A", "B", "C"]}))
    """,
}
PROGRAMS = {
    "mpirun": """
        [ "$FROM_SETUP" = yes ] || exit 9
        echo "$2 ranks" >>calls
        shift 2
        trap 'kill -USR1 $!; wait $!' USR1
        "$@" &
        wait $! && exit
        code=$?
        rule=$(printf -- '-%.0s' {1..74})
        printf '%s\n' "$rule" "Primary job terminated normally, but 1 process returned" "$rule" >&2
        exit $code
    """,
    "srun": 'echo "srun $*" >>calls; while [[ $1 = -* ]]; do shift; done; exec "$@"',
    "scontrol": 'echo "scontrol $*" >>calls; echo "JobId=8 ArrayJobId=7 ArrayTaskId=$SLURM_ARRAY_TASK_ID JobState=RUNNING"',
    "sbatch": 'cat >script; echo "Submitted batch job 7"',
    "squeue": """
        [ -e queued ] && echo "job $*" && exit
        echo "slurm_load_jobs error: Invalid job id specified" >&2
        exit 1
    """,
    "comigs": """
        READ_JOB_FILES
        words=$*
        echo "${words% --resume auto}" >>calls
        user='{"host_memory_bytes": 2e9, "flops_round": 1e9}'
        [ "$1" = plan ] && echo "{\\"users\\": [$user, $user, $user], \\"seconds\\": {\\"total\\": 60}}" && exit
        for word; do [ "$last" = --output ] && output=$word; last=$word; done
        [ "$1" = pretrain ] && mkdir -p "$output" && echo w >"$output/model.safetensors" && exit
        [ "$1" = prune ] && [ -e "pruned-otherwise" ] && [[ $words != *--replace* ]] && \
            echo "comigs: $output/comigs-pruning.json: another" >&2 && exit 2
        [ "$1" = prune ] && mkdir -p "$output" && echo {} >"$output/config.json" && exit
        [[ $* = *"--resume auto" ]] || exit 2
        [ -e "$output/results.h5" ] && echo "$output goes on" >>calls
        echo begun >"$output/results.h5"
        for word; do
            [ -e "interrupt-$word" ] && exit 3
            [ -e "fail-$word" ] && echo "comigs: told to fail" && exit 5
            [ -e "hang-$word" ] && echo $$ >pid && exec sleep 60
        done
        echo complete >"$output/results.h5"
    """,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with its own items, data sets and programs."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(dedent(text))
    (tmp_path / "bin").mkdir()
    for name, text in PROGRAMS.items():
        (tmp_path / "bin" / name).write_text(
            "#!/bin/bash\n" + dedent(text).replace("READ_JOB_FILES", read_job_files())
        )
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    # A stand-in that a test writes anew within the second, at its old length, would be taken for its compiled self.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def sweep(*arguments: str) -> int:
    return main([*arguments, "--comigs", "bin/comigs"])


def calls(word: str = "train") -> list[str]:
    """What the stand-ins were called with since the last look, of those with the word."""
    path = Path("calls")
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in lines if word in line]


def runs(scale: str = "paper") -> list[dict]:
    content = json.loads(Path(f"runs/{scale}/index.json").read_text())
    assert (content["format"], content["format_version"], content["scale"]) == (
        "comigs-sweep-index",
        1,
        scale,
    )
    return content["runs"]


def statuses() -> dict[str, str]:
    return {run["folder"]: run["status"] for run in runs()}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """As comigs holds the folder of its results."""
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    os.close(lock)
