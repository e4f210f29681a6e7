"""`comigs pretrain`: the same weights on any number of ranks, a folder that transformers reads; stopped and gone on."""

from __future__ import annotations

import math
import re
import shutil
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.helpers.broken_runs import Running, holds_back
from tests.helpers.tiny import TOKENISER, VOCABULARY, Done, alone, comigs, executable, run

CONTEXT, WIDTH, STEPS = 14, 32, 6
# Five sequences: two ranks get unequal shares.
OPTIONS = ["--layers", 2, "--width", WIDTH, "--heads", 2, "--context-tokens", CONTEXT, "--batch-sequences", 5]
OPTIONS += ["--steps", STEPS, "--learning-rate", 1e-2, "--evaluate-every", 4, "--seed", 7]
OPTIONS += ["--device", "cpu", "--threads", 1]


def pretrain(data: Path, output: Path, *options: object, ranks: int = 1) -> Done:
    words = ("pretrain", "--data", data, "--output", output, *OPTIONS, *options)
    return alone(*words) if ranks == 1 else comigs(*words, ranks=ranks)


@pytest.fixture(scope="module")
def made(tiny_data, tmp_path_factory) -> dict[int, tuple[Path, Done]]:
    """The folder and what was printed, by the number of ranks."""
    folders = {ranks: tmp_path_factory.mktemp("bases") / f"of {ranks}" for ranks in (1, 2)}
    runs = {ranks: (folder, pretrain(tiny_data, folder, ranks=ranks)) for ranks, folder in folders.items()}
    for _, done in runs.values():
        assert done.code == 0, done.errors
    return runs


def printed_perplexity(done: Done) -> float:
    """That after the last step."""
    found = re.findall(
        r"^step +(\d+) +loss +[\d.]+ +validation perplexity +([\d.]+)", done.output, re.MULTILINE
    )
    assert [int(step) for step, _ in found] == [4, STEPS]
    return float(found[-1][1])


def test_ranks_change_rounding_only(made):
    one, two = (load_file(made[ranks][0] / "model.safetensors") for ranks in (1, 2))
    assert one.keys() == two.keys() and len(one) == 28
    for weights in (one, two):
        # A key's bias moves no attention weight: its gradient is rounding, which AdamW makes full steps of.
        for layer in (0, 1):
            weights[f"transformer.h.{layer}.attn.c_attn.bias"][WIDTH : 2 * WIDTH] = 0
    worst = max(((two[name] - one[name]).norm() / one[name].norm()).item() for name in one)
    print(f"largest relative difference of a weight {worst:.1e}")
    assert worst <= 1e-4
    assert printed_perplexity(made[2][1]) == pytest.approx(printed_perplexity(made[1][1]), rel=1e-3)


def test_training_changed_every_weight(made, tiny_data, tmp_path):
    options = [0 if option == STEPS else option for option in OPTIONS]
    done = alone("pretrain", "--data", tiny_data, "--output", tmp_path / "start", *options)
    assert done.code == 0, done.errors
    start, end = load_file(tmp_path / "start/model.safetensors"), load_file(made[1][0] / "model.safetensors")
    for name, value in start.items():
        assert ((end[name] - value).norm() > 1e-3 * end[name].norm()).item(), name


@torch.no_grad()
def test_transformers_reads_the_folder_and_finds_the_printed_perplexity(made, tiny_data):
    folder, done = made[1]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert model.config.vocab_size == VOCABULARY and model.config.n_positions == CONTEXT
    tokens = torch.from_numpy(np.fromfile(tiny_data / "base/validation.bin", dtype="<u2").astype(np.int64))
    nats = 0.0
    for position in range(1, len(tokens)):
        begin = (position - 1) // CONTEXT * CONTEXT
        logits = model(tokens[begin:position].unsqueeze(0)).logits[0, -1].double()
        nats -= logits.log_softmax(-1)[tokens[position]].item()
    expected = math.exp(nats / (len(tokens) - 1))
    assert printed_perplexity(done) == pytest.approx(expected, abs=0.006)
    assert expected < VOCABULARY  # it has learnt something


def test_tokeniser_lies_beside_the_weights(made):
    names = {"config.json", "model.safetensors", "tokenizer.json", "comigs_pretrain.txt"}
    for folder, _ in made.values():
        assert (folder / "tokenizer.json").read_text(encoding="utf-8") == TOKENISER
        assert {entry.name for entry in folder.iterdir()} == names


