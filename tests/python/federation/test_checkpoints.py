"""Runs that are stopped, killed or damaged and gone on with: the same numbers as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers.broken_runs import Running, arguments, differing, finish, rounds_in, rounds_told
from tests.helpers.tiny import signed

ROUNDS = 5
OPTIONS = ("--rounds", ROUNDS, "--local-steps", 40, "--router-every", 7, "--router-steps", 2, "--seed", 3)
OPTIONS += ("--batch-sequences", 4, "--context-tokens", 12, "--lora-rank", 2)
# One for each rule, and what else has a state of its own.
KINDS = {
    "comigs-1g1s": ("--method", "comigs-1g1s"),
    "carried gradients": ("--method", "comigs-1g1s", "--carry-phase-gradients", "true"),
    "pcl": ("--method", "pcl"),
    "hetlora": ("--method", "hetlora", "--lora-rank", "4,2,2,3", "--pruning-strength", 0.5),
    "flexlora": ("--method", "flexlora", "--lora-rank", "4,2,2,3"),
    "fdlora": ("--method", "fdlora"),
    "fedprompt": ("--method", "fedprompt", "--prompt-tokens", 2),
    "centralized": ("--method", "centralized"),
}


@pytest.fixture(scope="module")
def job(tiny_base, tiny_data):
    """job(kind, output): the arguments of `comigs`."""

    def words(kind: str, output: Path, *more: object) -> list[object]:
        given = ("--data", tiny_data, "--model", tiny_base, *OPTIONS, *KINDS[kind])
        return arguments(*given, "--output", output, *more)

    return words


@pytest.fixture(scope="module")
def unbroken(job, tmp_path_factory):
    """unbroken(kind): the results file of a run that nobody disturbed."""
    made: dict[str, Path] = {}

    def results(kind: str) -> Path:
        if kind not in made:
            output = tmp_path_factory.mktemp("unbroken")
            finish(job(kind, output))
            made[kind] = output / "results.h5"
        return made[kind]

    return results


def sets(output: Path) -> list[Path]:
    return sorted(output.glob("checkpoints/*/manifest.json"))


def interrupted(job, kind: str, output: Path, round_: int, rank: int = 0, *more: object) -> None:
    """A run that was told to stop in the middle of a round."""
    with Running(*job(kind, output, *more)) as run:
        run.wait_for_round(round_)
        assert run.signal(rank, signal.SIGUSR1), run.output()
        done = run.end()
    assert done.code == 3, done.output + done.errors
    assert "stopped by SIGUSR1" in done.errors and "--resume auto" in done.errors
    assert rounds_in(output / "results.h5") == rounds_told(done.output) < ROUNDS
    assert sets(output)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_stopped_again_and_again_ends_the_same(kind, job, unbroken, tmp_path):
    expected = unbroken(kind)
    output = tmp_path / "run"
    interrupted(job, kind, output, 1, 0)
    # What differs between kinds is what a checkpoint holds: once more is enough for all but the first.
    for rank, number in ((3, signal.SIGTERM), (1, signal.SIGUSR1))[: 2 if kind == "comigs-1g1s" else 1]:
        with Running(*job(kind, output, "--resume", "auto")) as run:
            with run.held(rank, rounds_in(output / "results.h5") + 1):
                assert run.signal(rank, number)
            done = run.end()
        assert done.code == 3, done.output + done.errors
        assert "going on in round" in done.output
    finish(job(kind, output, "--resume", "auto"))
    assert differing(expected, output / "results.h5") == []
    assert not (output / "checkpoints").exists()


def test_a_signal_to_mpirun_is_one_to_all_ranks(job, unbroken, tmp_path):
    output = tmp_path / "run"
    with Running(*job("comigs-1g1s", output)) as run:
        with run.held(2, 1):
            run.signal_launcher(signal.SIGUSR1)
        done = run.end()
    assert done.code == 3, done.output + done.errors
    assert "stopped by SIGUSR1" in done.errors
    finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert differing(unbroken("comigs-1g1s"), output / "results.h5") == []


def test_a_run_whose_mpirun_is_ended_can_be_gone_on_with(job, unbroken, tmp_path):
    """Open MPI's hands SIGTERM on, and kills after a second: what the ranks have done by then is theirs."""
    output = tmp_path / "run"
    with Running(*job("comigs-1g1s", output)) as run:
        with run.held(2, 1):
            run.signal_launcher(signal.SIGTERM)
        done = run.end()
    assert done.code not in (0, 2), done.output + done.errors
    finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert differing(unbroken("comigs-1g1s"), output / "results.h5") == []


def test_a_killed_rank_ends_all_and_loses_no_round(job, unbroken, tmp_path):
    output = tmp_path / "run"
    with Running(*job("comigs-1g1s", output)) as run:
        run.wait_for_round(2)
        assert run.signal(2, signal.SIGKILL)
        done = run.end()
    assert done.code not in (0, 2, 3)
    told = rounds_told(done.output)
    assert 2 <= told <= rounds_in(output / "results.h5") < ROUNDS
    done = finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert f"going on in round {told}" in done.output or f"going on in round {told + 1}" in done.output
    assert differing(unbroken("comigs-1g1s"), output / "results.h5") == []


