"""Whole runs with four ranks: the quickstart beside a plain PyTorch simulator; a round's aggregation."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import h5py

from .bases import Llama
from .material import random_base, random_data
from .programs import CACHE, BenchError, Executables, run, run_module
from .steps import Case, options

USERS = 4
# Two runs on other random batches end this near to each other (log perplexity, mean over users).
LOG_PERPLEXITY_TOLERANCE = 0.03


def _quickstart_material(executables: Executables) -> tuple[Path, Path]:
    """The tiny quickstart's data set and base model, made as jobs/quickstart.sh makes them."""
    data, base = CACHE / "quickstart-data", CACHE / "quickstart-base"
    splits = ["--validation-tokens", 10000, "--test-tokens", 8000]
    run([sys.executable, "-m", "data_prep", "multilingual", "--output", data, *splits])
    if not base.exists():
        print("  making the quickstart's base model (a minute or two)", flush=True)
        executables.comigs(
            "pretrain", "jobs/quickstart-tiny-base.ini", "--data", data, "--output", base, ranks=2
        )
    return data, base


def quickstart_ratios(executables: Executables, threads: int, repeats: int) -> list[float]:
    """Seconds of the simulator, which takes minutes and runs once, over those of each run of comigs."""
    data, base = _quickstart_material(executables)
    output = CACHE / "quickstart-run"
    seconds = []
    for repeat in range(repeats):
        shutil.rmtree(output, ignore_errors=True)
        job = ["jobs/quickstart-tiny.ini", "--data", data, "--model", base, "--output", output]
        seconds.append(executables.comigs("train", *job, ranks=USERS))
        print(f"  {repeat + 1}/{repeats} comigs, 4 ranks: {seconds[-1]:.1f} s", flush=True)
    perplexities, plain = run_module("simulator", output / "results.h5", "--threads", threads)
    print(f"  once plain simulator: {plain:.1f} s", flush=True)
    _check_perplexities(output / "results.h5", perplexities["test"])
    return [plain / own for own in seconds]


def _check_perplexities(results: Path, plain: list[float]) -> None:
    with h5py.File(results) as file:
        comigs = file["perplexity"]["test"][-1]
    logs = [sum(map(math.log, values)) / len(values) for values in (comigs, plain)]
    means = [sum(values) / len(values) for values in (comigs, plain)]
    apart = abs(logs[0] - logs[1])
    print(f"  test perplexity, mean over users: comigs {means[0]:.1f}, plain {means[1]:.1f}", flush=True)
    if not apart <= LOG_PERPLEXITY_TOLERANCE:
        raise BenchError(
            f"quickstart: the mean log test perplexities of comigs and plain PyTorch are {apart:.3f} apart,"
            f" expected at most {LOG_PERPLEXITY_TOLERANCE}"
        )


def aggregation_shares(executables: Executables) -> list[float]:
    """By round, of all users' training and aggregation: evaluation, which would hide it, is left out."""
    output = CACHE / "aggregation-run"
    shutil.rmtree(output, ignore_errors=True)
    rounds: list[object] = ["--rounds", 2, "--evaluate-every", 2, "--train-evaluation-tokens", 200]
    case = Case(batch=2)
    executables.comigs("train", *options(case, threads=0), *rounds, "--output", output, ranks=USERS)
    with h5py.File(output / "results.h5") as results:
        seconds = {name: results["time"][name][1:].sum(1) for name in ("experts", "routers", "aggregation")}
    return [float(share) for share in seconds["aggregation"] / sum(seconds.values())]


def evaluation_speeds(executables: Executables, repeats: int) -> list[float]:
    """Tokens evaluated a second by tokens trained a second, all users of a run of SmolLM2 in bf16 in which nobody's
    model is averaged, so that each evaluation is of one state."""
    base, output = Llama(), CACHE / "evaluation-run"
    steps, batch, context, evaluated = 10, 2, 128, 4000
    data = random_data(
        CACHE, base.vocabulary, users=USERS, train=20_000, validation=evaluated, test=evaluated
    )
    job = ["--data", data, "--model", random_base(CACHE, base), "--method", "local", "--precision", "bf16"]
    job += [
        "--rounds",
        2,
        "--local-steps",
        steps,
        "--evaluate-every",
        2,
        "--train-evaluation-tokens",
        evaluated,
    ]
    job += ["--batch-sequences", batch, "--context-tokens", context, "--output", output]
    ratios = []
    for _ in range(repeats):
        shutil.rmtree(output, ignore_errors=True)
        executables.comigs("train", *job, ranks=USERS)
        with h5py.File(output / "results.h5") as results:
            training, evaluation = (results["time"][name][()].sum() for name in ("experts", "evaluation"))
        trained_tokens = USERS * 2 * steps * batch * context
        evaluated_tokens = USERS * 2 * 3 * evaluated  # at rounds 0 and 2, three splits
        ratios.append(float((evaluated_tokens / evaluation) / (trained_tokens / training)))
    return ratios