@pytest.mark.parametrize("ranks", [1, 2])
def test_second_call_does_nothing(made, tiny_data, ranks):
    folder, _ = made[1]
    before = {entry: entry.stat().st_mtime_ns for entry in folder.iterdir()}
    done = pretrain(tiny_data, folder, ranks=ranks)
    assert (
        done.code == 0
        and done.output.strip() == f"{folder}: there already, made by the same options from the same data"
    )
    assert {entry: entry.stat().st_mtime_ns for entry in folder.iterdir()} == before


@pytest.mark.parametrize("ranks", [1, 2])
def test_other_options_do_not_overwrite(made, tiny_data, ranks):
    folder, _ = made[1]
    before = {entry: entry.stat().st_mtime_ns for entry in folder.iterdir()}
    done = pretrain(tiny_data, folder, "--weight-decay", 0.3, ranks=ranks)
    assert done.code == 2 and done.output == ""
    assert (
        done.errors.count("\n") == 1
        and str(folder) in done.errors
        and "remove it or name another" in done.errors
    )
    assert {entry: entry.stat().st_mtime_ns for entry in folder.iterdir()} == before


def test_weights_that_are_not_the_recorded_ones_are_no_model_of_this_call(made, tiny_data, tmp_path):
    """A record beside the weights of another call must not speak for them."""
    folder = shutil.copytree(made[1][0], tmp_path / "base")
    weights = folder / "model.safetensors"
    other = bytearray(weights.read_bytes())
    other[-1] ^= 0x40
    weights.write_bytes(other)
    done = pretrain(tiny_data, folder)
    assert done.code == 2 and "remove it or name another" in done.errors
    assert weights.read_bytes() == other


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "comigs_pretrain.txt"]
)
def test_files_of_others_are_not_overwritten(tiny_data, tmp_path, name):
    (tmp_path / name).write_text("precious")
    done = pretrain(tiny_data, tmp_path)
    assert done.code == 2 and done.errors.count("\n") == 1 and name in done.errors, done.errors
    assert {entry.name for entry in tmp_path.iterdir()} == {name}
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize(
    ("ranks", "spoilt", "words"),
    [
        (1, {"--stepz": 5}, "did you mean '--steps'?"),
        (2, {"--stepz": 5}, "did you mean '--steps'?"),
        (2, {"--data": "absent"}, "absent: no such data-set folder"),
        (1, {"--width": 33}, "expected a multiple of heads, which is 2"),
        (2, {"--context-tokens": 600}, "600 tokens, expected at least 601 (context_tokens = 600)"),
    ],
)
def test_bad_options(tiny_data, tmp_path, ranks, spoilt, words):
    given = (
        dict(zip(OPTIONS[::2], OPTIONS[1::2])) | {"--data": tiny_data, "--output": tmp_path / "base"} | spoilt
    )
    arguments = ("pretrain", *(word for option in given.items() for word in option))
    done = alone(*arguments) if ranks == 1 else comigs(*arguments, ranks=ranks)
    assert done.code == 2 and done.output == ""
    assert done.errors.count("\n") == 1 and words in done.errors, done.errors
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("steps", [1, 3])
def test_two_ranks_leave_when_numbers_are_not_finite(tiny_data, tmp_path, steps):
    """Also when only the last step spoilt the weights: a base that predicts nothing is not written."""
    options = [{STEPS: steps, 1e-2: 1e30}.get(option, option) for option in OPTIONS]
    done = comigs("pretrain", "--data", tiny_data, "--output", tmp_path / "base", *options, ranks=2)
    assert done.code == 1, done.output
    assert done.errors.count("\n") == 1 and "not finite" in done.errors and "--learning-rate" in done.errors
    assert "MPI_ABORT" not in done.epilogue
    # The folder was claimed before the work; what says that there is a model is not in it.
    assert {entry.name for entry in (tmp_path / "base").iterdir()} == {"comigs_pretrain.txt"}


# Stopped and gone on with --------------------------------------------------------------------------------------

MANY = 400