def test_without_checkpoints_a_killed_run_starts_again_and_keeps_its_rows(job, unbroken, tmp_path):
    output = tmp_path / "run"
    with Running(*job("comigs-1g1s", output, "--checkpoint-every", 0)) as run:
        run.wait_for_round(1)
        run.signal(0, signal.SIGKILL)
        run.end()
    assert not sets(output)
    with h5py.File(output / "results.h5") as file:
        clock = file["time/total"][()]
    finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert differing(unbroken("comigs-1g1s"), output / "results.h5") == []
    with h5py.File(output / "results.h5") as file:
        np.testing.assert_array_equal(file["time/total"][: len(clock)], clock)


def test_resume_of_nothing_is_a_run_and_of_a_finished_one_nothing(job, unbroken, tmp_path):
    output = tmp_path / "run"
    finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert differing(unbroken("comigs-1g1s"), output / "results.h5") == []
    before = (output / "results.h5").read_bytes()
    done = finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert f"holds all {ROUNDS} rounds already" in done.output
    assert (output / "results.h5").read_bytes() == before
    done = finish(job("comigs-1g1s", output), code=2)
    assert "--resume auto" in done.errors


def test_another_configuration_is_refused_with_the_differences(job, tmp_path, tiny_data, tiny_base):
    output = tmp_path / "run"
    interrupted(job, "comigs-1g1s", output, 1)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    changed = ("--resume", "auto", "--seed", 4, "--user.2.top-k", 1)
    done = finish(job("comigs-1g1s", output, *changed), code=2)
    assert "[run] seed: 3 there, 4 here" in done.errors
    assert "[user.2] top_k: 2 there, 1 here" in done.errors
    assert "rounds" not in done.errors and done.errors.count("another run") == 1
    # Where it computes and how often it writes are not among what must be the same.
    allowed = ("--resume", "auto", "--checkpoint-every", 3, "--patience", 100)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    finish(job("comigs-1g1s", output, *allowed))


def test_a_refusal_changes_nothing(job, unbroken, tmp_path):
    output = tmp_path / "run"
    interrupted(job, "comigs-1g1s", output, 1)
    (output / "results.h5").unlink()
    for more, words in (
        (("--resume", "auto", "--seed", 4), "[run] seed: 3 there, 4 here"),
        ((), "holds checkpoints of an interrupted run"),
    ):
        done = finish(job("comigs-1g1s", output, *more), code=2)
        assert words in done.errors and not (output / "results.h5").exists()
    finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert differing(unbroken("comigs-1g1s"), output / "results.h5") == []


def test_a_signal_to_a_rank_that_waits_reaches_those_it_waits_for(job, tmp_path):
    with Running(*job("comigs-1g1s", tmp_path / "run", "--local-steps", "50000,1,1,1")) as run:
        run.wait_for_round(0)
        assert run.signal(3, signal.SIGUSR1)
        done = run.end()
    assert done.code == 3, done.output + done.errors


def test_a_signal_after_the_last_round_does_not_change_the_exit_code(job, tmp_path):
    with Running(*job("comigs-1g1s", tmp_path / "run", "--rounds", 1)) as run:
        run.wait_until(lambda: "results:" in run.output())
        run.signal(1, signal.SIGTERM)
        done = run.end()
    assert done.code == 0, done.output + done.errors


def test_another_base_is_refused(job, tmp_path, tiny_base):
    output, base = tmp_path / "run", tmp_path / "base"
    interrupted(job, "comigs-1g1s", output, 1)
    shutil.copytree(tiny_base, base)
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (base / "model.safetensors").write_bytes(weights)
    done = finish(job("comigs-1g1s", output, "--resume", "auto", "--model", base), code=2)
    assert "weights of the base model" in done.errors


def test_a_manifest_says_of_itself_whether_it_is_whole(job, unbroken, tmp_path):
    """Its digest is that of its other entries; one flipped bit of another digest is no other run."""
    output = tmp_path / "run"
    interrupted(job, "comigs-1g1s", output, 2)
    newest = sets(output)[-1]
    text = newest.read_text(encoding="utf-8")
    assert signed(json.loads(text)) == text
    content = json.loads(text)
    newest.write_text(text.replace(content["base_digest"], content["base_digest"][::-1]), encoding="utf-8")
    done = finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert "its own digest is another one" in done.errors
    assert differing(unbroken("comigs-1g1s"), output / "results.h5") == []


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["byte of a user's file", "missing file", "manifest", "all sets"])
def test_a_damaged_set_is_told_of_and_an_older_one_used(damage, job, unbroken, tmp_path):
    output = tmp_path / "run"
    interrupted(job, "comigs-1g1s", output, 3)
    newest = sets(output)[-1].parent
    if damage == "byte of a user's file":
        _flip(newest / "user_2.safetensors", -5)
    elif damage == "missing file":
        (newest / "user_0.safetensors").unlink()
    elif damage == "manifest":
        (newest / "manifest.json").write_text("{")
    else:
        for set_ in sets(output):
            _flip(set_.parent / "user_1.safetensors", 300)
    done = finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert f"checkpoint {newest} cannot be used" in done.errors
    assert ("going on in round" in done.output) == (damage != "all sets")
    assert differing(unbroken("comigs-1g1s"), output / "results.h5") == []


