"""What a sweep refuses, whom it leaves alone, and how it says so; the stand-ins are those of helpers.sweep."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from console.whole_file import write_whole
from jobs.process import last_line
from jobs.sweep import main
from tests.helpers.built_program import ROOT, read_job_files
from tests.helpers.sweep import FILES, OTHER, calls, here, locked, statuses, sweep

__all__ = ["here"]  # the fixture is for every test here too


def test_a_run_that_another_process_works_on_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("interrupt-other").touch()
    assert sweep("two", "--seeds", "1") == 1
    Path("interrupt-other").unlink()
    (OTHER / "results.h5").write_text("half")
    for folder in (OTHER, OTHER.with_name("local-seed0")):
        (folder / "ended.json").unlink(missing_ok=True)
    calls("")
    capsys.readouterr()
    with locked(OTHER):
        assert sweep("two", "--seeds", "1") == 1
    assert (
        f"failed: {OTHER}, another process is at work there, or it is in Slurm's queue"
        in capsys.readouterr().err
    )
    assert (OTHER / "results.h5").read_text() == "half"
    assert ["--method local" in line for line in calls()] == [True]
    assert sweep("two", "--seeds", "1") == 0
    assert (OTHER / "results.h5").read_text() == "complete\n"


@pytest.mark.parametrize("machine", ["here", "elsewhere"])
def test_a_run_that_says_so_in_its_folder_is_left_alone(
    machine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where locks do nothing, or not for another machine's."""
    assert sweep("two", "--seeds", "1") == 0
    (OTHER / "ended.json").unlink()
    (OTHER / "results.h5").write_text("half")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    began = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    owner = {"format": "comigs-owner", "host": "n1", "machine": f"{boot}/{os.readlink('/proc/self/ns/pid')}"}
    owner |= {"process": os.getpid(), "started": began, "token": "0123456789abcdef"}
    if machine == "elsewhere":
        owner |= {"machine": "another", "process": 1}
    note = OTHER / ".comigs-owner"
    note.write_text(json.dumps(owner))
    assert sweep("two", "--seeds", "1", "--replace") == 1
    assert f"failed: {OTHER}, another process is at work there" in capsys.readouterr().err
    assert (OTHER / "results.h5").read_text() == "half"
    # It has ended: another process has its number, or nothing was heard of that machine for long.
    note.write_text(json.dumps(owner | {"started": began - 1}))
    os.utime(note, (1, 1))
    assert sweep("two", "--seeds", "1") == 0
    assert (OTHER / "results.h5").read_text() == "complete\n"