def options_with(**changed: object) -> list[object]:
    given = dict(zip(OPTIONS[::2], OPTIONS[1::2]))
    given |= {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    return [word for option in given.items() for word in option]


@pytest.fixture(scope="module")
def long_options() -> list[object]:
    return options_with(steps=MANY, evaluate_every=1, learning_rate=1e-3)


@pytest.fixture(scope="module")
def undisturbed(tiny_data, tmp_path_factory, long_options) -> bytes:
    output = tmp_path_factory.mktemp("undisturbed") / "base"
    done = comigs("pretrain", "--data", tiny_data, "--output", output, *long_options, ranks=2)
    assert done.code == 0, done.errors
    return (output / "model.safetensors").read_bytes()


def begun(data: Path, output: Path, options: list[object], *more: object) -> Running:
    return Running("pretrain", "--data", data, "--output", output, *options, *more, ranks=2)


def last_step(output: str) -> int:
    return max(map(int, re.findall(r"^step +(\d+) ", output, re.MULTILINE)), default=0)


def test_a_pretraining_that_is_stopped_again_and_again_ends_the_same(
    tiny_data, tmp_path, long_options, undisturbed
):
    output, told = tmp_path / "base", 0
    for rank, number in ((0, signal.SIGUSR1), (1, signal.SIGTERM)):
        with begun(tiny_data, output, long_options) as run:
            run.wait_until(lambda run=run, least=told + 20: last_step(run.output()) >= least)
            assert run.signal(rank, number)
            done = run.end()
        assert done.code == 3, done.output + done.errors
        assert f"stopped by {number.name} after" in done.errors and "the same command" in done.errors
        assert ("going on after step" in done.output) == (told > 0)
        told = last_step(done.output)
        assert not (output / "config.json").exists() and (output / "comigs_pretrain.safetensors").exists()
    done = comigs("pretrain", "--data", tiny_data, "--output", output, *long_options, ranks=2)
    assert done.code == 0 and "going on after step" in done.output, done.errors
    assert (output / "model.safetensors").read_bytes() == undisturbed
    assert not (output / "comigs_pretrain.safetensors").exists()


def stopped(data: Path, output: Path, options: list[object]) -> Path:
    with begun(data, output, options) as run:
        run.wait_until(lambda: last_step(run.output()) >= 5)
        run.signal(0, signal.SIGUSR1)
        assert run.end().code == 3
    return output / "comigs_pretrain.safetensors"


def test_a_checkpoint_that_is_damaged_or_of_other_options_is_refused(tiny_data, tmp_path, long_options):
    output = tmp_path / "base"
    checkpoint = stopped(tiny_data, output, long_options)
    whole = checkpoint.read_bytes()
    other = comigs("pretrain", "--data", tiny_data, "--output", output, *long_options, "--weight-decay", 0.3)
    assert other.code == 2 and str(output) in other.errors and checkpoint.read_bytes() == whole
    checkpoint.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    done = comigs("pretrain", "--data", tiny_data, "--output", output, *long_options, ranks=2)
    assert done.code == 2 and done.errors.count("\n") == 1, done.errors
    assert str(checkpoint) in done.errors and "damaged" in done.errors


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_before_the_first_step_leaves_nothing_to_go_on_from(
    number, tiny_data, tmp_path, long_options
):
    with begun(tiny_data, tmp_path / "base", long_options) as run:
        run.wait_until(lambda: holds_back(run.ranks().get(1, 0), number))
        assert run.signal(1, number)
        done = run.end()
    assert done.code == 3, done.output + done.errors
    assert f"stopped by {number.name} after 0 of {MANY} steps;" in done.errors
    assert not (tmp_path / "base" / "comigs_pretrain.safetensors").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_of_a_pretraining_that_freezes_is_named(rank, tiny_data, tmp_path):
    endless = options_with(steps=100_000, evaluate_every=50, learning_rate=1e-3, patience=2)
    with begun(tiny_data, tmp_path / "base", endless) as run:
        run.wait_until(lambda: last_step(run.output()) >= 50)
        assert run.signal(rank, signal.SIGSTOP)
        done = run.end()
    assert done.code == 1, done.output + done.errors
    assert f"rank {rank} (on {socket.gethostname()}) had not come" in done.errors


def test_one_rank_needs_no_launcher_in_a_step_of_slurm(tiny_data, tmp_path):
    """`srun --pty bash`: Open MPI takes these for a launch without PMI, and gives up."""
    step = ["SLURM_JOBID=7", "SLURM_JOB_ID=7", "SLURM_STEP_ID=0", "SLURM_STEP_NUM_TASKS=1", "SLURM_PROCID=0"]
    step.append(f"SLURM_NODELIST={socket.gethostname()}")
    words = ["env", *step, executable(), "pretrain", "--data", tiny_data, "--output", tmp_path / "base"]
    done = run([*words, *OPTIONS])
    assert done.code == 0, done.errors


def test_memory_that_is_not_there_is_told_of_in_our_words(tiny_data, tmp_path):
    """Some 200 TB, more than an address space holds."""
    options = options_with(layers=1000, width=65536)
    done = comigs("pretrain", "--data", tiny_data, "--output", tmp_path / "base", *options, ranks=2)
    assert done.code == 1 and done.errors.count("\n") == 1, done.errors
    assert re.search(r"out of memory: \d{5,6}\.\d\d GiB more were wanted", done.errors), done.errors
