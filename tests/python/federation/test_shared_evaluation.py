"""Users with one model and one test text share its evaluation: nothing in the results says so."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers.broken_runs import Running, arguments, differing, finish, rounds_in
from tests.helpers.tiny import CHOICES, USERS, alone, cut_into_examples, data_set, run_options

CONTEXT = 12


@pytest.fixture(scope="module")
def common(tmp_path_factory) -> Path:
    """Every user has examples of all categories, and all have one test text."""
    folder = cut_into_examples(data_set(tmp_path_factory.mktemp("common")), CONTEXT + 1, mixed=True)
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    first = manifest["users"][0]["splits"]["test"]
    for number, user in enumerate(manifest["users"]):
        user["splits"]["test"] = json.loads(json.dumps(first).replace("user0/", f"user{number}/"))
        for name in ("test.bin", "test.examples.bin") if number else ():
            shutil.copy(folder / "user0" / name, folder / f"user{number}" / name)
    file.write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def options(tiny_base) -> Callable[[Path, str, Path], list[object]]:
    """Four sequences at a time: the test text is several batches."""

    def of(data: Path, method: str, output: Path) -> list[object]:
        given = ("--data", data, "--model", tiny_base, "--method", method, "--output", output, "--memory", 8)
        return arguments(*run_options(*given, "--rounds", 4, *CHOICES.get(method, ())))

    return of


@pytest.fixture(scope="module")
def shared(options, common, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("shared") / "run"
    finish(options(common, "mop", output))
    return output / "results.h5"


def test_all_have_the_perplexity_of_their_one_model(shared):
    with h5py.File(shared) as file:
        perplexity = file["perplexity/test"][...]
        before = file["before_aggregation/perplexity/test"][...]
    assert np.isfinite(perplexity).all() and (perplexity == perplexity[:, :1]).all()
    assert len(np.unique(before)) == len(USERS)


def test_a_run_that_is_stopped_goes_on_to_the_same_bits(shared, options, common, tmp_path):
    with Running(*options(common, "mop", tmp_path), ranks=4) as run:
        run.wait_for_round(1)
        assert run.signal(1, signal.SIGUSR1), run.output()
        done = run.end()
    assert done.code == 3, done.output + done.errors
    assert 0 < rounds_in(tmp_path / "results.h5") < 4
    finish([*options(common, "mop", tmp_path), "--resume", "auto"])
    assert differing(shared, tmp_path / "results.h5") == []


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluate_finds_the_same_of_every_user(shared, split):
    """Of one model on four texts, or on one."""
    done = alone("evaluate", shared.parent, "--split", split, "--json")
    assert done.code == 0, done.errors
    with h5py.File(shared) as file:
        recorded = dict(zip(USERS, file[f"perplexity/{split}"][-1].tolist()))
    found = json.loads(done.output)["evaluations"]
    assert len(found) == len(USERS) ** 2
    for one in found:
        assert one["perplexity"] == pytest.approx(recorded[one["texts"]], rel=1e-6)
