"""The rows of the comparison: what each measures and what it must reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .bases import Gpt2, Llama
from .steps import DEVIATION, Case, Measured, check_losses, options
from .table import Bound
from .whole import aggregation_shares, evaluation_speeds, quickstart_ratios

RANK, ACTIVE = 8, 2  # comigs' defaults: LoRA rank, experts of a token


@dataclass(frozen=True)
class Row:
    """`cases` are measured together with those of the other rows before `values` is called."""

    name: str
    what: str
    unit: str
    bound: Bound
    values: Callable[[Measured, int], list[float]]  # of what was measured, for a number of repeats
    cases: tuple[Case, ...] = ()
    official: bool = False  # needs the authors' program
    of_steps: bool = True  # else of the host and of whole runs, which are measured without a GPU


def _ratio(name: str, what: str, unit: str, bound: Bound, above: Case, below: Case) -> Row:
    """Seconds of a step of `above` over those of `below`."""
    return Row(name, what, unit, bound, lambda measured, _: measured.ratios(above, below), (above, below))


def _against_plain(name: str, model: str, case: Case, at_least: float) -> Row:
    setting = f"8 x 128, {case.experts} experts top-2, {case.precision}"
    return _ratio(
        name,
        f"expert step, {model}, {setting}: plain PyTorch / comigs",
        "times as fast",
        Bound(at_least=at_least),
        case.of("plain"),
        case,
    )


def _gpt2_against_plain(experts: int, precision: str, at_least: float) -> Row:
    case = Case(experts=experts, precision=precision)
    return _against_plain(f"step-{experts}-experts-{precision}", "GPT-2 124M", case, at_least)


def operations(case: Case) -> float:
    """Floating-point operations that an expert step needs: 4 for each frozen weight in products (attention,
    MLP, tied head: forward and to the inputs) and token; causal attention forward (2 products) and backward
    (4), half of each; every LoRA's two products forward and, to inputs and factors, backward."""
    base, n = case.base, case.tokens
    frozen = 4.0 * base.frozen_in_products * n
    attention = 6 * 2.0 * n * case.context * base.width / 2 * base.layers
    widths = sum(map(sum, base.attention.values()))  # in + out of all LoRA of a layer
    widths += sum(map(sum, base.mlp.values())) * min(ACTIVE, case.experts)
    return frozen + attention + 3 * 2.0 * n * RANK * widths * base.layers


def _throughput(case: Case) -> Callable[[Measured, int], list[float]]:
    def values(measured: Measured, _: int) -> list[float]:
        pairs = zip(measured.reports[case], measured.reports[case.of("gemm")], strict=True)
        return [
            (operations(case) / own.seconds) / (machine.whole["operations"] / machine.seconds)
            for own, machine in pairs
        ]

    return values


def _of_gemm_speed(name: str, model: str, case: Case, at_least: float) -> Row:
    return Row(
        name,
        f"FLOP/s of comigs' expert step, {model}, {case.precision} / torch.mm at its shapes",
        "of GEMM speed",
        Bound(at_least=at_least),
        _throughput(case),
        (case, case.of("gemm")),
    )


def _peak_memory_at_once(measured: Measured, _: int) -> list[float]:
    """One step of one process each: memory does not vary."""
    case = Case(batch=64, warm_up=0, measured=1)
    comigs, plain = measured.once(case), measured.once(case.of("plain"))
    check_losses(case.of("plain"), comigs, plain)
    return [comigs.peak_memory / plain.peak_memory]


def _peak_memory_of_steps(case: Case) -> Callable[[Measured, int], list[float]]:
    """Of the processes whose steps are timed."""

    def values(measured: Measured, _: int) -> list[float]:
        pairs = zip(measured.reports[case], measured.reports[case.of("plain")], strict=True)
        return [comigs.peak_memory / plain.peak_memory for comigs, plain in pairs]

    return values


def _memory_of_a_rank(measured: Measured, _: int) -> list[float]:
    """MB that each of three more ranks adds to a node: pages that several map count once among them."""
    case = Case(batch=1, context=16, warm_up=0, measured=1)
    own, node = 0, []
    for ranks in (1, 4):
        start: list[object] = [case.phase, case.warm_up, case.measured, DEVIATION, "-"]
        report = measured.executables.steps(*start, *options(case, threads=1), ranks=ranks)
        node.append(sum(rank["proportional"] for rank in report["set_up_memory"]))
        own = 4 * report["block_bytes"]  # values, gradients, both moments
        trained = f"{ranks * own / 1e6:.0f} MB block and optimiser"
        print(f"  {ranks} ranks: {node[-1] / 1e6:.0f} MB, of that {trained}", flush=True)
    return [((node[1] - node[0]) / 3 - own) / 1e6]


def _against_official(name: str, model: str, case: Case, at_least: float) -> Row:
    setting = f"{case.batch} x {case.context}, {case.experts} experts top-2, {case.precision}"
    row = _ratio(
        name,
        f"{case.phase[:-1]} step, {model}, {setting}: the authors' program / comigs",
        "times as fast",
        Bound(at_least=at_least),
        case.of("official"),
        case,
    )
    return replace(row, official=True, of_steps=False)  # the program's step is one of a CPU


