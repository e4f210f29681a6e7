"""What a step costs against experts, context, model size and ranks; what an average costs against ranks.

python -m tests.bench.scaling [--output FOLDER] [--only NAME ...]     from the repository's root

Writes a table (Markdown) and a plot (PNG) of each into FOLDER.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py

from .bases import Gpt2
from .material import random_base, random_data
from .plots import Curves, draw
from .programs import CACHE, ROOT, BenchError, Executables
from .steps import DEVIATION, Case, Measured, Report, options

PROGRAMS = ("comigs", "plain")
NAMES = {"comigs": "comigs", "plain": "plain PyTorch"}


def _against_plain(measured: Measured, cases: dict[float, Case]) -> dict[str, list[float]]:
    """Seconds a step of both at every place."""
    measured.measure([case.of(program) for case in cases.values() for program in PROGRAMS], repeats=1)
    return {
        NAMES[program]: [measured.reports[case.of(program)][-1].seconds for case in cases.values()]
        for program in PROGRAMS
    }


def experts(measured: Measured) -> Curves:
    cases = {float(count): Case(experts=count) for count in (1, 2, 4, 8, 16)}
    return Curves(
        "Step of GPT-2 124M against experts",
        "experts in every MLP block (top-2)",
        "seconds a step of 8 x 128 tokens",
        list(cases),
        _against_plain(measured, cases),
    )


def context(measured: Measured) -> Curves:
    cases = {float(length): Case(context=length, batch=1024 // length) for length in (64, 128, 256, 512)}
    return Curves(
        "Step of GPT-2 124M against context length",
        "context, tokens (2 experts)",
        "seconds a step of 1024 tokens",
        list(cases),
        _against_plain(measured, cases),
    )


def size(measured: Measured) -> Curves:
    sizes = [
        Gpt2(layers, width, width // 64)
        for layers, width in ((6, 384), (6, 768), (12, 768), (12, 1024), (24, 1024))
    ]
    cases = {gpt2.frozen_in_products / 1e6: Case(base=gpt2) for gpt2 in sizes}
    return Curves(
        "Step against model size",
        "frozen weights in products, millions (2 experts)",
        "seconds a step of 8 x 128 tokens",
        list(cases),
        _against_plain(measured, cases),
        notes=[f"{gpt2.layers} layers, width {gpt2.width}" for gpt2 in sizes],
    )


def ranks(measured: Measured) -> Curves:
    """The machine's cores for one user, or one each for as many users."""
    cores, case = measured.threads, Case()
    shared = [(1, 1), (1, cores), (cores, 1)]
    rates = []
    for count, threads in shared:
        start: list[object] = [case.phase, case.warm_up, case.measured, DEVIATION, "-"]
        whole = measured.executables.steps(*start, *options(case, threads), ranks=count)
        rates.append(count * case.tokens / Report(whole).seconds)
        print(f"  {count} ranks, {threads} threads each: {rates[-1]:.0f} tokens/s", flush=True)
    return Curves(
        "Training of GPT-2 124M against ranks",
        "how the machine is shared",
        "tokens a second, all users together",
        [f"{plural(count, 'rank')}, {plural(threads, 'thread')} each" for count, threads in shared],
        {"comigs": rates},
    )


def communication(measured: Measured) -> Curves:
    """The average of the shared part of GPT-2 124M's experts; hardly any training around it."""
    gpt2 = Gpt2()
    base = random_base(CACHE, gpt2)
    counts, seconds = (2, 4, 8, 16), []
    for count in counts:
        data = random_data(CACHE, gpt2.vocabulary, users=count, train=20_000, validation=64, test=64)
        output = CACHE / "communication-run"
        shutil.rmtree(output, ignore_errors=True)
        job: list[object] = ["--data", data, "--model", base, "--output", output, "--threads", 1]
        job += ["--batch-sequences", 1, "--context-tokens", 16, "--local-steps", 1, "--rounds", 6]
        job += ["--evaluate-every", 6, "--train-evaluation-tokens", 64]
        measured.executables.comigs("train", *job, ranks=count)
        with h5py.File(output / "results.h5") as results:
            slowest = results["time"]["aggregation"][1:].max(1)
        seconds.append(1e3 * statistics.median(map(float, slowest)))
        print(f"  {count} ranks: {seconds[-1]:.2f} ms", flush=True)
    return Curves(
        "Averaging what users of GPT-2 124M share against ranks",
        f"ranks on {measured.threads} cores",
        "milliseconds, median of 6 rounds",
        [float(count) for count in counts],
        {"comigs": seconds},
    )


def plural(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


@dataclass(frozen=True)
class Axis:
    name: str
    measure: Callable[[Measured], Curves]


AXES = [Axis(measure.__name__, measure) for measure in (experts, context, size, ranks, communication)]


def main() -> int:
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scaling", description=about)
    names = [axis.name for axis in AXES]
    figures, built = ROOT / "tests" / "bench" / "figures", ROOT / "build" / "dev"
    parser.add_argument(
        "--output", type=Path, default=figures, metavar="FOLDER", help="[tests/bench/figures]"
    )
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--executables", type=Path, default=built, metavar="FOLDER", help="[build/dev]")
    wanted = parser.parse_args()
    try:
        measured = Measured(Executables(wanted.executables), len(os.sched_getaffinity(0)))
        wanted.output.mkdir(parents=True, exist_ok=True)
        for axis in AXES:
            if axis.name in wanted.only:
                print(f"{axis.name}:", flush=True)
                curves = axis.measure(measured)
                print(curves.as_markdown(), flush=True)
                (wanted.output / f"{axis.name}.md").write_text(curves.as_markdown(), encoding="utf-8")
                draw(curves, wanted.output / f"{axis.name}.png")
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
