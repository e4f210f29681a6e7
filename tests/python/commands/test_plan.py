"""comigs plan: what it promises of a run beside what the run then does; what does not fit and what helps."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from console.program import methods
from tests.helpers.broken_runs import check_it_ends_at_once
from tests.helpers.built_program import known_methods
from tests.helpers.tiny import (
    CHOICES,
    GATED,
    PLAIN,
    POSITIONS,
    USERS,
    Done,
    comigs,
    data_set,
    executable,
    run,
    run_options,
    train,
)

TINY = ("--local-steps", 2, "--batch-sequences", 2, "--context-tokens", 12, "--lora-rank", 4)
CPU = ("--device", "cpu", "--threads", 1)


def plan(*arguments: object, code: int = 0) -> Done:
    done = run([executable(), "plan", *arguments, *CPU])
    assert done.code == code, done.output + done.errors
    return done


def planned(*arguments: object, code: int = 0) -> dict:
    return json.loads(plan(*arguments, "--json", code=code).output)


@pytest.fixture(scope="module")
def job(tiny_base, tiny_data, tmp_path_factory) -> tuple[object, ...]:
    """What every job must have; nothing is written."""
    return ("--data", tiny_data, "--model", tiny_base, "--output", tmp_path_factory.mktemp("plan") / "none")


# Bytes ------------------------------------------------------------------------------------------------------

CASES: dict[str, tuple[object, ...]] = {method: CHOICES.get(method, ()) for method in known_methods()} | {
    "pcl": ("--rounds", 8),  # users judge each other in rounds 5 and 7
    "pcl, renewals": ("--rounds", 8, "--mixing", "renewals"),
    "comigs-1gxs, unequal": ("--experts", "4,2,1,1", "--top-k", 3),
    "comigs-mgxs, unequal": ("--experts", "3,2,3,1", "--generalists", "0+1,0+1,1+2,2"),
    "fedavg, unequal": ("--experts", "3,2,1,1"),
    "fedavg, bf16": ("--communication", "bf16"),
    "centralized, bf16": ("--communication", "bf16"),
    "comigs-1g1s, any order": ("--reproducible", "false"),
    "hetlora, ranks": ("--lora-rank", "2,4,8,3", "--pruning-strength", 0.5),
    "flexlora, ranks": ("--lora-rank", "2,4,8,3"),
    "hetlora, attention": ("--lora-rank", "2,4,8,3", "--attention-rank", 5),
}


def test_every_method_is_compared():
    assert {*methods(executable())} == {name.split(",")[0] for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_bytes_are_those_of_the_run(name, job, run_of, tiny_examples):
    method, options = name.split(",")[0], (*PLAIN, *CASES[name])
    where = ("--data", tiny_examples, *job[2:]) if method in GATED else job
    found = planned(*where, "--method", method, *run_options(*options))
    with h5py.File(run_of(method, *options)) as file:
        sent = file["communication/bytes"][1:].sum(axis=0)
        assert file["users/experts"][()].tolist() == [user["experts"] for user in found["users"]]
    assert [user["bytes_round"] * found["rounds"] for user in found["users"]] == sent.tolist()


# The text and the JSON --------------------------------------------------------------------------------------


def test_json_has_what_programs_need(job):
    found = planned(*job, "--method", "comigs-1gxs", "--experts", "3,2,1,1", *TINY, "--rounds", 3)
    top = "method rounds precision users seconds memory_bytes_node problems version data_set base computed_on"
    assert list(found) == [*top.split(), "measured", "memory_bytes_machine", "remark", "options"]
    assert (found["method"], found["rounds"], found["precision"]) == ("comigs-1gxs", 3, "float32")
    assert [user["name"] for user in found["users"]] == list(USERS)
    first = found["users"][0]
    assert list(first) == [
        "name", "experts", "generalists", "lora_rank", "top_k", "micro_batch_sequences", "parameters",
        "memory_bytes", "host_memory_bytes", "flops_round", "bytes_round", "seconds_round", "options",
    ]  # fmt: skip
    assert (first["experts"], first["generalists"], first["lora_rank"], first["top_k"]) == (3, [0], 4, 2)
    # Two layers of width 32: rank 4 on qkv, projection, and of three experts up and down; routers.
    assert first["parameters"] == 2 * (4 * (32 + 96 + 32 + 32) + 3 * 4 * 2 * (32 + 128) + 3 * 32)
    memory = first["memory_bytes"]
    assert list(memory) == ["base", "training", "activations", "program", "total"]
    assert memory["total"] == sum(memory[part] for part in list(memory)[:4])
    assert memory["training"] == 16 * first["parameters"]
    assert first["host_memory_bytes"] == memory["total"]  # all of it, where no GPU computes
    slowest = max(user["seconds_round"] for user in found["users"])
    assert found["seconds"]["round"] == slowest > 0
    assert found["seconds"]["total"] == pytest.approx(found["seconds"]["start"] + 3 * slowest)
    assert found["memory_bytes_node"] > memory["total"]
    assert found["problems"] == []


def test_json_has_every_option_as_it_acts(job, tmp_path):
    """Defaults, then the job file, then the command line, then what method and budgets make of it."""
    file = tmp_path / "job.ini"
    file.write_text("[run]\nrounds = 3\nseed = 7\n[user]\nlora_rank = 2,4,8,4\n[user.1]\nlocal_steps = 5\n")
    found = planned(file, *job, "--method", "hetlora", *TINY[:6], "--seed", 8, "--micro-batch-sequences", 1)
    assert list(found["options"]) == ["run", "data", "model", "method", "optimiser"]
    run_ = found["options"]["run"]
    assert (run_["rounds"], run_["seed"], run_["threads"], run_["patience"]) == (3, 8, 1, 3600)
    assert run_["reproducible"] is True and run_["resume"] == "never" and run_["output"] == str(job[5])
    assert found["options"]["data"]["folder"] == str(job[1])
    assert found["options"]["method"]["name"] == "hetlora"
    own = [user["options"] for user in found["users"]]
    assert [user["lora_rank"] for user in own] == [2, 4, 8, 4]
    assert {user["local_steps"] for user in own} == {2}  # the command line beats one user's own in the file
    assert [(user["experts"], user["top_k"], user["micro_batch_sequences"]) for user in own] == 4 * [
        (1, 1, 1)
    ]
    assert own[0]["memory"] == 0 and own[0]["generalists"] == "0"
    names = {name for section in found["options"].values() for name in section} | {*own[0]}
    flags = re.findall(r"^  --([a-z-0-9]+)", run([executable(), "train", "--help"]).output, re.M)
    assert {flag.replace("-", "_") for flag in flags} == (names - {"folder", "name"}) | {
        "data",
        "model",
        "method",
    }
    assert found["data_set"] == "tiny" and found["remark"] is None
    assert found["base"] == {"family": "gpt2", "layers": 2, "width": 32, "vocabulary": 97}


def test_json_has_what_is_without_effect(job):
    found = planned(*job, "--method", "fedavg", *TINY, "--router-every", 3)
    remark = "without effect with method 'fedavg': --router-every (the method has no routers)"
    assert found["remark"] == remark


def settings(*arguments: object) -> dict:
    done = run([executable(), "plan", *arguments, "--settings"])
    assert (done.code, done.errors) == (0, "")
    return json.loads(done.output)


def test_settings_are_what_is_said_and_need_no_data(tmp_path):
    (tmp_path / "above.ini").write_text("[run]\nrounds = 3\nseed = 7\n[user]\ntop-k = 2\n")
    file = tmp_path / "job.ini"
    file.write_text("[job]\ninherit = above.ini\n[data]\nfolder = none\n[user.1]\nexperts = auto\n")
    said = {"rounds": "3", "seed": "7", "top_k": "2", "data": "none", "user.1.experts": "auto"}
    assert settings(file) == said
    del said["user.1.experts"]
    assert settings(file, "--seed", 8, "--experts", "4,2") == said | {"seed": "8", "experts": "4,2"}
    done = run([executable(), "plan", file, "--ruonds", 3, "--settings"])
    assert done.code == 2 and "did you mean '--rounds'" in done.errors and done.output == ""


def test_the_base_model_alone_sends_and_trains_nothing(job):
    found = planned(*job, "--method", "pretrained", *TINY)
    assert found["rounds"] == 0
    for user in found["users"]:
        assert (user["experts"], user["parameters"], user["flops_round"], user["bytes_round"]) == (0, 0, 0, 0)


def test_the_table_names_users_and_totals(job):
    text = plan(*job, "--method", "comigs-1g1s", *TINY).output
    for words in ("2 (1 shared)", "sequences a step", "peak memory", "activations", "all users on one node"):
        assert words in text
    for user in USERS:
        assert len(re.findall(rf"^  {user} ", text, re.M)) == 2
    assert re.search(r"time: .* in all: .* to start, then 20 rounds of .*\(1 thread a rank", text)
    assert max(map(len, text.splitlines())) <= 120 + len(str(job[3]))


def test_a_job_file_is_enough_and_mpirun_is_not_needed(job, tmp_path):
    options = dict(zip(("data", "model", "output"), job[1::2], strict=True))
    file = tmp_path / "job.ini"
    file.write_text(
        f"[run]\noutput = {options['output']}\nrounds = 4\n[data]\nfolder = {options['data']}\n"
        f"[model]\nfolder = {options['model']}\n[user]\ncontext_tokens = 8\n[user.2]\nlocal_steps = 3\n"
    )
    found = planned(file, "--batch-sequences", 4)
    assert (found["rounds"], len(found["users"])) == (4, 4)
    assert not Path(str(options["output"])).exists()


# Memory -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mid(tmp_path_factory) -> Path:
    """A base of 8 layers, width 384 and 12,000 entries: 19 million weights."""
    folder = tmp_path_factory.mktemp("mid") / "base"
    config = GPT2Config(n_layer=8, n_embd=384, n_head=6, vocab_size=12_000, n_positions=128)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    lengths = {"train": 600, "validation": 200, "test": 1000}
    return data_set(tmp_path_factory.mktemp("texts") / "data", USERS[:2], lengths, vocabulary=12_000)


SHAPES = {
    "one expert": ("--experts", 1),
    "two users unlike": ("--experts", "2,8", "--batch-sequences", "16,8"),
    "within a budget": ("--batch-sequences", 6, "--memory", 0.25, "--experts", 2),
    "bf16, micro-batches": ("--precision", "bf16", "--micro-batch-sequences", 2, "--experts", 4),
}
MORE_SHAPES = {
    "eight experts of high rank": ("--experts", 8, "--lora-rank", 64),
    "micro-batches": ("--batch-sequences", 4, "--micro-batch-sequences", 2, "--experts", 2),
    "bf16": ("--precision", "bf16", "--experts", 2),
}


@pytest.mark.parametrize(
    "shape", [*SHAPES, *(pytest.param(shape, marks=pytest.mark.slow) for shape in MORE_SHAPES)]
)
def test_peak_memory_is_within_15_percent_of_the_run_s(shape, mid, texts, tmp_path):
    where = ("--data", texts, "--model", mid, "--output", tmp_path)
    shapes = SHAPES | MORE_SHAPES
    options = (*where, "--method", "comigs-1gxs", *shapes[shape])
    batch = () if "--batch-sequences" in shapes[shape] else ("--batch-sequences", 12)
    steps = ("--rounds", 1, "--local-steps", 1, "--router-every", 1, "--router-steps", 1)
    options = (*options, *batch, *steps, "--context-tokens", 128)
    found = planned(*options)
    done = comigs("train", *options, *CPU, ranks=2, seconds=600)
    assert done.code == 0, done.errors
    with h5py.File(tmp_path / "results.h5") as file:
        seen = file["memory/peak"][()].max(axis=0)
    promised = np.array([user["memory_bytes"]["total"] for user in found["users"]])
    ratios = promised / seen
    assert ratios.min() > 0.85 and ratios.max() < 1.15, (shape, ratios, seen / 2**20)


def test_a_tiny_model_is_the_program_itself(job, tmp_path):
    """Where the model takes next to nothing, what is compared is the measured size of the libraries."""
    options = (*job[:4], "--output", tmp_path, "--method", "comigs-1g1s", *TINY, "--rounds", 1)
    found = planned(*options)
    train(*options)
    with h5py.File(tmp_path / "results.h5") as file:
        seen = file["memory/peak"][()].max(axis=0)
    for user, peak in zip(found["users"], seen, strict=True):
        assert user["memory_bytes"]["program"] > 0.95 * user["memory_bytes"]["total"]
        assert user["memory_bytes"]["total"] == pytest.approx(peak, rel=0.25)


# What does not fit ------------------------------------------------------------------------------------------


def test_a_budget_that_cannot_be_met_comes_with_an_option_that_meets_it(mid, texts):
    options = ("--data", texts, "--model", mid, "--output", "none", "--method", "comigs-1gxs", "--experts", 8)
    options += ("--lora-rank", 32, "--context-tokens", 128, "--memory", "8,0.2")
    found = planned(*options, code=2)
    assert len(found["problems"]) == 1
    (problem,) = found["problems"]
    assert re.match(
        r"user Français needs \d+\.\d MiB of the 204\.8 MiB of its memory budget \(\[user\.1\]", problem
    )
    assert found["seconds"]["total"] is None
    remedy = re.search(r": ((?:--\S+ \S+ ?)+) makes it (\d+\.\d) MiB", problem)
    assert remedy is not None
    assert float(remedy[2]) <= 204.8
    again = planned(*options, *remedy[1].split())
    assert again["problems"] == []
    assert plan(*options, code=2).output.count("\ndoes not fit:\n  - user Français needs") == 1


def test_all_users_are_held_to_this_machine_s_memory(mid, texts):
    options = ("--data", texts, "--model", mid, "--output", "none", "--method", "comigs-1g1s")
    options += ("--context-tokens", 128, "--batch-sequences", 1_000_000)
    (problem,) = planned(*options, code=2)["problems"]
    assert problem.startswith("all 2 users need ")
    remedy = re.search(r"this machine: (--micro-batch-sequences \d+) makes it", problem)
    assert remedy is not None
    assert planned(*options, *remedy[1].split())["problems"] == []


def test_threads_that_cannot_be_started_are_refused(job):
    limited = ["bash", "-c", 'ulimit -v 3000000; exec "$@"', "bash", executable(), "plan", *job, *TINY]
    done = run([*limited, "--device", "cpu", "--threads", 1000])
    assert done.code == 2, done.output + done.errors
    assert "--threads: found 1000, which this process may not start" in done.errors


# What is said is heard -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "told"),
    [
        ("hetlora", ("--experts", 2), "[user.0] experts = 2: method 'hetlora' has 1 for every user"),
        ("hetlora", ("--experts", 3), "[user.0] experts = 3: method 'hetlora' has 1 for every user"),
        ("flexlora", ("--user.2.experts", 2), "[user.2] experts = 2: method 'flexlora' has 1 for every user"),
        ("comigs-1gxs", ("--experts", 1, "--top-k", 2), "top_k = 2: no user has more than 1 expert"),
        ("comigs-1gxs", ("--experts", 1, "--top-k", 3), "top_k = 3: no user has more than 1 expert"),
    ],
)  # fmt: skip
def test_the_default_of_other_methods_is_refused_like_any_other_value(method, options, told, job):
    """2 is the default of both: said, it is not taken for unsaid."""
    assert told in plan(*job, *TINY, "--method", method, *options, code=2).errors


def test_a_default_that_is_not_said_is_no_contradiction(job):
    assert experts(*job, *TINY, "--method", "hetlora") == [1, 1, 1, 1]
    assert experts(*job, *TINY, "--method", "comigs-1gxs", "--experts", 1) == [1, 1, 1, 1]


# Automatic numbers of experts -------------------------------------------------------------------------------


def experts(*arguments: object) -> list[int]:
    return [user["experts"] for user in planned(*arguments)["users"]]


def test_automatic_experts_follow_the_budgets_and_are_recorded(job, tmp_path):
    # With a budget evaluations are no larger than steps, so that these are what the peak is made of.
    three = planned(*job, "--method", "comigs-1gxs", "--experts", 3, "--memory", 1, *TINY)["users"][1]
    memory = sum(three["memory_bytes"][part] for part in ("base", "training", "activations"))
    options = (*job[:4], "--method", "comigs-1gxs", *TINY, "--rounds", 1, "--experts", "4,auto,auto,1")
    options += ("--memory", f"0,{(memory + 100) / 2**30},0,0", "--step-budget", "0,0,1.0,0")
    assert experts(*options, "--output", tmp_path) == [4, 3, 1, 1]
    train(*options, "--output", tmp_path)
    with h5py.File(tmp_path / "results.h5") as file:
        assert list(file["users/experts"][()]) == [4, 3, 1, 1]
        echo = file.attrs["configuration"]
    assert re.search(r"\[user.1\]\nexperts = 3\n", echo)
    assert "experts = auto" not in echo


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "comigs-1gxs"), ["[user.0] experts = auto", "memory", "step_budget"]),
        (("--method", "comigs-1g1s", "--memory", 1), ["'comigs-1g1s' has 2 for every user", "comigs-1gxs"]),
        (("--method", "comigs-1gxs", "--step-budget", 0.5), ["step_budget", "found 0.5", "at least 1"]),
        (("--method", "comigs-1gxs", "--memory", 1e-5), ["[user.0] memory", "one sequence of 12 tokens"]),
    ],
    ids=["no budget", "a fixed number", "less than one expert", "no room"],
)  # fmt: skip
def test_automatic_experts_that_cannot_be_are_refused(options, words, job):
    done = plan(*job, *TINY, "--experts", "auto", *options, code=2)
    for word in words:
        assert word in done.errors
    assert done.output == ""


# Mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"--ruonds": 5}, ["--ruonds", "--rounds"]),
        ({"--context-tokens": POSITIONS + 1}, ["context_tokens = 17", "16 positions"]),
        ({"--experts": "1,2"}, ["found 2 values", "4 users"]),
        ({"--method": "comigs"}, ["unknown method 'comigs'"]),
        ({"--data": "absent"}, ["absent"]),
    ],
    ids=["an option", "a context", "a list", "a method", "a data set"],
)  # fmt: skip
def test_mistakes_are_those_of_train(options, words, tiny_base, tiny_data):
    given = {"--data": tiny_data, "--model": tiny_base, "--output": "none"}
    given |= {"--method": "comigs-1gxs"} | options
    done = plan(*[word for option in given.items() for word in option], code=2)
    for word in words:
        assert word in done.errors


def test_a_job_without_data_is_told_so():
    assert "[data] folder: not given" in plan(code=2).errors


def test_damaged_data_is_found(job, tmp_path):
    folder = data_set(tmp_path / "data")
    file = folder / "user2" / "test.bin"
    file.write_bytes(file.read_bytes()[:-2])
    done = plan("--data", folder, *job[2:], "--method", "comigs-1g1s", *TINY, code=2)
    assert str(file) in done.errors


def test_help_says_what_it_does():
    text = run([executable(), "plan", "--help"]).output
    assert "--json" in text and "Exit code 2" in text


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_ends_it_at_once(number, job):
    check_it_ends_at_once(number, [executable(), "plan", *job, *CPU])
