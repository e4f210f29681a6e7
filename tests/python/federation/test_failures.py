"""Ranks that fail, are killed or do not come: everyone is gone soon, and the log says who and why."""

from __future__ import annotations

import os
import signal
import socket
import time

import h5py
import numpy as np
import pytest

from tests.helpers.broken_runs import Running, arguments, finish, holds_back, rounds_in
from tests.helpers.tiny import USERS, executable
from tests.helpers.tiny import run as tiny_run

OPTIONS = (
    "--rounds",
    4,
    "--local-steps",
    20,
    "--router-every",
    7,
    "--router-steps",
    2,
    "--batch-sequences",
    4,
)
OPTIONS += ("--context-tokens", 12, "--lora-rank", 2, "--method", "comigs-1g1s")
# A rate at which numbers overflow within a few steps.
DIVERGES = ("--user.1.expert-learning-rate", 1e30)
SECONDS_TO_LEAVE = 60  # they would train for minutes; on a busy machine it takes more than on an idle one


@pytest.fixture
def job(tiny_base, tiny_data, tmp_path):
    def words(*more: object) -> list[object]:
        given = ("--data", tiny_data, "--model", tiny_base, *OPTIONS, "--output", tmp_path / "run")
        return arguments(*given, *more)

    return words


def test_a_user_that_diverges_is_named_and_ends_the_run(job, tmp_path):
    done = finish(job(*DIVERGES), code=1)
    assert f"rank 1 (user {USERS[1]} on {socket.gethostname()}): round 1: the training loss" in done.errors
    assert "expert_learning_rate = 1e+30" in done.errors
    assert rounds_in(tmp_path / "run/results.h5") == 0


def test_the_others_leave_in_the_middle_of_their_steps(job):
    """The one that fails does so in its first step."""
    begun = time.monotonic()
    done = finish(job(*DIVERGES, "--local-steps", "100000,5,100000,100000"), code=1)
    assert "rank 1 (user" in done.errors
    assert time.monotonic() - begun < SECONDS_TO_LEAVE


@pytest.mark.parametrize("rank", [0, 2])
def test_a_killed_rank_takes_the_others_with_it(rank, job, tmp_path):
    with Running(*job("--local-steps", 100000)) as run:
        run.wait_for_round(0)
        assert run.signal(rank, signal.SIGKILL)
        begun = time.monotonic()
        done = run.end()
    assert time.monotonic() - begun < SECONDS_TO_LEAVE
    assert done.code not in (0, 2, 3)
    assert f"process rank {rank}" in done.epilogue and "Killed" in done.epilogue
    assert rounds_in(tmp_path / "run/results.h5") == 0


@pytest.mark.parametrize("rank", [0, 3])
def test_a_rank_that_does_not_come_is_named(rank, job):
    with Running(*job("--local-steps", 200, "--patience", 2)) as run:
        run.wait_for_round(1)
        assert run.signal(rank, signal.SIGSTOP)
        done = run.end()
    assert done.code == 1, done.output + done.errors
    assert f"rank {rank} (user {USERS[rank]} on" in done.errors


def test_a_rank_that_freezes_while_it_waits_is_named(job):
    """User 1 is done at once and has told so when it freezes; the others come much later."""
    with Running(*job("--local-steps", "400,1,1,1", "--patience", 4)) as run:
        run.wait_for_round(0)
        time.sleep(0.2)
        assert run.signal(1, signal.SIGSTOP)
        done = run.end()
    assert done.code == 1, done.output + done.errors
    assert done.errors.count("had not come") == 1
    assert f"rank 1 (user {USERS[1]} on {socket.gethostname()}) had not come" in done.errors


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_freezes_where_ranks_meet_at_every_step_is_named(rank, job):
    with Running(*job("--method", "centralized", "--local-steps", 5000, "--patience", 2)) as run:
        run.wait_for_round(0)
        time.sleep(0.5)
        assert run.signal(rank, signal.SIGSTOP)
        done = run.end()
    assert done.code == 1, done.output + done.errors
    assert f"rank {rank} (user {USERS[rank]} on" in done.errors


@pytest.mark.parametrize("rank", [0, 3])
def test_a_rank_that_freezes_while_it_starts_is_named(rank, job):
    """Before MPI is there, which the others wait for."""
    with Running(*job("--patience", 2)) as run:
        run.wait_until(lambda: rank in run.ranks())
        assert run.signal(rank, signal.SIGSTOP)
        done = run.end()
    assert done.code == 1, done.output + done.errors
    assert f"rank {rank} (user {USERS[rank]} on {socket.gethostname()}) had not come" in done.errors


@pytest.mark.parametrize("steps", ["100", "300,20,20,20"])
def test_a_run_that_is_suspended_as_a_whole_goes_on(steps, job):
    """For longer than the patience, and each rank at a moment of its own."""
    with Running(*job("--local-steps", steps, "--patience", 4)) as run:
        run.wait_for_round(0)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for rank in range(len(USERS)):
                assert run.signal(rank, number)
                time.sleep(0.1)
            time.sleep(5 if number == signal.SIGSTOP else 0)
        done = run.end()
    assert done.code == 0, done.output + done.errors


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_while_the_program_is_loaded_asks_it_to_stop(number, job, tmp_path):
    with Running(*job()) as run:
        run.wait_until(lambda: holds_back(run.ranks().get(2, 0), number))
        assert run.signal(2, number)
        done = run.end()
    assert done.code == 3, done.output + done.errors
    assert f"stopped by {number.name}" in done.errors


