"""Runs that begin as a PEFT adapter, against peft itself on the same base."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import h5py
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from analysis.cli import main
from tests.helpers.finished import asked, refused, windowed_perplexity
from tests.helpers.llamas import PlainLlama, llama_folder
from tests.helpers.plain_model import PlainModel, Setting, frozen_weights
from tests.helpers.routed import stored_parameters
from tests.helpers.tiny import alone, comigs, data_set, gpt2_folder, run_options, tokens_of, train

RANK, ALPHA, CONTEXT = 6, 7.0, 12
OPTIONS = ["--lora-rank", RANK, "--lora-alpha", ALPHA, "--context-tokens", CONTEXT, "--batch-sequences", 2]
HERE = ["--device", "cpu", "--threads", 1]
GPT2 = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
# What an adapter is of: a member, and what peft is told.
ADAPTERS: dict[str, tuple[str, dict[str, object]]] = {
    "gpt2": ("gpt2", {"target_modules": GPT2, "r": 4, "lora_alpha": 10}),
    "gpt2, patterns": (
        "gpt2",
        {
            "target_modules": ["c_attn", "c_proj"],
            "r": 3,
            "lora_alpha": 5,
            "use_rslora": True,
            "rank_pattern": {"h.0.attn.c_attn": 6, r"h\.1\.mlp\.(c_fc|c_proj)": 2},
            "alpha_pattern": {"mlp.c_proj": 9, r".*\.1\.attn\..*": 2},
        },
    ),
    "llama": ("llama", {"target_modules": "all-linear", "r": 6, "lora_alpha": 4}),
    "llama, some": (
        "llama",
        {"target_modules": ["v_proj", "up_proj", "down_proj"], "r": 2, "use_rslora": True},
    ),
    "qwen3": (
        "qwen3",
        {"target_modules": ["q_proj", "o_proj", "gate_proj"], "r": 4, "layers_to_transform": [1]},
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Callable[[str], Path]:
    """base(member): a folder, made once; not to be written to."""

    @cache
    def made(member: str) -> Path:
        folder = tmp_path_factory.mktemp("base") / member
        return gpt2_folder(folder) if member == "gpt2" else llama_folder(folder, member)

    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return data_set(tmp_path_factory.mktemp("data") / "data", users=["German"])


def adapter(base: Path, folder: Path, seed: int = 0, **settings: object) -> Path:
    """One that peft makes and writes, with large random factors."""
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if ".lora_" in name:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    tuned.save_pretrained(folder)
    return folder


def words(base: Path, data: Path, output: Path, *more: object, method: str = "comigs-1gxs") -> list[object]:
    given = ["--data", data, "--model", base, "--output", output, "--method", method]
    return [*given, *OPTIONS, *HERE, *(["--experts", 3] if method == "comigs-1gxs" else []), *more]


def begun(*arguments: object) -> Path:
    """The results of a run that trains nothing."""
    done = alone("train", *arguments, "--rounds", 0)
    assert done.code == 0 and "attention and experts begin as the adapter" in done.output, (
        done.output + done.errors
    )
    return Path(str(arguments[arguments.index("--output") + 1])) / "results.h5"


def perplexity(results: Path, user: int = 0) -> float:
    with h5py.File(results) as file:
        return float(file["perplexity/test"][-1, user])


def plain(base: Path, results: Path, experts: int) -> PlainModel:
    """The user's model in float64 from results.h5."""
    parameters = stored_parameters(results, 0, 0)
    setting = Setting(experts, ALPHA / math.sqrt(RANK), routed=experts > 1)
    weights = frozen_weights(base)
    return (
        PlainModel(weights, parameters, setting)
        if "wte.weight" in weights
        else PlainLlama(base, weights, parameters, setting)
    )


@pytest.mark.parametrize(
    ("name", "method", "experts"),
    [*((name, "comigs-1gxs", 3) for name in ADAPTERS), ("gpt2, patterns", "ffa-lora", 1)],
)
def test_a_run_begins_as_peft_s_model(name, method, experts, base, data, tmp_path):
    member, settings = ADAPTERS[name]
    folder = adapter(base(member), tmp_path / "adapter", **settings)
    results = begun(*words(base(member), data, tmp_path / "run", "--init-adapter", folder, method=method))
    frozen = AutoModelForCausalLM.from_pretrained(base(member)).eval()
    ids = torch.randint(0, 97, (3, CONTEXT), generator=torch.Generator().manual_seed(2))
    test = tokens_of(data, 0, "test").tolist()
    with torch.no_grad():
        untuned: Tensor = frozen(ids).logits
        untuned_perplexity = windowed_perplexity(lambda window: frozen(window).logits, test, CONTEXT)
        tuned = PeftModel.from_pretrained(frozen, folder).eval()
        expected: Tensor = tuned(ids).logits
        found = plain(base(member), results, experts).logits(ids)[0]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (expected - untuned).abs().max() >= 0.05 * expected.abs().max()
    of_peft = windowed_perplexity(lambda window: tuned(window).logits, test, CONTEXT)
    assert perplexity(results) == pytest.approx(of_peft, rel=1e-5)
    assert perplexity(results) != pytest.approx(untuned_perplexity, rel=1e-3)


