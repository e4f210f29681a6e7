"""The comparison's two sides do the same steps, and its table says what was found."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.bench.bases import Base, Gpt2, Llama
from tests.bench.plain import Sizes
from tests.bench.plain_steps import Record, plain_model
from tests.bench.plain_steps import run as run_plain
from tests.bench.programs import BenchError
from tests.bench.steps import Case, Report, check_losses, difference
from tests.bench.table import Bound, Figure, as_json, as_text
from tests.helpers.built_program import built_program
from tests.helpers.llamas import llama_folder
from tests.helpers.tiny import run

STEPS = 4


@pytest.fixture(params=["gpt2", "llama"])
def base(request, tiny_base, tmp_path_factory) -> Path:
    return tiny_base if request.param == "gpt2" else llama_folder(tmp_path_factory.mktemp("base"), "llama")


def both_sides(
    folder: Path, base: Path, data: Path, phase: str, experts: int, precision: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reports of the same steps: comigs', plain PyTorch's."""
    record = folder / "record.safetensors"
    command = [built_program("bench_steps"), phase, 1, STEPS - 1, 0.05, record]
    command += ["--data", data, "--model", base, "--threads", 1, "--lora-rank", 4, "--precision", precision]
    command += ["--method", "comigs-1gxs", "--experts", experts, "--load-balancing-weight", 0.3]
    command += ["--batch-sequences", 6, "--context-tokens", 12]
    done = run(command)
    assert done.code == 0, done.errors
    return json.loads(done.output), run_plain(Record.read(record))


@pytest.mark.parametrize("phase", ["experts", "routers"])
@pytest.mark.parametrize("experts", [2, 4])
def test_plain_pytorch_does_the_same_steps(phase, experts, base, tiny_data, tmp_path) -> None:
    found, expected = both_sides(tmp_path, base, tiny_data, phase, experts, "float32")
    assert len(found["losses"]) == len(expected["losses"]) == STEPS
    assert len(found["seconds"]) == len(expected["seconds"]) == STEPS - 1
    for mine, theirs in zip(found["losses"], expected["losses"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)
    # The steps do something, and more than once the same.
    assert len({loss for loss, _ in found["losses"]}) == STEPS
    for size in ("frozen_parameters", "trained_parameters"):
        assert found[size] == expected[size]


def test_plain_pytorch_does_the_same_steps_in_bf16(base, tiny_data, tmp_path) -> None:
    found, expected = both_sides(tmp_path, base, tiny_data, "experts", 4, "bf16")
    # Numbers of 8 bits, of which these models have too few for errors to cancel out.
    assert difference(Report(found), Report(expected)) < 2**-8


def test_plain_experts_that_add_nothing_leave_the_base_as_transformers_has_it(base: Path) -> None:
    expected = AutoModelForCausalLM.from_pretrained(base).eval()
    sizes = Sizes(heads=expected.config.num_attention_heads, experts=4, top_k=2, rank=3, scale=2.0)
    plain = plain_model(base, sizes, torch.float32)
    plain.initialise()  # B is zero, and the gates of a token add up to one
    tokens = torch.randint(expected.config.vocab_size, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(plain.logits(tokens), expected(tokens).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", [Gpt2(), Llama()], ids=["gpt2", "llama"])
def test_bases_have_the_weights_that_transformers_has(sizes: Base) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**sizes.config()))
    weights = {name.removeprefix("transformer."): weight for name, weight in model.named_parameters()}
    assert sizes.shapes() == {name: tuple(weight.shape) for name, weight in weights.items()}
    matrices = [w.numel() for name, w in weights.items() if w.dim() == 2 and name != "wpe.weight"]
    assert sizes.frozen_in_products == sum(matrices)


def test_bench_steps_refuses_what_it_does_not_know() -> None:
    done = run([built_program("bench_steps"), "expert", 1, 1, 0, "-"])
    assert done.code == 2
    assert "experts|routers" in done.errors


def test_compare_says_what_is_not_built(tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "tests.bench.compare", "--executables", tmp_path])
    assert done.code == 2
    assert str(tmp_path / "comigs") in done.errors and "cmake --build" in done.errors


def report(*losses: tuple[float, float | None]) -> Report:
    return Report({"setting": {"balancing_weight": 0.01}, "losses": losses})


def test_losses_that_differ_are_an_error() -> None:
    expected = report((4.0, 0.5), (2.0, None))
    plain, official = (Case(program=program) for program in ("plain", "official"))
    check_losses(plain, report((4.0, 0.505), (2.0001, None)), expected)
    check_losses(official, report((4.0, None), (2.0001, None)), expected)  # the text's alone
    for differing in ((2.001, None), (math.nan, None), (2.0, 0.5)):
        with pytest.raises(BenchError, match="expected at most 1e-04"):
            check_losses(plain, report((4.0, 0.5), differing), expected)


def test_the_authors_program_is_asked_for_by_its_checkout(tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "tests.bench.compare", "--official", tmp_path])
    assert done.code == 2
    assert done.errors.splitlines()[-1].endswith("expected a checkout of epfml/CoMiGS, with models/model.py")


def test_table_and_json_say_what_was_found(tmp_path: Path) -> None:
    figures = [
        Figure("quick", "times as fast", [2.5, 1.5, 1.75], Bound(at_least=1.6)),
        Figure("small", "of the memory", [0.75], Bound(at_most=0.5)),
    ]
    assert json.loads(json.dumps(as_json(figures))) == {
        "quick": {"min": 1.5, "median": 1.75, "max": 2.5, "at_least": 1.6},
        "small": {"min": 0.75, "median": 0.75, "max": 0.75, "at_most": 0.5},
    }
    lines = as_text(figures).splitlines()
    assert lines[2].split() == "quick 1.5 1.75 2.5 times as fast at least 1.6 yes".split()
    assert lines[3].split() == "small 0.75 0.75 0.75 of the memory at most 0.5 NO".split()
    assert not Figure("broken", "", [math.nan], Bound(at_most=1.0)).reached
