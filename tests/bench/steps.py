"""Optimiser steps of comigs and of plain PyTorch from the same numbers on the same batches."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .bases import Base, Gpt2
from .material import random_base, random_data
from .programs import CACHE, BenchError, Executables, run_module

DEVIATION = 0.02  # of the noise on the initial parameters: without it each B is zero
# Greatest relative difference of the losses. bf16 keeps 8 bits: each implementation rounds elsewhere.
OTHERS = {"plain": "plain PyTorch", "official": "the authors' program"}
TOLERANCES = {"float32": 1e-4, "bf16": 1e-3}


@dataclass(frozen=True)
class Case:
    """A kind of steps, and what does them."""

    program: str = (
        "comigs"  # or "plain", "official" (the authors'), "gemm": the step's frozen matrix products alone
    )
    experts: int = 2
    precision: str = "float32"
    phase: str = "experts"
    batch: int = 8
    context: int = 128
    warm_up: int = 1
    measured: int = 3
    base: Base = Gpt2()
    prompts: int = 0  # in each group, where experts are groups of prompts

    @property
    def tokens(self) -> int:
        return self.batch * self.context

    @property
    def label(self) -> str:
        return (
            f"{self.base.name}-{self.phase}-{self.experts}{f'x{self.prompts}' * bool(self.prompts)}-{self.precision}-{self.batch}x{self.context}"
            f"-{self.warm_up}+{self.measured}"
        )

    def of(self, program: str) -> Case:
        return replace(self, program=program)


class Report:
    """What a process says of its steps."""

    def __init__(self, whole: dict[str, Any]) -> None:
        self.whole = whole

    @property
    def seconds(self) -> float:
        """Of a step: the median of those that were measured."""
        return statistics.median(self.whole["seconds"])

    @property
    def peak_memory(self) -> int:
        return self.whole["peak_memory"]

    @property
    def language_models(self) -> list[float]:
        return [language_model for language_model, _ in self.whole["losses"]]

    @property
    def totals(self) -> list[float]:
        """What each step minimised: the language model's loss and the weighted load-balancing loss. Compared
        as a whole, for a token whose experts nearly tie may be routed otherwise after another rounding."""
        weight = self.whole["setting"]["balancing_weight"]
        losses = self.whole["losses"]
        return [language_model + weight * (balancing or 0.0) for language_model, balancing in losses]


def options(case: Case, threads: int, device: str = "cpu") -> list[object]:
    """Of `comigs train`; makes the base and the data where they are missing."""
    base = random_base(CACHE, case.base)
    data = random_data(CACHE, case.base.vocabulary)
    method = "comigs-1g1s" if case.experts == 2 else "comigs-1gxs"
    chosen: list[object] = ["--data", data, "--model", base, "--experts", case.experts]
    if case.prompts:
        method = "mop" if case.experts > 1 else "fedprompt"
        chosen += ["--prompt-tokens", case.prompts, "--gate-warmup-rounds", 0, "--weight-decay", 0.01]
    chosen += ["--method", method]
    chosen += ["--precision", case.precision, "--threads", threads, "--device", device]
    chosen += ["--batch-sequences", case.batch, "--micro-batch-sequences", case.batch]
    return [*chosen, "--context-tokens", case.context]


def run_case(
    case: Case, executables: Executables, threads: int, device: str, official: Path | None = None
) -> Report:
    """One process of the case's steps. Others need the record that comigs leaves of the same case."""
    if case.program == "gemm":
        wanted = json.dumps(case.base.products())
        sizes = (wanted, case.tokens, threads, case.precision, device)
        return Report(run_module("gemm", *sizes)[0])
    record = CACHE / "records" / f"{case.label}-{device}-{threads}.safetensors"
    if case.program == "plain":
        return Report(run_module("plain_steps", record)[0])
    if case.program == "official":
        return Report(run_module("official_steps", official, record)[0])
    record.parent.mkdir(parents=True, exist_ok=True)
    warm_up = case.warm_up + (device == "cuda")  # which records its second step
    begin: list[object] = [case.phase, warm_up, case.measured, DEVIATION, record]
    return Report(executables.steps(*begin, *options(case, threads, device)))


class Measured:
    """Reports of every case, one a repeat: in each repeat all cases run one after the other."""

    def __init__(
        self, executables: Executables, threads: int, device: str = "cpu", official: Path | None = None
    ) -> None:
        self.executables, self.threads, self.device = executables, threads, device
        self.official = official  # the checkout of the authors' program
        self.reports: dict[Case, list[Report]] = {}

    def measure(self, cases: Iterable[Case], repeats: int) -> None:
        """In the order given, in which neighbours are compared; others right after comigs."""
        ordered: dict[Case, None] = {}
        for case in cases:
            if case.program in OTHERS:
                ordered[case.of("comigs")] = None  # whose record it needs
            ordered[case] = None
        for repeat in range(repeats):
            for case in ordered:
                report = run_case(case, self.executables, self.threads, self.device, self.official)
                self.reports.setdefault(case, []).append(report)
                self._tell(f"{repeat + 1}/{repeats}", case, report)
                if case.program in OTHERS:
                    check_losses(case, self.reports[case.of("comigs")][-1], report)

    def once(self, case: Case) -> Report:
        """A single process, kept by the caller."""
        report = run_case(case, self.executables, self.threads, self.device, self.official)
        self._tell("once", case, report)
        return report

    def _tell(self, turn: str, case: Case, report: Report) -> None:
        memory = f", {report.peak_memory / 1e9:.2f} GB" if "peak_memory" in report.whole else ""
        print(f"  {turn} {case.program:8} {case.label}: {report.seconds:.3f} s a step{memory}", flush=True)

    def ratios(self, above: Case, below: Case) -> list[float]:
        """Seconds of one case over those of another, repeat by repeat."""
        pairs = zip(self.reports[above], self.reports[below], strict=True)
        return [one.seconds / other.seconds for one, other in pairs]


def difference(comigs: Report, plain: Report, alone: bool = False) -> float:
    """The greatest relative difference of two processes' losses over their steps; `alone`: the language model's."""
    ours, theirs = (report.language_models if alone else report.totals for report in (comigs, plain))
    pairs = list(zip(ours, theirs, strict=True))
    worst = max(abs(one - other) / abs(other) for one, other in pairs)
    return worst if all(math.isfinite(one) for one, _ in pairs) else math.inf


def check_losses(case: Case, comigs: Report, plain: Report) -> None:
    # The authors' load balancing has another strength, which for two experts that are both active is a constant.
    found = difference(comigs, plain, alone=case.program == "official")
    allowed = TOLERANCES[case.precision]
    if found > allowed:
        raise BenchError(
            f"{case.label}: the losses of comigs and {OTHERS[case.program]} differ by {found:.2e} of their value,"
            f" expected at most {allowed:.0e}"
        )
