"""`comigs route` on texts of one's own, figures of it, and what it refuses."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.helpers.broken_runs import check_it_ends_at_once
from tests.helpers.built_program import ROOT
from tests.helpers.data_set_reader import refused
from tests.helpers.routed import (
    CONTEXTS,
    EXPERTS,
    ROUNDS,
    TEXT,
    VOCABULARY,
    mixed,
    place,
    probe,
    probes,
    reference_gates,
    route,
    stored_model,
    trained,
)
from tests.helpers.tiny import (
    comigs,
    data_set,
    executable,
    gpt2_folder,
    run,
)

__all__ = ["mixed", "place", "probes"]  # fixtures for tests here


# Own texts --------------------------------------------------------------------------------------------------


def test_own_text_is_encoded_whole(probes, place):
    content = json.loads(probes.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(place / "data" / "tokenizer.json"))
    (found,) = content["probes"]
    assert content["vocabulary"] == VOCABULARY and found["name"] == "out of domain"
    assert tokenizer.decode(found["ids"], skip_special_tokens=False) == TEXT.rstrip("\n")
    assert tokenizer.token_to_id("<|endoftext|>") not in found["ids"]  # a text cannot end itself
    assert found["text"] == [tokenizer.decode([token]) for token in found["ids"]]


def test_own_text_through_the_models(mixed, probes, place):
    (expected,) = json.loads(probes.read_text(encoding="utf-8"))["probes"]
    route(mixed, "--probes", probes, "--data", mixed.parent / "absent")  # no data set is needed
    found = probe(mixed, "out of domain")
    assert found.attrs["owner"] == "" and found["ids"].values.tolist() == expected["ids"]
    assert found["text"].values.tolist() == [text.replace("\x00", "\ufffd") for text in expected["text"]]
    for user in (0, 1):
        model = stored_model(mixed / "results.h5", place / "base", user)
        gates = reference_gates(model, expected["ids"], CONTEXTS[user])
        np.testing.assert_allclose(found["score"].values[user, ..., : EXPERTS[user]], gates, atol=2e-5)
    route(mixed)  # beside it, not in its place
    with h5py.File(mixed / "results.h5") as file:
        assert sorted(file["tokens"]) == ["out of domain", "user_0", "user_1", "user_2", "user_3"]


def test_own_texts_that_cannot_be(place, tmp_path):
    tokeniser = place / "data" / "tokenizer.json"
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    (tmp_path / "long.txt").write_text("é " * 40_000, encoding="utf-8")
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    good, output = f"a={tmp_path / 'text.txt'}", tmp_path / "probes.json"
    cases = [
        (["--text", "a"], output, "NAME=FILE is expected"),
        (["--text", f"a/b={tmp_path / 'text.txt'}"], output, "without '/'"),
        (["--text", f"..={tmp_path / 'text.txt'}"], output, "without '/'"),
        (["--text", good, "--text", good], output, "two texts of this name"),
        (["--text", f"a={tmp_path / 'absent.txt'}"], output, "absent.txt: no such file"),
        (["--text", f"a={tmp_path / 'empty.txt'}"], output, "empty.txt: 0 tokens"),
        (["--text", f"a={tmp_path / 'long.txt'}"], output, "1 to 65,536 are expected"),
        (["--text", good], tmp_path / "other.json", "other.json: is there already"),
    ]
    for words, file, message in cases:
        assert message in refused("probes", "--tokeniser", tokeniser, *words, "--output", file)
    assert "no such file" in refused(
        "probes", "--tokeniser", tmp_path / "absent", "--text", good, "--output", output
    )
    assert not output.exists() and not list(tmp_path.glob(".*"))


# Analysis ---------------------------------------------------------------------------------------------------


def test_paper_figures_are_made_of_it(place, tmp_path):
    folder = tmp_path / "runs" / "slimpajama" / "one-seed5"
    shutil.copytree(trained(place, "1g1s", "comigs-1g1s", "--context-tokens", 12), folder)
    route(folder, "--tokens", 30)
    row = {"item": "figure13", "row": "CoMiGS - 1G1S", "section": "", "alternative": {}}
    entry = {
        "folder": "slimpajama/one-seed5",
        "dataset": "slimpajama",
        "seed": 5,
        "options": {"method": "comigs-1g1s"},
        "status": "done",
        "seconds": 1.0,
        "items": [row],
    }
    content = {"format": "comigs-sweep-index", "format_version": 1, "scale": "tiny", "runs": [entry]}
    index = tmp_path / "runs" / "index.json"
    index.write_text(json.dumps(content), encoding="utf-8")
    for item in ("figure13", "figure5"):
        command = [sys.executable, "-m", "analysis", item, "--index", index, "--output", tmp_path / "paper"]
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        page = (tmp_path / "paper" / f"{item}.html").read_text(encoding="utf-8")
        score = probe(folder, "user_1")["score"].values[1, 0, 0]
        assert f"generalist {score[0]:.2f}, specialist {score[1]:.2f}" in page
        assert (tmp_path / "paper" / f"{item}.png").stat().st_size > 10_000


# Bad input --------------------------------------------------------------------------------------------------


def assert_refused(folder: Path, *words: str, arguments: Sequence[object] = ()) -> None:
    """Exit code 2, a message of one line, and the results as they were."""
    path = folder / "results.h5"
    content = path.read_bytes()
    done = route(folder, *arguments, code=2)
    assert len(done.errors.splitlines()) == 1 and not done.output, done.errors
    for word in words:
        assert word in done.errors, done.errors
    assert path.read_bytes() == content and [entry.name for entry in folder.iterdir()] == ["results.h5"]


def test_other_base_and_other_data_are_refused(mixed, place, tmp_path):
    other = gpt2_folder(tmp_path / "other", vocabulary=VOCABULARY, seed=1)
    assert_refused(mixed, "other: not the base model of", "--model", arguments=["--model", other])
    assert_refused(mixed, "absent: no such folder", arguments=["--model", tmp_path / "absent"])
    data = data_set(tmp_path / "data", vocabulary=VOCABULARY, lengths={"test": 90})
    assert_refused(mixed, "data: not the data set of", "--data", arguments=["--data", data])
    assert_refused(mixed, "absent: no such data-set", arguments=["--data", tmp_path / "absent"])
    shutil.copytree(place / "base", tmp_path / "moved")
    route(mixed, "--model", tmp_path / "moved")


def test_runs_without_what_is_needed_are_refused(mixed, place, tmp_path):
    shutil.copytree(trained(place, "pretrained", "pretrained", "--context-tokens", 12), tmp_path / "none")
    assert_refused(tmp_path / "none", "'pretrained' has no experts, so there is nothing to route")
    with h5py.File(mixed / "results.h5", "r+") as file:
        del file[f"attention/weights/{ROUNDS}/user_1/layer_0/attn.c_attn_A"]
    assert_refused(mixed, f"'attention/weights/{ROUNDS}/user_1/layer_0/attn.c_attn_A' is missing")
    with h5py.File(mixed / "results.h5", "r+") as file:
        text = file.attrs["configuration"]
        file.attrs["configuration"] = text.replace(f"rounds = {ROUNDS}", "rounds = 7")
    assert_refused(mixed, f"round {ROUNDS} of 7 is the last one there")
    (mixed / "results.h5").write_text("this is text")
    assert_refused(mixed, "results.h5: not the results of a run")


def test_other_texts_are_refused(mixed, probes):
    content = json.loads(probes.read_text(encoding="utf-8"))

    def refuse(message: str, **changes: object) -> None:
        probes.write_text(json.dumps(content | changes), encoding="utf-8")
        assert_refused(mixed, str(probes), message, arguments=["--probes", probes])

    refuse("a tokeniser of 301 entries", vocabulary=VOCABULARY + 1)
    refuse("'probes[0].ids[0]'", probes=[{"name": "a", "ids": [VOCABULARY], "text": ["b"]}])
    refuse("'probes[0].name'", probes=[{"name": "a/b", "ids": [1], "text": ["b"]}])
    probes.write_text("{", encoding="utf-8")
    assert_refused(mixed, "not valid JSON", arguments=["--probes", probes])


def test_command_lines_that_cannot_be(mixed, tmp_path):
    assert_refused(mixed, "unknown option '--token'; did you mean '--tokens'?", arguments=["--token", 3])
    assert_refused(mixed, "--tokens: found '0'", arguments=["--tokens", 0])
    assert "found no run" in route(code=2).errors
    assert "absent: no such file" in route(tmp_path / "absent", code=2).errors
    two = comigs("route", mixed, ranks=2)
    assert two.code == 2 and "2 MPI ranks: 'comigs route' is one process" in two.errors
    shown = run([executable(), "route", "--help"])
    assert shown.code == 0 and shown.output.startswith("Usage: comigs route RUN")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_ends_it_at_once_and_leaves_the_file(number, mixed):
    before = (mixed / "results.h5").read_bytes()
    check_it_ends_at_once(number, [executable(), "route", mixed])
    assert (mixed / "results.h5").read_bytes() == before


def test_a_step_of_slurm_without_pmi_is_no_obstacle(mixed):
    """`srun --pty bash`: Open MPI would take these for a launch without PMI, and give up."""
    step = ["SLURM_JOBID=7", "SLURM_JOB_ID=7", "SLURM_STEP_ID=0", "SLURM_STEP_NUM_TASKS=1", "SLURM_PROCID=0"]
    done = run(["env", *step, f"SLURM_NODELIST={socket.gethostname()}", executable(), "route", mixed])
    assert done.code == 0, done.errors