def test_ranks_of_srun_that_cannot_find_each_other_are_told_of_pmix(job, tmp_path):
    """As srun --mpi=none starts them; each would take itself for the only one."""
    for rank in (0, 1):
        environment = {"SLURM_STEP_ID": 0, "SLURM_STEP_NUM_TASKS": 2, "SLURM_PROCID": rank}
        words = [f"{name}={value}" for name, value in environment.items()]
        done = tiny_run(["env", *words, executable(), *job()])
        assert done.code == 2 and done.output == ""
        assert (
            ("srun --mpi=pmix" in done.errors and done.errors.count("\n") == 1)
            if rank == 0
            else not done.errors
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("OMPI_COMM_WORLD_SIZE=8", "OMPI_COMM_WORLD_RANK=3"),
            "OMPI_COMM_WORLD_SIZE=8 says that mpirun started",
        ),
        (("TMPDIR=/dev/null",), "TMPDIR=/dev/null: Not a directory, expected a folder"),
    ],
)
def test_variables_with_which_a_single_process_cannot_start_are_named(words, told, job):
    done = tiny_run(["env", *words, executable(), *job()])
    assert done.code == 2 and done.output == "", done.output + done.errors
    assert done.errors.startswith(f"comigs: {told}") and done.errors.count("\n") == 1


def test_more_threads_than_cores_are_told_of(job):
    cores = len(os.sched_getaffinity(0))
    words = job("--rounds", 1)
    words[words.index("--threads") + 1] = cores + 1
    done = finish(words)
    assert done.errors.count(f"--threads {cores + 1}: more than the") == 1


def test_with_continue_the_others_go_on(job, tmp_path):
    done = finish(job(*DIVERGES, "--on-user-failure", "continue"))
    assert f"rank 1 (user {USERS[1]} on" in done.errors and "drops out in round 1" in done.errors
    assert done.errors.count("drops out") == 1
    with h5py.File(tmp_path / "run/results.h5") as file:
        took_part = file["aggregation/participation"][()]
        perplexity = file["perplexity/test"][()]
        weight = file["aggregation/weight"][()]
        values = file["expert/weights/4/user_0/layer_0/expert_0/up_A"][()]
        others = file["expert/weights/4/user_3/layer_0/expert_0/up_A"][()]
    np.testing.assert_array_equal(took_part, [[1, 1, 1, 1]] + 4 * [[1, 0, 1, 1]])
    assert np.isfinite(perplexity[0]).all() and np.isnan(perplexity[1:, 1]).all()
    assert np.isfinite(np.delete(perplexity, 1, axis=1)).all()
    np.testing.assert_allclose(weight[1:, 0], 4 * [[1 / 3, 0, 1 / 3, 1 / 3]], rtol=1e-6)
    np.testing.assert_array_equal(values, others)


@pytest.mark.parametrize(
    "rule",
    [
        ("--method", "fedavg", "--averaging", "tokens"),
        ("--method", "pcl", "--rounds", 5),
        ("--method", "hetlora", "--lora-rank", "2,4,3,2"),
        ("--method", "flexlora", "--lora-rank", "2,4,3,2"),
    ],
    ids=lambda rule: rule[1],
)
def test_with_continue_the_others_go_on_by_every_rule(rule, job, tmp_path):
    finish(job(*DIVERGES, "--on-user-failure", "continue", *rule, "--local-steps", 8))
    with h5py.File(tmp_path / "run/results.h5") as file:
        took_part = file["aggregation/participation"][1:]
        perplexity = file["perplexity/test"][1:]
        weight = file["aggregation/weight"][1:]
    assert (took_part == [1, 0, 1, 1]).all()
    assert np.isnan(perplexity[:, 1]).all() and np.isfinite(np.delete(perplexity, 1, axis=1)).all()
    left = np.delete(weight, 1, axis=1)  # [round, user, source]
    assert (left[..., 1] == 0).all() and (np.delete(left, 1, axis=2) > 0).all()
    np.testing.assert_allclose(left.sum(axis=2), 1, rtol=1e-6)
    if "tokens" in rule:
        np.testing.assert_allclose(left[0, 0], np.array([400, 0, 414, 421]) / 1235, rtol=1e-6)


def test_a_run_with_a_user_gone_can_be_gone_on_with(job, tmp_path):
    gone = (*DIVERGES, "--on-user-failure", "continue", "--local-steps", 60)
    finish(job(*gone))
    with h5py.File(tmp_path / "run/results.h5") as file:
        expected = file["perplexity/test"][()]
    broken = (*gone, "--output", tmp_path / "broken")
    with Running(*job(*broken)) as run:
        run.wait_for_round(2)
        run.signal(1, signal.SIGUSR1)
        assert run.end().code == 3
    done = finish(job(*broken, "--resume", "auto"))
    assert "drops out" not in done.errors
    with h5py.File(tmp_path / "broken/results.h5") as file:
        np.testing.assert_array_equal(file["perplexity/test"][()], expected)


def test_nobody_left_is_a_failure(job):
    done = finish(job("--expert-learning-rate", 1e30, "--on-user-failure", "continue"), code=1)
    assert "is not finite" in done.errors and "drops out" not in done.errors


def test_continue_is_refused_where_nobody_can_drop_out(job):
    done = finish(job("--method", "centralized", "--on-user-failure", "continue"), code=2)
    assert "on_user_failure = continue" in done.errors and "centralized" in done.errors