SMALL = Case(base=Gpt2(layers=4, width=256, heads=4), batch=64)
PROMPTS = Case(base=Llama(), experts=8, prompts=10)
STEP, SMOLLM2 = Case(), Case(base=Llama())
HALF, SMOLLM2_HALF = replace(STEP, precision="bf16"), replace(SMOLLM2, precision="bf16")
ROWS = [
    _gpt2_against_plain(2, "float32", 1.6),
    _of_gemm_speed("matrix-throughput", "GPT-2 124M", STEP, 0.75),
    _ratio(
        "router-step-against-expert-step",
        "comigs' router step / expert step, 2 experts",
        "of the time",
        Bound(at_most=1),
        Case(phase="routers"),
        STEP,
    ),
    _gpt2_against_plain(2, "bf16", 2.0),
    _of_gemm_speed("matrix-throughput-bf16", "GPT-2 124M", HALF, 0.88),
    _ratio(
        "bf16-against-own-float32",
        "the same, 2 experts: comigs float32 / comigs bf16",
        "times as fast",
        Bound(at_least=1.9),
        STEP,
        HALF,
    ),
    _ratio(
        "step-bf16-against-float32",
        "the same, 2 experts: plain PyTorch float32 / comigs bf16",
        "times as fast",
        Bound(at_least=4.2),
        STEP.of("plain"),
        HALF,
    ),
    _gpt2_against_plain(4, "float32", 1.7),
    _gpt2_against_plain(4, "bf16", 2.2),
    _ratio(
        "eight-experts-against-one",
        "comigs' expert step with 8 experts top-2 / with 1 expert",
        "of the time",
        Bound(at_most=1.25),
        Case(experts=8),
        Case(experts=1),
    ),
    Row(
        "quickstart",
        "jobs/quickstart-tiny.ini, evaluations and all: plain PyTorch simulator / comigs with 4 ranks",
        "times as fast",
        Bound(at_least=5),
        lambda measured, repeats: quickstart_ratios(measured.executables, measured.threads, repeats),
        of_steps=False,
    ),
    Row(
        "peak-memory",
        "peak memory of the expert step at 64 x 128 tokens at once: comigs / plain PyTorch",
        "of the memory",
        Bound(at_most=0.5),
        _peak_memory_at_once,
    ),
    Row(
        "memory-of-a-rank",
        "what the second to fourth rank of a node add before activations, beyond their block and optimiser",
        "MB",
        Bound(at_most=60),
        _memory_of_a_rank,
        of_steps=False,
    ),
    Row(
        "aggregation-share",
        "aggregation / round without evaluation, 4 ranks, GPT-2 124M, 10 steps of 2 x 128 tokens a round",
        "of the time",
        Bound(at_most=0.01),
        lambda measured, _: aggregation_shares(measured.executables),
        of_steps=False,
    ),
    _against_plain("smollm2-step-float32", "SmolLM2-135M", SMOLLM2, 2.0),
    Row(
        "smollm2-peak-memory",
        "peak memory of the same step: comigs / plain PyTorch",
        "of the memory",
        Bound(at_most=0.5),
        _peak_memory_of_steps(SMOLLM2),
        (SMOLLM2, SMOLLM2.of("plain")),
    ),
    _against_plain("smollm2-step-bf16", "SmolLM2-135M", SMOLLM2_HALF, 2.0),
    _of_gemm_speed("smollm2-throughput-bf16", "SmolLM2-135M", SMOLLM2_HALF, 0.88),
    _ratio(
        "smollm2-bf16-against-own-float32",
        "the same, SmolLM2-135M: comigs float32 / comigs bf16",
        "times as fast",
        Bound(at_least=1.9),
        SMOLLM2,
        SMOLLM2_HALF,
    ),
    Row(
        "evaluation-against-training",
        "tokens/s evaluated / trained, 4 ranks, SmolLM2-135M, bf16, 2 x 128, one expert",
        "times as fast",
        Bound(at_least=2.5),
        lambda measured, repeats: evaluation_speeds(measured.executables, repeats),
        of_steps=False,
    ),
    _ratio(
        "smollm2-eight-experts-against-one",
        "comigs' expert step, SmolLM2-135M, with 8 experts top-2 / with 1 expert",
        "of the time",
        Bound(at_most=1.3),
        replace(SMOLLM2, experts=8),
        replace(SMOLLM2, experts=1),
    ),
    _ratio(
        "prompts-step-float32",
        "expert step of mop, SmolLM2-135M, 8 x 128, 8 groups of 10 prompts, float32: plain PyTorch / comigs",
        "times as fast",
        Bound(at_least=1.5),
        PROMPTS.of("plain"),
        PROMPTS,
    ),
    Row(
        "prompts-peak-memory",
        "peak memory of the same step: comigs / plain PyTorch",
        "of the memory",
        Bound(at_most=0.5),
        _peak_memory_of_steps(PROMPTS),
        (PROMPTS, PROMPTS.of("plain")),
    ),
    _ratio(
        "prompts-against-lora",
        "comigs' expert step, SmolLM2-135M: of mop as above / of LoRA with 2 experts",
        "of the time",
        Bound(at_most=1.0),
        PROMPTS,
        SMOLLM2,
    ),
    _ratio(
        "eight-groups-against-one",
        "comigs' expert step of prompts, SmolLM2-135M: 8 groups of 10 with a gate / 1 group of 10",
        "of the time",
        Bound(at_most=1.1),
        PROMPTS,
        replace(PROMPTS, experts=1),
    ),
    _against_official("official-small-float32", "GPT-2 of 4 x 256", SMALL, 2.3),
    _against_official("official-small-bf16", "GPT-2 of 4 x 256", replace(SMALL, precision="bf16"), 4.2),
    _against_official("official-small-routers", "GPT-2 of 4 x 256", replace(SMALL, phase="routers"), 2.3),
    _against_official("official-float32", "GPT-2 124M", STEP, 2.2),
    _against_official("official-bf16", "GPT-2 124M", HALF, 2.2),
]
