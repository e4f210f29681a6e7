"""Exported models, opened by peft and transformers, against plain models of the run's numbers and comigs' own
perplexities."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from analysis.cli import main
from analysis.export import merged
from analysis.export.base import find_base
from analysis.export.card import card
from analysis.export.loader import load_mixture
from analysis.export.trained import read_user
from analysis.read.results import open_run
from tests.helpers.llamas import PlainLlama, llama, llama_folder
from tests.helpers.plain_model import PlainModel, Setting, frozen_weights, windows
from tests.helpers.results_fixture import write_results
from tests.helpers.routed import stored_parameters
from tests.helpers.tiny import TOKENISER, alone, data_set, gpt2_folder, tokens_of, train

RANK, ALPHA, CONTEXT, ROUNDS = 8, 6.0, 12, 1
OPTIONS = ["--lora-rank", RANK, "--lora-alpha", ALPHA, "--context-tokens", CONTEXT]
OPTIONS += ["--local-steps", 4, "--batch-sequences", 2, "--router-every", 2, "--router-steps", 4]
# Large steps, so that a forgotten factor shows.
OPTIONS += ["--expert-learning-rate", 0.02, "--router-learning-rate", 0.05]


@dataclass(frozen=True)
class Made:
    """A finished run, and what its users have."""

    base: Path
    data: Path
    results: Path
    experts: int
    top_k: int
    routed: bool

    def plain(self, user: int = 0, change: Callable[[dict[str, Tensor]], object] = dict) -> PlainModel:
        """The user's model in float64 from results.h5; `change` may alter its numbers before."""
        parameters = stored_parameters(self.results, ROUNDS, user)
        change(parameters)
        held = {name.split(".expert.")[1].split(".")[0] for name in parameters if ".expert." in name}
        attention = next(
            value for name, value in parameters.items() if ".expert." not in name and name.endswith(".A")
        )
        setting = Setting(
            len(held), ALPHA / math.sqrt(RANK), self.top_k, self.routed,
            attention_scale=ALPHA / math.sqrt(len(attention)),
        )  # fmt: skip
        if (self.base / "config.json").read_text().find("GPT2") >= 0:
            return PlainModel(frozen_weights(self.base), parameters, setting)
        weights = {name: value.double() for name, value in load_file(self.base / "model.safetensors").items()}
        return PlainLlama(self.base, weights, parameters, setting)