def test_a_set_that_is_ahead_of_the_results_is_not_used(job, unbroken, tmp_path):
    """Somebody put an older results.h5 back."""
    output = tmp_path / "run"
    interrupted(job, "comigs-1g1s", output, 1)
    shutil.copy(output / "results.h5", tmp_path / "older.h5")
    with Running(*job("comigs-1g1s", output, "--resume", "auto")) as run:
        run.wait_for_round(4)
        run.signal(0, signal.SIGKILL)
        run.end()
    shutil.copy(tmp_path / "older.h5", output / "results.h5")
    done = finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert "but results.h5 ends with round" in done.errors
    assert differing(unbroken("comigs-1g1s"), output / "results.h5") == []


def test_a_run_interrupted_before_its_first_round_starts_again(job, unbroken, tmp_path):
    output = tmp_path / "run"
    with Running(*job("comigs-1g1s", output)) as run:
        run.wait_until(lambda: len(run.ranks()) == 4)
        # As soon as signals are taken over: the handler of SIGUSR1 is in the mask of caught signals.
        run.wait_until(lambda: all(_catches(pid, signal.SIGUSR1) for pid in run.ranks().values()))
        run.signal(1, signal.SIGUSR1)
        done = run.end()
    assert done.code == 3, done.output + done.errors
    finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert differing(unbroken("comigs-1g1s"), output / "results.h5") == []


def _catches(pid: int, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_said_and_the_rounds_stay(job, unbroken, tmp_path):
    output = tmp_path / "run"
    (output / "checkpoints").mkdir(parents=True)
    mount = f'mount -t tmpfs -o size=100k none {output}/checkpoints && exec "$@"'
    with Running(*job("comigs-1g1s", output), prefix=("unshare", "-m", "sh", "-c", mount, "sh")) as run:
        done = run.end()
    assert done.code == 1, done.output + done.errors
    assert "No space left on device" in done.errors and "user_" in done.errors
    assert rounds_in(output / "results.h5") >= 0
    finish(job("comigs-1g1s", output, "--resume", "auto"))
    assert differing(unbroken("comigs-1g1s"), output / "results.h5") == []


def test_a_folder_that_cannot_be_written_is_said(job, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    (output / "checkpoints").write_text("a file")
    done = finish(job("comigs-1g1s", output), code=1)
    assert f"{output}/checkpoints" in done.errors


def test_the_converted_base_of_a_killed_run_goes(job, tmp_path):
    left = tmp_path / ".base-0123456789abcdef"
    left.mkdir()
    for name in ("model.safetensors", ".model.safetensors.0123456789abcdef.tmp"):
        (left / name).write_bytes(b"weights")
    finish(job("comigs-1g1s", tmp_path, "--precision", "bf16", "--rounds", 1))
    assert list(tmp_path.glob(".base-*")) == []


def test_a_converted_base_in_use_stays(job, tmp_path):
    """Whoever else is given the folder is refused before anything is removed there."""
    options = ("--precision", "bf16", "--resume", "auto")
    with Running(*job("comigs-1g1s", tmp_path, *options)) as run:
        run.wait_for_round(0)
        run.signal_all(signal.SIGSTOP)  # so that it cannot end first
        [base] = tmp_path.glob(".base-*")
        assert (
            "another run is writing into this folder"
            in finish(job("comigs-1g1s", tmp_path, *options), 2).errors
        )
        assert (base / "model.safetensors").is_file()
        run.signal_all(signal.SIGCONT)
        assert run.end().code == 0


def test_what_somebody_keeps_in_the_folder_stays(job, tmp_path):
    """Names that are like ours, in places where ours are removed; checkpoints go to another disk by a link."""
    output, scratch = tmp_path / "run", tmp_path / "scratch"
    theirs = [
        output / "user_0.safetensors",
        output / "model.safetensors",
        output / ".results.h5.tmp",
        output / ".base-1-1/model.safetensors",
        output / ".base-0123456789abcdef/thesis.tex",
        output / ".base-0123456789abcdef/model.safetensors",
        scratch / "20251128/thesis.tex",
        scratch / "202511281530/user_0.safetensors",
        scratch / "000001/manifest.json",
        scratch / "20251128.tar",
    ]
    for file in theirs:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("three years of work")
    (output / "checkpoints").symlink_to(scratch)
    (output / ".base-fedcba9876543210").symlink_to(scratch)
    before = {path: path.is_symlink() for path in (*output.rglob("*"), *scratch.rglob("*"))}
    finish(job("comigs-1g1s", output, "--precision", "bf16", "--rounds", 2))
    assert [file.read_text() for file in theirs] == len(theirs) * ["three years of work"]
    after = {path: path.is_symlink() for path in (*output.rglob("*"), *scratch.rglob("*"))}
    assert after == before | {output / "results.h5": False}
