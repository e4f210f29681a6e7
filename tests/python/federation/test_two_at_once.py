"""Two runs in one folder, also on file systems whose locks do nothing: the second one is refused or the first one
stops; what is there in the end is whole and of one run."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.helpers.broken_runs import Running, arguments, compiler, differing, finish, no_flock, rounds_in
from tests.helpers.tiny import comigs

OPTIONS = (
    "--rounds",
    3,
    "--local-steps",
    30,
    "--router-every",
    7,
    "--router-steps",
    2,
    "--batch-sequences",
    4,
)
OPTIONS += ("--context-tokens", 12, "--lora-rank", 2, "--method", "comigs-1g1s")


@pytest.fixture(scope="session")
def without_flock(tmp_path_factory) -> Path:
    if compiler() is None:
        pytest.skip("no C compiler on PATH")
    return no_flock(tmp_path_factory.mktemp("locks"))


@pytest.fixture(params=["locks work", "locks fail", "locks pretend"])
def locks(request, monkeypatch) -> str:
    if request.param != "locks work":
        monkeypatch.setenv("LD_PRELOAD", str(request.getfixturevalue("without_flock")))
    if request.param == "locks pretend":
        monkeypatch.setenv("LOCKS_PRETEND", "1")
    return request.param


@pytest.fixture
def job(tiny_base, tiny_data, tmp_path):
    def words(*more: object) -> list[object]:
        given = ("--data", tiny_data, "--model", tiny_base, *OPTIONS, "--output", tmp_path / "run")
        return arguments(*given, *more)

    return words


def test_the_second_is_refused_and_the_first_goes_on(locks, job, tmp_path):
    finish(job("--output", tmp_path / "alone"))
    with Running(*job("--resume", "auto")) as first:
        first.wait_for_round(1)
        first.signal_all(signal.SIGSTOP)  # so that it cannot end before the second has begun
        second = finish(job("--resume", "auto"), code=2)
        first.signal_all(signal.SIGCONT)
        done = first.end()
    assert done.code == 0, done.output + done.errors
    assert f"'{tmp_path}/run': another run is writing into this folder" in second.errors
    assert differing(tmp_path / "alone/results.h5", tmp_path / "run/results.h5") == []
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results.h5"]
    assert ("no locks on this file system" in done.errors) == (locks == "locks fail")


def test_what_was_killed_is_gone_on_with(locks, job, tmp_path):
    with Running(*job()) as first:
        first.wait_for_round(1)
        first.signal_all(signal.SIGKILL)
        first.end()
    assert (tmp_path / "run/.comigs-owner").exists()
    assert "going on in round" in finish(job("--resume", "auto")).output
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results.h5"]


def test_a_run_that_was_taken_over_stops(job, tmp_path):
    """As one does that was suspended for so long that a run on another machine took it for dead."""
    owner = tmp_path / "run/.comigs-owner"
    with Running(*job("--local-steps", 200)) as run:
        run.wait_for_round(0)
        run.signal(0, signal.SIGSTOP)
        taken = json.loads(owner.read_text()) | {"token": "0123456789abcdef", "host": "n7"}
        owner.unlink()
        owner.write_text(json.dumps(taken))
        before = rounds_in(tmp_path / "run/results.h5")
        run.signal(0, signal.SIGCONT)
        done = run.end()
    assert done.code == 1, done.output + done.errors
    assert "on n7 has taken the folder over; this run stops" in done.errors
    assert rounds_in(tmp_path / "run/results.h5") - before in (0, 1)  # one may have been on its way
    assert json.loads(owner.read_text()) == taken


def test_two_pretrainings_in_one_folder(locks, tiny_data, tmp_path):
    def options(*more: object) -> list[object]:
        shape = ("--layers", 2, "--width", 32, "--heads", 2, "--context-tokens", 12, "--batch-sequences", 4)
        return ["pretrain", "--data", tiny_data, *shape, "--device", "cpu", "--threads", 1, *more]

    both = tmp_path / "both"
    with Running(*options("--steps", 300, "--evaluate-every", 1, "--output", both), ranks=1) as slow:
        slow.wait_until(lambda: "validation perplexity" in slow.output())
        slow.signal_all(signal.SIGSTOP)
        quick = comigs(*options("--steps", 2, "--seed", 1, "--output", both))
        slow.signal_all(signal.SIGCONT)
        done = slow.end()
    assert done.code == 0, done.errors
    assert quick.code == 2 and "another run is writing into this folder" in quick.errors
    again = comigs(*options("--steps", 300, "--evaluate-every", 1, "--output", both))
    assert again.code == 0 and "made by the same options" in again.output
    assert comigs(*options("--steps", 2, "--seed", 1, "--output", both)).code == 2