METHODS = {
    "comigs-1gxs": ("--experts", 3),
    "comigs-1gxs, top 1": ("--experts", 3, "--top-k", 1),
    "fedavg": ("--experts", 3),
    "ffa-lora": ("--experts", 1),
    "comigs-1gxs, attention": ("--experts", 2, "--attention-rank", 3),
    "fedavg, attention": ("--experts", 1, "--attention-rank", 12),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[..., Made]:
    """made(member, method): a run of one user, made once; not to be written to."""

    @cache
    def run(member: str, method: str = "comigs-1gxs", users: int = 1) -> Made:
        folder = tmp_path_factory.mktemp("export")
        base = gpt2_folder(folder / "base") if member == "gpt2" else llama_folder(folder / "base", member)
        data = data_set(folder / "data", users=["German", "日本 語/x"][:users])
        options = [*METHODS[method], "--method", method.partition(",")[0], "--rounds", ROUNDS, *OPTIONS]
        options += ["--data", data, "--model", base, "--output", folder / "run"]
        if users > 1:
            train(*options, ranks=users)
        else:
            done = alone("train", *options, "--device", "cpu", "--threads", 1)
            assert done.code == 0, done.errors
        experts = int(METHODS[method][1])
        top_k = 1 if "top 1" in method else 2
        return Made(base, data, folder / "run" / "results.h5", experts, top_k, method.startswith("comigs"))

    return run


def export(results: Path, output: Path, *options: object, user: str = "German") -> Path:
    words = ["export", results, "--user", user, "--output", output, *options]
    assert main([str(word) for word in words]) == 0
    return output


def tokens() -> Tensor:
    return torch.randint(0, 97, (3, CONTEXT), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def distance(model: torch.nn.Module, reference: PlainModel) -> float:
    """The largest difference of logits, relative to the largest of them."""
    expected = reference.logits(tokens())[0]
    return ((model(tokens()).logits.double() - expected).abs().max() / expected.abs().max()).item()


def opened(folder: Path, run: Made) -> torch.nn.Module:
    return load_mixture(folder, AutoModelForCausalLM.from_pretrained(run.base))


@torch.no_grad()
def perplexity(model: torch.nn.Module, run: Made, user: int) -> float:
    """Of the user's test split, in windows as comigs evaluates it."""
    text = torch.from_numpy(tokens_of(run.data, user, "test"))
    nats = 0.0
    for inputs, targets in windows(text, CONTEXT):
        logits = model(inputs.unsqueeze(0)).logits[0].double()
        nats -= logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).sum().item()
    return math.exp(nats / (len(text) - 1))


def drop(beginning: str) -> Callable[[dict[str, Tensor]], None]:
    """Zeroes all B whose name has it."""

    def change(parameters: dict[str, Tensor]) -> None:
        for name in parameters:
            if beginning in name and name.endswith(".B"):
                parameters[name] = 0 * parameters[name]

    return change


def keep(expert: int) -> Callable[[dict[str, Tensor]], None]:
    """Leaves one expert, as the only one."""

    def change(parameters: dict[str, Tensor]) -> None:
        for name in [name for name in parameters if ".expert." in name]:
            value = parameters.pop(name)
            if f".expert.{expert}." in name:
                kept[name.replace(f".expert.{expert}.", ".expert.0.")] = value
        parameters |= kept

    kept: dict[str, Tensor] = {}
    return change


# Adapters and router ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "method", "rslora"),
    [
        ("gpt2", "comigs-1gxs", False),
        ("gpt2", "comigs-1gxs, top 1", False),
        ("gpt2", "fedavg", False),
        ("llama", "comigs-1gxs", True),
        ("qwen2", "comigs-1gxs", False),
        ("qwen3", "fedavg", False),
        ("gpt2", "comigs-1gxs, attention", False),
        ("llama", "comigs-1gxs, attention", True),
    ],
)
def test_adapters_and_router_make_the_user_s_model(member, method, rslora, made, tmp_path):
    run = made(member, method)
    folder = export(run.results, tmp_path / "out", *["--rslora"] * rslora)
    config = json.loads((folder / "expert-1/adapter_config.json").read_text())
    assert config["use_rslora"] == rslora
    gamma = ALPHA / math.sqrt(RANK)
    expected = ALPHA if rslora else gamma * RANK
    assert config["r"] == RANK and config["lora_alpha"] == pytest.approx(expected, rel=1e-12)
    assert isinstance(config["lora_alpha"], int) == rslora
    model = opened(folder, run)
    found = distance(model, run.plain())
    untrained = distance(model, run.plain(change=drop("")))
    print(f"{member}, {method}: {found:.1e}, from the base {untrained:.1e}")
    assert found <= 1e-4 and untrained >= 0.05
    with h5py.File(run.results) as file:
        recorded = file["perplexity/test"][-1, 0]
    assert abs(perplexity(model, run, 0) / recorded - 1) <= 1e-4


def test_the_router_decides(made, tmp_path):
    """With the experts' rows in another order the logits are others."""
    run = made("gpt2")
    folder = export(run.results, tmp_path / "out")
    routers = load_file(folder / "router.safetensors")
    with h5py.File(run.results) as file:
        for layer in range(2):
            stored = file[f"router/weights/{ROUNDS}/user_0/layer_{layer}/weight"][()]
            assert (routers[f"layers.{layer}.router.weight"].numpy() == stored).all()
    save_file(
        {name: weight.flip(0).contiguous() for name, weight in routers.items()}, folder / "router.safetensors"
    )
    assert distance(opened(folder, run), run.plain()) >= 0.01


@pytest.mark.parametrize("member", ["gpt2", "llama", "qwen3"])
def test_each_adapter_opens_alone(member, made, tmp_path):
    run = made(member)
    folder = export(run.results, tmp_path / "out")
    for expert in range(run.experts):
        alone_ = AutoPeftModelForCausalLM.from_pretrained(folder / f"expert-{expert}")
        assert distance(alone_, run.plain(change=keep(expert))) <= 1e-4
    attention = AutoPeftModelForCausalLM.from_pretrained(folder / "attention")
    assert distance(attention, run.plain(change=drop(".expert."))) <= 1e-4
    assert distance(attention, run.plain(change=drop(""))) >= 0.01
    with torch.no_grad():
        whole = attention.merge_and_unload()
    assert distance(whole, run.plain(change=drop(".expert."))) <= 1e-4


@pytest.mark.parametrize("method", ["ffa-lora", "fedavg, attention"])
def test_one_expert_is_one_adapter(method, made, tmp_path):
    run = made("gpt2", method)
    folder = export(run.results, tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"adapter", "README.md"}
    model = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter")
    assert distance(model, run.plain()) <= 1e-4 and distance(model, run.plain(change=drop(""))) >= 0.05


