"""What decides a run's numbers is the same on every rank, from start to end, and when the run is gone on with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers.broken_runs import Running, arguments, differing, finish, mounted, rounds_in, without_notes
from tests.helpers.tiny import Done, comigs, executable, run

ROUNDS = 4
OPTIONS = ("--rounds", ROUNDS, "--local-steps", 40, "--router-every", 7, "--router-steps", 2, "--seed", 3)
OPTIONS += ("--batch-sequences", 4, "--context-tokens", 12, "--lora-rank", 2)
needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="a file system of one rank's own needs root")


class Project:
    """A folder with data, base and a run, which can be spoilt and moved."""

    def __init__(self, folder: Path, base: Path, data: Path) -> None:
        self.folder = folder
        shutil.copytree(base, folder / "base")
        shutil.copytree(data, folder / "data")

    @property
    def weights(self) -> Path:
        return self.folder / "base" / "model.safetensors"

    @property
    def results(self) -> Path:
        return self.folder / "run" / "results.h5"

    def words(self, *more: object) -> list[object]:
        given = ("--data", self.folder / "data", "--model", self.folder / "base")
        return arguments(*OPTIONS, *given, "--output", self.folder / "run", *more)

    def resume(self, *more: object, code: int = 0) -> str:
        return finish(self.words("--resume", "auto", *more), code).errors

    def interrupted(self, *more: object) -> None:
        with Running(*self.words(*more)) as running:
            running.wait_for_round(1)
            running.signal(0, signal.SIGUSR1)
            assert running.end().code == 3

    def changes_config(self, **entries: object) -> None:
        file = self.folder / "base" / "config.json"
        content = json.loads(file.read_text(encoding="utf-8")) | entries
        file.write_text(json.dumps(content), encoding="utf-8")

    def attributes(self) -> dict[str, object]:
        with h5py.File(self.results) as file:
            return dict(file.attrs)


@pytest.fixture
def project(tmp_path, tiny_base, tiny_data) -> Project:
    return Project(tmp_path / "project", tiny_base, tiny_data)


def other_weights(file: Path) -> None:
    """Writes others over a model's numbers, in place."""
    with file.open("r+b") as stream:
        begin = 8 + int.from_bytes(stream.read(8), "little")
        numbers = (file.stat().st_size - begin) // 4
        stream.seek(begin)
        stream.write((0.1 * np.random.default_rng(9).standard_normal(numbers)).astype("<f4").tobytes())


def own_lines(errors: str) -> list[str]:
    return [line for line in without_notes(errors).splitlines() if line.startswith("comigs")]


# Between stop and resumption --------------------------------------------------------------------------------


def test_another_architecture_with_the_same_weights_is_refused(project):
    project.interrupted()
    project.changes_config(n_head=4, layer_norm_epsilon=1e-6)
    errors = project.resume(code=2)
    assert "base/config.json: n_head: 2 there, 4 here" in errors
    assert "base/config.json: layer_norm_epsilon: 1e-05 there, 1e-06 here" in errors
    assert "digest" not in errors and errors.count("another run") == 1
    # What comigs does not read does not matter.
    project.changes_config(n_head=2, layer_norm_epsilon=1e-5, attn_pdrop=0.3, note="mine")
    assert own_lines(project.resume()) == []


def test_other_activations_are_refused(project):
    """They may come from another processor: `auto` beside bf16 weights is decided where a run begins."""
    narrow = ("--precision", "bf16")
    project.interrupted(*narrow, "--activations", "bf16")
    assert project.attributes()["activations"] == "bf16"
    errors = project.resume(*narrow, "--activations", "float32", code=2)
    assert "activations (--activations): bf16 there, float32 here" in errors
    assert own_lines(project.resume(*narrow, "--activations", "bf16")) == []
    done = comigs("route", project.folder / "run", "--device", "cpu", "--threads", 1)
    assert done.code == 0 and done.errors == ""


def test_another_data_set_is_refused(project):
    project.interrupted()
    manifest = project.folder / "data" / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert f"manifest of the data set {project.folder}/data: digest" in project.resume(code=2)


def test_a_project_that_moved_goes_on_to_the_same_bits(project, tmp_path):
    project.interrupted()
    unbroken = Project(tmp_path / "unbroken", project.folder / "base", project.folder / "data")
    finish(unbroken.words())
    project.folder = project.folder.rename(tmp_path / "moved")
    errors = project.resume()
    for name in ("data", "base"):
        told = f"goes on with {tmp_path}/moved/{name}, before {tmp_path}/project/{name}: the same content"
        assert errors.count(told) == 1, errors
    names = {name for name in differing(unbroken.results, project.results)}
    assert names == {"/base_model"}
    # What is asked of the run afterwards finds its files.
    done = comigs("route", project.folder / "run", "--device", "cpu", "--threads", 1)
    assert done.code == 0, done.errors


def test_a_run_that_moved_when_it_was_done_says_how_it_is_routed(project, tmp_path):
    finish(project.words("--rounds", 1))
    project.folder = project.folder.rename(tmp_path / "moved")
    words = ["route", project.folder / "run", "--device", "cpu", "--threads", 1]
    for name, option in (("base", "--model"), ("data", "--data")):
        done = comigs(*words)
        assert done.code == 2 and f"project/{name}: no such" in done.errors and option in done.errors
        words += [option, project.folder / name]
    assert comigs(*words).code == 0
    project.changes_config(n_head=4)
    done = comigs(*words)
    assert done.code == 2 and "n_head: 2 there, 4 here" in done.errors