@pytest.mark.parametrize("more", [[], ["--replace"]])
@pytest.mark.parametrize("name", ["results.h5", "checkpoints/20251128/thesis.tex"])
def test_what_no_sweep_has_made_stays(name: str, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody called comigs by hand, or keeps something there."""
    file = OTHER / name
    file.parent.mkdir(parents=True)
    file.write_text("hours of work")
    assert sweep("two", "--seeds", "1", *more) == 2
    assert f"{OTHER}: holds results that no sweep has made; move them away" in capsys.readouterr().err
    assert file.read_text() == "hours of work"


def test_what_lies_beside_a_run_that_is_made_anew_stays() -> None:
    assert sweep("two", "--seeds", "1") == 0
    theirs = [
        OTHER / name for name in ("notes.txt", "model/model.safetensors", "checkpoints/20251128/thesis.tex")
    ]
    partial = [f".{name}.0123456789abcdef.tmp" for name in ("results.h5", "run.json", "ended.json")]
    partial += ["run.json.new", "ended.json.new"]  # of versions before 0.2
    ours = [OTHER / name for name in ("checkpoints/000002/user_0.safetensors", *partial)]
    for file in theirs + ours:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("work")
    Path("jobs/datasets/common.ini").write_text("[method]\nload_balancing = none\n[run]\nrounds = 3\n")
    assert sweep("two", "--seeds", "1", "--replace") == 0
    assert [file.read_text() for file in theirs] == 3 * ["work"]
    assert not any(file.exists() for file in ours)
    assert (OTHER / "results.h5").read_text() == "complete\n"


def test_an_index_that_is_none_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    index = Path("runs/paper/index.json")
    index.parent.mkdir(parents=True)
    index.write_text('{"of": "somebody"}')
    assert sweep("two", "--seeds", "1") == 2
    assert f"{index}: found something else" in capsys.readouterr().err
    assert index.read_text() == '{"of": "somebody"}'


def test_done_needs_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("two", "--seeds", "1") == 0
    calls()
    (OTHER / "results.h5").unlink()
    assert sweep("two", "--seeds", "1") == 0
    assert ["--method other" in line for line in calls()] == [True]
    Path("bin/comigs").write_text(f"#!/bin/bash\n{read_job_files()}\n")
    assert sweep("two", "--seeds", "1", "--replace") == 0
    (OTHER / "results.h5").unlink()
    assert sweep("two", "--seeds", "1") == 1
    assert "with exit code 0: no results.h5" in capsys.readouterr().out
    assert statuses()["alpha/other-seed0"] == "failed"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    path = folder / "note"
    for data in (b"first", b"second, longer", b""):
        write_whole(path, data)
        assert path.read_bytes() == data and [*folder.iterdir()] == [path]

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path.write_bytes(b"kept")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"lost")
    assert path.read_bytes() == b"kept" and [*folder.iterdir()] == [path]


RULE = "-" * 74


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (f"comigs: bad\n{RULE}\nPrimary job\n{RULE}\n", "comigs: bad"),
        (f"{RULE}\nPrimary job\n{RULE}\ncomigs: bad\nmore\n", "comigs: bad"),
        (f"comigs: 2 problems:\n  - a\n  - b\n{RULE}\nPrimary\n{RULE}\n", "comigs: 2 problems: - a - b"),
        (f"round 1\n{RULE}\nPrimary\n{RULE}\n{RULE}\nsignal 9\n{RULE}\n", "round 1"),
        (f"{RULE}\nPrimary\n{RULE}\n{RULE}\n\non signal 11\n{RULE}\n", "on signal 11"),
        ("first\nerror: last\n\n", "error: last"),
        ("", "no message"),
    ],
)
def test_the_reason_of_a_failure_is_not_mpiruns_epilogue(log: str, told: str) -> None:
    Path("log").write_text(log)
    assert last_line(Path("log")) == told


@pytest.mark.parametrize(
    "text", ["[]", "{", "{}", '{"code": "0", "seconds": 1}', '{"code": false, "seconds": 1}',
             '{"code": 0}', '{"code": 0, "seconds": "long"}', '{"code": 0, "seconds": NaN}'],
)  # fmt: skip
def test_a_damaged_end_is_no_end(text: str) -> None:
    assert sweep("two", "--seeds", "1") == 0
    calls()
    (OTHER / "ended.json").write_text(text)
    assert sweep("two", "--seeds", "2") == 0
    assert [line.split()[3] + line[-1] for line in calls()] == ["other0", "other1", "local1"]
    assert set(statuses().values()) == {"done"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": []}', None])
def test_a_finished_run_with_a_damaged_record_is_kept(
    text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("two", "--seeds", "1") == 0
    calls()
    record = OTHER / "run.json"
    if text is None:
        text = json.dumps({**json.loads(record.read_text()), "settings": ["x"]})
    record.write_text(text)
    assert sweep("two", "--seeds", "1") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: {OTHER}: made with unknown settings (run.json there is damaged")
    assert calls() == []
    assert sweep("two", "--seeds", "1", "--replace") == 0


@pytest.mark.parametrize("text", ['{"users": 3}', '{"users": "ABC"}', '{"users": []}', "[]", "{"])
def test_a_damaged_manifest_is_named(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data_prep.py").write_text(
        f"import pathlib, sys\nfolder = pathlib.Path(sys.argv[-1])\nfolder.mkdir(parents=True)\n"
        f"(folder / 'manifest.json').write_text({text!r})\n"
    )
    assert sweep("two", "--seeds", "1") == 2
    assert "data/alpha/manifest.json: not the manifest of a data set" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--print"], ["--index"]])
def test_nobody_reads_on(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "jobs.sweep", "one", "--comigs", "bin/comigs", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=write, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        (
            "jobs/datasets/common.ini",
            "[method]\nload_balancing = none\n[user]\ntop_k = 1",
            "top_k unset there, 1 now",
        ),
        ("gpt2/model.safetensors", "other weights", "another base"),
        ("data_prep.py", FILES["data_prep.py"].replace('"C"', '"D"'), "another data"),
    ],
)
def test_finished_runs_made_otherwise_go_only_when_asked(
    file: str, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("two", "--seeds", "1") == 0
    calls()
    Path(file).write_text(dedent(text))
    assert sweep("two", "--seeds", "1") == 2
    assert calls() == []
    assert f"and 1 more runs: made with {told}. --replace" in capsys.readouterr().err
    assert sweep("two", "--seeds", "1", "--replace") == 0
    assert len(calls()) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tow"], "unknown item 'tow'; did you mean 'two'?"),
        (["not-an-item"], "unknown item 'not-an-item'; known: one, three, two"),
        (["one", "--dataset", "alhpa"], "unknown data set 'alhpa'; did you mean 'alpha'?"),
        (["one", "--dataset", "alpha, alpha"], "--dataset alpha, alpha: 'alpha' stands there twice"),
        (["one", "--dataset", "alpha,"], "--dataset alpha,: expected names separated by commas"),
        (["two", "--dataset", "beta"], "--dataset beta: two is about alpha"),
        (["one", "--scale", "smal"], "unknown scale 'smal'; did you mean 'small'?"),
        (["one", "--rows", "Locla"], "unknown row 'Locla'; did you mean 'Local'?"),
        (["one", "--scale", "small", "--rows", "rare"], "unknown row 'rare'"),
        (["one", "--dataset", "alpha", "--rows", "Only beta"], "nothing to run"),
        (["one", "--seeds", "0"], "--seeds 0: expected 1 to 1,000"),
        (["one", "--source", "alpha"], "--source alpha: expected NAME=PLACE"),
        (["one", "--source", "alfa=x"], "unknown data set 'alfa'; did you mean 'alpha'?"),
        (["two", "--source", "beta=x"], "--source beta: no item asked for is about it (two)"),
        (["one", "--source", "alpha=x", "--source", "alpha=y"], "--source alpha: given twice, 'x' and 'y'"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {told}")
    assert calls("") == []


def test_a_missing_program_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert main(["one"]) == 2
    assert "--comigs build/release/comigs: no such program" in capsys.readouterr().err


def test_an_installed_program_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["two", "--seeds", "1", "--print"]) == 0
    assert f"mpirun -n 4 {Path.cwd()}/bin/comigs train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "told"), [("bin", "found a folder"), ("setup.sh", "found a file that cannot be run")]
)
def test_the_program_must_be_one(program: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["one", "--comigs", program]) == 2
    assert f"--comigs {program}: {told}, expected the program" in capsys.readouterr().err
    assert calls("") == [] and not Path("runs").exists()


def test_elsewhere_than_the_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir("bin")
    assert main(["one"]) == 2
    assert "expected the repository's root" in capsys.readouterr().err