def test_pruned_ranks_are_left_out(tiny_base, tmp_path):
    data = data_set(tmp_path / "data", users=["German", "Dutch"])
    options = ["--method", "hetlora", "--rank-regulariser", 10, "--rounds", 6, *OPTIONS]
    train("--data", data, "--model", tiny_base, "--output", tmp_path / "run", *options, ranks=2)
    results = tmp_path / "run" / "results.h5"
    with h5py.File(results) as file:
        left = file["aggregation/lora_rank"][-1]
    user = int(left.argmin())
    assert left[user] < RANK
    setting = Setting(1, ALPHA / math.sqrt(RANK), routed=False)
    plain = PlainModel(frozen_weights(tiny_base), stored_parameters(results, 6, user), setting)
    for options in ([], ["--rslora"]):
        folder = export(results, tmp_path / f"out{options}", *options, user=["German", "Dutch"][user])
        adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
        assert {value.shape[0] for name, value in adapter.items() if ".lora_A." in name} == {left[user]}
        assert distance(AutoPeftModelForCausalLM.from_pretrained(folder / "adapter"), plain) <= 1e-4


def test_every_user_gets_its_own(made, tmp_path):
    """Also one whose name is no file's."""
    run = made("gpt2", users=2)
    own = run.plain(1)
    assert main(["export", str(run.results.parent), "--user", "日本 語/x"]) == 0
    folder = run.results.parent / "export-日本-語-x"
    assert distance(opened(folder, run), own) <= 1e-4
    assert distance(opened(export(run.results, tmp_path / "out"), run), own) >= 1e-3
    mixture = json.loads((folder / "mixture.json").read_text())
    assert [expert["shared"] for expert in mixture["experts"]] == [True, False, False]
    assert mixture["base"]["sha256"] == open_run(run.results).attribute("base_digest")
    with h5py.File(run.results) as file:
        before, after = file["perplexity/test"][[0, -1], 1]
    card = (folder / "README.md").read_text()
    assert f"{before:.4g} before, {after:.4g} after" in card and "[method]\n    name = comigs-1gxs" in card