def test_another_build_and_other_threads_are_told_and_recorded(project, tmp_path, monkeypatch):
    """The build is another one by its commit's name, which stands in the executable once or more."""
    project.interrupted()
    begun = rounds_in(project.results)
    before = project.attributes()
    built = re.search(r"\((.*)\)", run([executable(), "--version"]).output)[1]
    other = "0" * len(built)
    program = tmp_path / "comigs"
    program.write_bytes(Path(executable()).read_bytes().replace(built.encode(), other.encode()))
    program.chmod(0o755)
    monkeypatch.setenv("COMIGS_EXECUTABLE", str(program))
    errors = project.resume("--threads", 2)
    told = own_lines(errors)
    assert len(told) == 1 and "the last bits may differ" in told[0], errors
    for word in (f"({other})", f"({built})", "cpu, 1 thread,", "cpu, 2 threads,"):
        assert word in told[0]
    after = project.attributes()
    assert [entry.split(":")[0] for entry in after["history"]] == ["from round 0", f"from round {begun + 1}"]
    assert built in after["history"][0] and other in after["history"][1]
    assert list(before["history"]) == [after["history"][0]]
    assert after["activations"] == "float32" and json.loads(after["base_architecture"])["n_head"] == 2


# Between ranks ----------------------------------------------------------------------------------------------


def stale_base(project: Project) -> list[object]:
    other_weights(project.folder / "stale" / "model.safetensors")
    return ["weights of the base model", f"{project.folder}/base", "digest"]


def other_epsilon(project: Project) -> list[object]:
    file = project.folder / "stale" / "config.json"
    file.write_text(file.read_text(encoding="utf-8").replace("1e-05", "1e-06"), encoding="utf-8")
    return ["base/config.json: layer_norm_epsilon: 1e-05 there, 1e-06 here"]


def with_an_unlike_rank(project: Project, of: str, words: list[object], ranks: int) -> Done:
    """Of the command, whose last rank sees PROJECT/stale at PROJECT/`of`."""
    stale = mounted(project.folder / "stale", project.folder / of)
    with Running(*words, ranks=ranks, of_rank={ranks - 1: stale}) as running:
        return running.end()


@needs_mounts
@pytest.mark.parametrize("spoil", [stale_base, other_epsilon], ids=lambda spoil: spoil.__name__)
def test_a_base_that_one_node_has_otherwise_is_refused(spoil: Callable, project):
    shutil.copytree(project.folder / "base", project.folder / "stale")
    words = spoil(project)
    done = with_an_unlike_rank(project, "base", project.words(), 4)
    assert done.code == 2, done.output + done.errors
    (line,) = own_lines(done.errors)
    assert "rank 3 (user Dutch on " in line and "rank 0" in line
    for word in words:
        assert str(word) in line
    assert not project.results.exists()


@needs_mounts
def test_pretrain_refuses_a_manifest_that_one_node_has_otherwise(project):
    shutil.copytree(project.folder / "data", project.folder / "stale")
    manifest = project.folder / "stale" / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    words = ["pretrain", "--data", project.folder / "data", "--output", project.folder / "made"]
    words += ["--steps", 1, "--width", 32, "--context-tokens", 12, "--device", "cpu", "--threads", 1]
    done = with_an_unlike_rank(project, "data", words, 2)
    assert done.code == 2, done.output + done.errors
    (line,) = own_lines(done.errors)
    assert "rank 1 (" in line and "data/manifest.json" in line
    assert not (project.folder / "made").exists()


# While the run goes on --------------------------------------------------------------------------------------


def test_weights_that_are_written_over_end_the_run_by_name(project):
    with Running(*project.words("--rounds", 1000)) as running:
        running.wait_for_round(1)
        other_weights(project.weights)
        done = running.end()
    assert done.code == 2, done.output + done.errors
    (line,) = own_lines(done.errors)
    assert f"'{project.weights}' changed while it was in use" in line
    # No round that was computed with both is among the results, and it goes on with neither.
    assert rounds_in(project.results) == len(re.findall(r"^ *\d+/1000", done.output, re.MULTILINE)) - 1
    assert "weights of the base model" in project.resume("--rounds", 1000, code=2)


@pytest.mark.parametrize("file", ["base/model.safetensors", "data/user1/train.bin"])
def test_a_file_that_is_cut_is_named(file, project):
    with Running(*project.words("--rounds", 1000)) as running:
        running.wait_for_round(1)
        (project.folder / file).write_bytes(b"")
        done = running.end()
    assert done.code == 2, done.output + done.errors
    assert f"'{project.folder / file}'" in done.errors and "0 bytes now" in done.errors
    assert "Bus error" not in done.errors + done.epilogue
    assert rounds_in(project.results) >= 1


def test_a_base_that_is_replaced_under_its_name_stays_as_it_was(project, tmp_path):
    unbroken = Project(tmp_path / "unbroken", project.folder / "base", project.folder / "data")
    finish(unbroken.words())
    with Running(*project.words()) as running:
        running.wait_for_round(1)
        other = project.folder / "other"
        shutil.copy(project.weights, other)
        other_weights(other)
        other.rename(project.weights)
        done = running.end()
    assert done.code == 0, done.output + done.errors
    assert differing(unbroken.results, project.results) == ["/base_model"]


# What is said without effect --------------------------------------------------------------------------------


def test_options_without_effect_are_told_of_once(project):
    done = finish(project.words("--rounds", 1, "--method", "fedavg"))
    (line,) = own_lines(done.errors)
    assert (
        "without effect with method 'fedavg': --router-every, --router-steps (the method has no routers)"
        in line
    )


@pytest.mark.parametrize("words", [("train",), ("pretrain",)])
def test_seeds_have_one_range(words):
    for seed in (2**63, -1, 2**64):
        done = run([executable(), *words, "--seed", seed])
        assert done.code == 2
        assert f"--seed: found '{seed}', expected an integer from 0 to 2^63 - 1" in done.errors
