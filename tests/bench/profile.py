"""Where the time of comigs' step goes: samples of `perf`, put together by what the code does.

python -m tests.bench.profile [--base gpt2|smollm2] [--phase experts|routers] [--precision float32|bf16]
from the repository's root
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.draw.canvas import styled
from analysis.draw.style import NEUTRAL, SPECIALIST

from .bases import Base, Gpt2, Llama
from .programs import CACHE, ROOT, BenchError, Executables, run
from .steps import DEVIATION, Case, options

FIGURES = Path(__file__).parent / "figures"
BASES: dict[str, tuple[str, Base]] = {"gpt2": ("GPT-2 124M", Gpt2()), "smollm2": ("SmolLM2-135M", Llama())}
# What a symbol (or the library it is in) belongs to: the first that matches.
PARTS = {
    "matrix products: MKL's kernels": r"sgemm_kernel_0|gemm_bf16",
    "matrix products: oneDNN's kernels": r"\[JIT\]|brgemm|jit_|dnnl",
    "matrix products: panels copied": r"sgemm_scopy|copyat|bcopy|acopy|gblock",
    "thin low-rank products": r"sgemm_kernel_nocopy|sgemv",
    "layer norm, RMS norm": r"LayerNorm|RowwiseMoments|RmsNorm|forward_rows|backward_rows",
    "attention": r"flash_attention|comigs::kernels::.*(product<|Attention|ForwardPart|BackwardPart|::exponentials|widen|narrow|transpose|of_row)",
    "mixture of activations": r"comigs::kernels::.*(forward|backward|few_ranks|visit|gelu)",
    "loss and gradient of logits": r"comigs::kernels::.*(row|exponential|largest|in_vectors)",
    "AdamW, gate": r"comigs::kernels",
    "sums, copies and the like": r"at::native|libtorch_cpu|sExp|memset|memcpy|memmove",
    "waiting for the other thread": r"libgomp|sched_yield|futex",
    "operating system": r"\\[k\\]|kernel",
}
OTHER = "other"
SET_UP_MILLISECONDS = 4000  # opening the base and warming up are not looked at


def part_of(library: str, symbol: str) -> str:
    text = f"{library} {symbol}"
    return next((part for part, pattern in PARTS.items() if re.search(pattern, text)), OTHER)


def shares(report: str) -> dict[str, float]:
    """Of `perf report`'s lines "OVERHEAD%|LIBRARY|SYMBOL": per cent of all samples by part, largest first."""
    found: Counter[str] = Counter()
    for line in report.splitlines():
        fields = [field.strip() for field in line.split("|", 2)]
        if len(fields) == 3 and fields[0].endswith("%"):
            found[part_of(fields[1], fields[2])] += float(fields[0].removesuffix("%"))
    return dict(found.most_common())


def measure(executables: Executables, case: Case, threads: int) -> dict[str, float]:
    if shutil.which("perf") is None:
        raise BenchError("perf is not there; Debian has it in the package linux-perf", usage=True)
    record = CACHE / "perf.data"
    CACHE.mkdir(parents=True, exist_ok=True)
    steps = [case.phase, case.warm_up, case.measured, DEVIATION, "-", *options(case, threads=threads)]
    sampled = ["perf", "record", "-q", "-F", 499, "--delay", SET_UP_MILLISECONDS, "-o", record]
    run([*sampled, executables.path("bench_steps"), *steps])
    columns = ["--no-children", "--sort", "dso,symbol", "-t", "|", "--percent-limit", 0.01, "--stdio"]
    return shares(run(["perf", "report", "-i", record, *columns])[0])


@styled
def draw(found: dict[str, float], title: str, file: Path) -> None:
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(reversed(found))
    ours = [SPECIALIST if re.search("mixture|loss|AdamW|attention", name) else NEUTRAL for name in names]
    bars = axes.barh(names, [found[name] for name in names], color=ours)
    axes.bar_label(bars, fmt="%.1f %%", padding=3)
    axes.set_xlim(0, 1.12 * max(found.values()))
    axes.grid(False, axis="y")
    axes.set_xlabel("per cent of the samples (blue: comigs' own kernels)")
    axes.set_title(title)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def main() -> int:
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=about)
    parser.add_argument("--base", choices=BASES, default="gpt2", help="[gpt2]")
    parser.add_argument("--phase", choices=("experts", "routers"), default="experts", help="[experts]")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="[float32]")
    built = ROOT / "build" / "dev"
    parser.add_argument("--executables", type=Path, default=built, metavar="FOLDER", help="[build/dev]")
    wanted = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    model, base = BASES[wanted.base]
    case = Case(phase=wanted.phase, precision=wanted.precision, base=base, measured=8)
    try:
        found = measure(Executables(wanted.executables), case, threads)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for part, share in found.items():
        print(f"{share:5.1f} %  {part}")
    file = FIGURES / f"profile-{wanted.base}-{wanted.phase}-{wanted.precision}.png"
    draw(found, f"{model}, {case.phase} step, {case.precision}, {threads} threads", file)
    print(f"drawn: {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