# The whole mixture ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "method", "expected"),
    [
        ("llama", "comigs-1gxs", "MixtralForCausalLM"),
        ("llama", "fedavg", "MixtralForCausalLM"),
        ("llama, head_dim", "comigs-1gxs", "MixtralForCausalLM"),
        ("mistral", "comigs-1gxs", "MixtralForCausalLM"),
        ("qwen2", "comigs-1gxs", "Qwen2MoeForCausalLM"),
        ("qwen3", "comigs-1gxs", "Qwen3MoeForCausalLM"),
        ("qwen3", "comigs-1gxs, top 1", "Qwen3MoeForCausalLM"),
        ("qwen3, biases", "comigs-1gxs", "Qwen3MoeForCausalLM"),
    ],
)
def test_merged_mixture_is_the_user_s_model(member, method, expected, made, tmp_path):
    run = made(member, method)
    folder = export(run.results, tmp_path / "out", "--mixture") / "mixture"
    model, notes = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == expected
    assert not any(notes[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (folder / "tokenizer.json").read_text() == TOKENISER
    found = distance(model.eval(), run.plain())
    print(f"{member}, {method}: {found:.1e}")
    assert found <= 1e-4
    with h5py.File(run.results) as file:
        recorded = file["perplexity/test"][-1, 0]
    assert abs(perplexity(model, run, 0) / recorded - 1) <= 1e-4


@pytest.mark.parametrize("member", ["llama, linear", "llama, rope_parameters"])
def test_merged_mixture_turns_positions_as_its_base(member, made, tmp_path):
    """transformers reads the base's own spelling where the adapters are put on it."""
    run = made(member)
    folder = export(run.results, tmp_path / "out", "--mixture")
    model = AutoModelForCausalLM.from_pretrained(folder / "mixture").eval()
    ids = torch.arange(60).unsqueeze(0)
    with torch.no_grad():
        expected, found = (one(ids).logits for one in (opened(folder, run), model))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_base_in_shards_of_bfloat16(tmp_path):
    """Its digest is comigs' own; what is merged is rounded once."""
    base = tmp_path / "base"
    llama("llama").to(torch.bfloat16).save_pretrained(base, max_shard_size="10KB")
    assert len(list(base.glob("model-*.safetensors"))) > 1
    (base / "tokenizer.json").write_text(TOKENISER)
    data = data_set(tmp_path / "data", users=["German"])
    options = ["--data", data, "--model", base, "--output", tmp_path / "run", "--rounds", ROUNDS]
    assert alone("train", *options, *OPTIONS, "--method", "comigs-2s", "--device", "cpu").code == 0
    results = tmp_path / "run" / "results.h5"
    folder = export(results, tmp_path / "out", "--mixture") / "mixture"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    name = "model.layers.1.self_attn.v_proj.weight"
    stored = {name: weight for file in base.glob("*.safetensors") for name, weight in load_file(file).items()}
    numbers = stored_parameters(results, ROUNDS, 0)
    A, B = (numbers[f"1.self_attn.v_proj.{factor}"] for factor in "AB")
    exact = stored[name].double() + ALPHA / math.sqrt(RANK) * B @ A
    error = (model.state_dict()[name].double() - exact).abs()
    assert (error <= exact.abs() * 2**-8 + 1e-6).all() and (exact - stored[name]).abs().max() > 0.01


# What is refused --------------------------------------------------------------------------------------------


def refusal(capsys, *words: object) -> str:
    capsys.readouterr()
    assert main(["export", *map(str, words)]) == 2
    found = capsys.readouterr()
    assert found.out == "" and found.err.startswith("error: ") and found.err.count("\n") == 1
    return found.err


def test_bad_input_is_told_in_one_line(made, tmp_path, capsys):
    run, other = made("gpt2"), made("llama")
    german = [run.results, "--user", "German", "--output", tmp_path / "out"]
    assert "did you mean 'German'?" in refusal(capsys, run.results, "--user", "Germn")
    assert "not the base model of" in refusal(capsys, *german, "--model", other.base)
    assert "no such folder; --model says" in refusal(capsys, *german, "--model", tmp_path / "none")
    assert "neither model.safetensors nor" in refusal(capsys, *german, "--model", tmp_path)
    assert "no mixture of gpt2's blocks; export without" in refusal(capsys, *german, "--mixture")
    assert not list(tmp_path.iterdir())


def test_mixtures_that_transformers_cannot_hold(made, tmp_path, capsys):
    for member, method, words in (
        ("llama, biases", "comigs-1gxs", "has biases that MixtralForCausalLM cannot hold"),
        ("llama", "comigs-1gxs, top 1", "with top_k = 1 an expert is weighted with its probability"),
        ("llama", "ffa-lora", "the user has one expert"),
    ):
        run = made(member, method)
        output = ["--output", tmp_path / "out"]
        assert words in refusal(capsys, run.results, "--user", "German", "--mixture", *output)
    assert not list(tmp_path.iterdir())


def test_runs_without_a_trained_model(tmp_path, capsys):
    for name, options, words in (
        ("going on", {"planned": 9}, "round 3 of 9 is the last one there"),
        ("untrained", {"method": "pretrained", "experts": [0, 0]}, "'pretrained' trains nothing"),
        ("without weights", {}, "'attention/weights/3/user_0' is missing"),
    ):
        results = write_results(tmp_path / name, folders=("data", str(tmp_path)), **options)
        assert words in refusal(capsys, results, "--user", "German")
        assert [path.name for path in results.parent.iterdir()] == ["results.h5"]


@pytest.mark.parametrize(
    ("array", "value", "words"),
    [
        ("expert/weights/1/user_0/layer_1/expert_2/up_A", math.nan, "numbers that are not finite"),
        ("attention/weights/1/user_0/layer_0/attn.c_attn_B", None, "cannot be read as HDF5"),
        ("router/weights/1/user_0/layer_1/weight", None, "has 1 routers (expected one a layer, of 3 experts"),
    ],
)
def test_damaged_weights(array, value, words, made, tmp_path, capsys):
    results = Path(shutil.copy(made("gpt2").results, tmp_path))
    with h5py.File(results, "a") as file:
        if value is None:
            del file[array]
        else:
            file[array][0, 0] = value
    assert words in refusal(capsys, results, "--user", "German")
    assert [path.name for path in tmp_path.iterdir()] == ["results.h5"]


def test_names_stay_in_their_lines_of_the_card(made, tmp_path):
    run = open_run(made("gpt2").results)
    run.attributes["data_set"] = "a | b\n# c <script>"
    user = read_user(run, "German")
    written = card(run, user, find_base(run, None), {}, "")
    assert "| Data set | a \\| b # c &lt;script> |\n" in written


def test_nothing_is_written_over(made, tmp_path, capsys):
    run = made("gpt2")
    output = tmp_path / "out"
    output.mkdir()
    export(run.results, output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    words = [run.results, "--user", "German", "--output"]
    assert "is there already" in refusal(capsys, *words, output)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    (tmp_path / "file").write_text("mine")
    assert "is there already" in refusal(capsys, *words, tmp_path / "file")


def test_whole_or_not_at_all(made, tmp_path, capsys, monkeypatch):
    run = made("llama")

    def fail(folder: Path, *_: object) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(merged, "write_mixture", fail)
    words = ["export", run.results, "--user", "German", "--mixture", "--output", tmp_path / "out"]
    assert main([str(word) for word in words]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(made, tmp_path, capsys, monkeypatch):
    run = made("gpt2")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    words = [run.results, "--user", "German", "--output", tmp_path / "out"]
    assert "export needs the Python package 'safetensors'" in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_another_folder_is_no_mixture(tmp_path):
    (tmp_path / "mixture.json").write_text('{"format": "another"}')
    with pytest.raises(ValueError, match="expected comigs-mixture, version 1"):
        load_mixture(tmp_path, torch.nn.Identity())