def test_an_exported_expert_comes_back_to_the_same_bits(base, data, tmp_path):
    large = ["--rounds", 1, "--local-steps", 3, "--expert-learning-rate", 0.02]
    first = tmp_path / "first"
    assert alone("train", *words(base("gpt2"), data, first, *large)).code == 0
    export = ["export", first, "--user", "German", "--output", tmp_path / "export"]
    assert main([str(word) for word in export]) == 0
    folder = tmp_path / "export" / "expert-2"
    results = begun(*words(base("gpt2"), data, tmp_path / "run", "--init-adapter", folder))
    there, here = stored_parameters(first / "results.h5", 1, 0), stored_parameters(results, 0, 0)
    assert any(name.endswith(".B") and there[name].abs().max() > 0 for name in there)
    for name, numbers in here.items():
        layer, _, rest = name.partition(".expert.")
        if name.endswith("router"):
            continue
        of = f"{layer}.expert.2.{rest.partition('.')[2]}" if rest else name
        assert torch.equal(numbers, there[of]), name


def test_users_begin_alike_where_they_share_and_finished_runs_are_asked_without_it(base, tmp_path):
    users = data_set(tmp_path / "data", users=["German", "Dutch"])
    folder = adapter(base("gpt2"), tmp_path / "adapter", **ADAPTERS["gpt2"][1])
    output = tmp_path / "run"
    given = ["--data", users, "--model", base("gpt2"), "--output", output, "--init-adapter", folder]
    train(*given, *run_options("--lora-rank", RANK, "--weights-every", 1), ranks=2)
    results = output / "results.h5"
    one, other = (stored_parameters(results, 0, user) for user in (0, 1))
    for name in one:
        is_own = ".expert.1." in name and name.endswith(".A") or name.endswith("router")
        assert torch.equal(one[name], other[name]) != is_own, name
        if is_own and not name.endswith("router"):  # the adapter's rank is theirs alike
            assert torch.equal(one[name][:4], other[name][:4])
    with h5py.File(results) as file:
        assert (file["perplexity/test"][-1] < file["perplexity/test"][0]).all()
        digest = file.attrs["init_adapter_digest"]
    shutil.rmtree(folder)
    assert asked("inspect", results)["adapter_sha256"] == digest
    found = asked("evaluate", output)
    own = [row for row in found["evaluations"] if row["model"] == row["texts"]]
    assert [row["perplexity"] for row in own] == pytest.approx(
        [perplexity(results, u) for u in (0, 1)], rel=1e-6
    )
    assert alone("route", output, "--tokens", 24, *HERE).code == 0


def test_a_run_goes_on_with_its_own_adapter_alone(base, data, tmp_path):
    settings = ADAPTERS["gpt2"][1]
    folder = adapter(base("gpt2"), tmp_path / "adapter", **settings)
    begun(*words(base("gpt2"), data, tmp_path / "run", "--init-adapter", folder))
    resumed = words(base("gpt2"), data, tmp_path / "run", "--rounds", 0, "--resume", "auto")
    other = adapter(base("gpt2"), tmp_path / "other", seed=1, **settings)
    for unlike in ([], ["--init-adapter", other]):
        done = alone("train", *resumed, *unlike)
        assert done.code == 2 and "adapter that users begin as (--init-adapter): digest " in done.errors
    moved = folder.rename(tmp_path / "moved")
    done = alone("train", *resumed, "--init-adapter", moved)
    assert done.code == 0 and "all 0 rounds already" in done.output, done.errors


# What is refused --------------------------------------------------------------------------------------------


def cut(folder: Path) -> Path:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    return folder


# By what is wrong: peft's settings, what becomes of the folder, options of the run, words of the message.
BAD: dict[str, tuple[Mapping[str, object], Callable[[Path], object], list[object], list[str]]] = {
    "a larger rank": (
        {"r": 8},
        Path,
        [],
        ["'transformer.h.0.attn.c_attn' has rank 8", "[user.0] lora_rank", "rank 6"],
    ),
    "DoRA": ({"use_dora": True}, Path, [], ["'use_dora' is true"]),
    "biases": ({"bias": "all"}, Path, [], ["'bias' is \"all\""]),
    "the head": ({"modules_to_save": ["lm_head"]}, Path, [], ["'modules_to_save' is"]),
    "an embedding": ({"target_modules": ["wte", "c_attn"]}, Path, [], ["wte", "embedding"]),
    "cut short": ({}, cut, [], ["adapter_model.safetensors"]),
    "nothing trained": (
        {},
        Path,
        ["--method", "pretrained"],
        ["init_adapter", "'pretrained' trains nothing that could begin as it"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_begun_with_is_told_once(name, base, data, tmp_path):
    settings, spoil, options, expected = BAD[name]
    folder = adapter(base("gpt2"), tmp_path / "adapter", **{"target_modules": GPT2, "r": 4, **settings})
    spoil(folder)
    given = words(base("gpt2"), data, tmp_path / "run", "--init-adapter", folder, method="fedavg")
    if options:
        given[given.index("--method") + 1] = options[1]
    message = refused("train", *given)
    for word in [*expected, str(folder)]:
        assert word in message
    assert not (tmp_path / "run").exists()


def test_an_adapter_of_another_base_is_told_by_all_ranks_together(base, tmp_path):
    users = data_set(tmp_path / "data", users=["German", "Dutch"])
    folder = adapter(base("llama"), tmp_path / "adapter", **ADAPTERS["llama"][1])
    given = words(base("gpt2"), users, tmp_path / "run", "--init-adapter", folder, method="fedavg")
    done = comigs("train", *given, ranks=2)
    lines = [line for line in done.errors.splitlines() if line.startswith("comigs: ")]
    assert done.code == 2 and len(lines) == 1 and "another base" in lines[0] and str(folder) in lines[0]
    planned = alone("plan", *given)
    assert planned.code == 2 and "another base" in planned.errors
