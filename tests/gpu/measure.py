"""Single measurements on the card. Each prints what it found, in its last line the figures for the table.

python -m tests.gpu.measure machine | material | steps BATCH PRECISION EXPERTS [--routers] [--base NAME] [--prompts N]
                            | ranks PRECISION | sharing [--mps] | products VOCABULARY PRECISION | kernels | timeline
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path

from tests.bench.bases import Base, Gpt2, Llama
from tests.bench.material import random_base, random_data
from tests.bench.programs import CACHE, ROOT, BenchError, environment, run_module
from tests.bench.rows import operations
from tests.bench.steps import DEVIATION, TOLERANCES, Case, Report, difference, options

PEAK = 790e12  # bf16 FLOP/s of an H100 or H200 in large products, as measured
WARM_UP, MEASURED = 3, 20
PACKAGES = ("torch", "numpy", "safetensors", "h5py", "pytest", "transformers")
THREADS = min(8, len(os.sched_getaffinity(0)))
BASES: dict[str, Base] = {"gpt2": Gpt2(), "smollm2": Llama()}
SHARERS = (1, 2, 4)  # ranks of one card


class Failed(Exception):
    """What the table says of it."""


def started(command: list[object], **variables: str) -> str:
    """What the command prints; its errors and warnings go where this program's go."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=ROOT, env=environment() | variables, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise Failed(f"{done.stdout}\nexit code {done.returncode}: {Path(words[0]).name} {words[-1]}")
    return done.stdout


def machine() -> str:
    """The card, what Python holds, and whether every program finds its libraries."""
    import torch

    if shutil.which("nvidia-smi"):
        subprocess.run(["nvidia-smi"], check=False)
    faults = []
    for name in PACKAGES:
        try:
            print(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            faults.append(f"no Python package {name}")
    if not torch.__version__.startswith("2.11."):
        faults.append(f"torch {torch.__version__}, expected 2.11")
    with_libraries = environment() | {"LD_LIBRARY_PATH": os.environ["COMIGS_GPU_LIBRARIES"]}
    loaded = [*ROOT.glob("libexec/*"), *ROOT.glob("*/plugins/*.so")]
    found = subprocess.run(["ldd", *loaded], env=with_libraries, capture_output=True, text=True, check=False)
    told = (found.stdout + found.stderr).splitlines()  # libraries there, versions of glibc's symbols here
    faults += sorted({line.strip() for line in told if "not found" in line})
    print(f"{len(loaded)} programs and plug-ins: their libraries looked for")
    if faults:
        raise Failed("; ".join(faults))
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, torch {torch.__version__}"


def material() -> str:
    begun = time.monotonic()
    for base in BASES.values():
        random_base(CACHE, base)
        random_data(CACHE, base.vocabulary)
    return f"{', '.join(BASES)} of random weights, four users ({time.monotonic() - begun:.0f} s)"


def report_in(output: str) -> Report:
    """Of what bench_steps prints; before it there may be warnings."""
    before, _, report = f"\n{output}".partition("\n{")
    print(before.strip())
    return Report(json.loads("{" + report))


def bench_steps(case: Case, record: object, of_card: int = 1) -> list[object]:
    begin: list[object] = ["mpirun", "-n", of_card, "bench_steps", case.phase, case.warm_up, case.measured]
    return [*begin, DEVIATION, record, *options(case, THREADS, "cuda")]


def steps(case: Case) -> str:
    """comigs' steps and those of plain PyTorch on the same records."""
    record = CACHE / "records" / f"{case.label}.safetensors"
    record.parent.mkdir(parents=True, exist_ok=True)
    own = report_in(started(bench_steps(case, record)))
    told = f"{own.seconds * 1e3:.2f} ms"
    if case.phase == "experts" and not case.prompts:
        speed = operations(case) / own.seconds
        told += f", {speed / 1e12:.0f} TFLOP/s, {speed / PEAK:.0%} of {PEAK / 1e12:.0f}"
    told += f", {own.peak_memory / 1e9:.1f} GB"
    print(told, flush=True)
    try:
        plain = Report(run_module("plain_steps", record)[0])
    except BenchError as error:
        print(error)
        raise Failed(f"{told}; plain PyTorch failed: {str(error).splitlines()[-1]}") from error
    apart = difference(own, plain)
    told += f"; plain PyTorch {plain.seconds * 1e3:.2f} ms, {plain.seconds / own.seconds:.2f} times as long"
    told += f", {plain.peak_memory / 1e9:.1f} GB; losses within {apart:.0e}"
    if apart > TOLERANCES[case.precision]:
        raise Failed(f"{told}, expected {TOLERANCES[case.precision]:.0e}")
    return told


def ranks(precision: str) -> str:
    """`comigs train` with four users that share the card: two runs, which must end with the same bits."""
    import h5py

    case = Case(precision=precision)
    results, seconds = [], []
    for name in ("a", "b"):
        output = CACHE / "runs" / f"{precision}-{name}"
        shutil.rmtree(output, ignore_errors=True)
        begun = time.monotonic()
        command: list[object] = ["mpirun", "-n", 4, "comigs", "train", *options(case, 1, "cuda")]
        command += ["--output", output, "--rounds", 2, "--local-steps", 10]
        print(started(command, OMPI_MCA_rmaps_base_oversubscribe="1"))
        seconds.append(time.monotonic() - begun)
        with h5py.File(output / "results.h5") as stored:
            results.append(stored["perplexity/test"][:])
    if (results[0] != results[1]).any():
        raise Failed(f"two runs differ: test perplexities {results[0][-1]} and {results[1][-1]}")
    return f"{min(seconds):.1f} s a run of 2 rounds of 10 steps; the same bits twice"


@contextmanager
def mps() -> Iterator[dict[str, str]]:
    """Within it NVIDIA's daemon lets processes with these variables compute on the card side by side."""
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as folder:
        variables = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        control, mine = ["nvidia-cuda-mps-control"], os.environ | variables
        if subprocess.run([*control, "-d"], env=mine, check=False).returncode != 0:
            raise Failed("nvidia-cuda-mps-control -d failed")
        try:
            yield variables
        finally:
            subprocess.run(control, env=mine, input="quit\n", text=True, check=False)


def sharing(with_mps: bool) -> str:
    """Ranks that share the card, each with steps of its own: what they get done together."""
    case = Case(batch=16, precision="bf16", warm_up=WARM_UP, measured=5 * MEASURED)
    found = []
    with mps() if with_mps else nullcontext({}) as variables:
        for of_card in SHARERS:
            output = started(
                bench_steps(case, "-", of_card), OMPI_MCA_rmaps_base_oversubscribe="1", **variables
            )
            found.append(of_card * case.tokens / report_in(output).seconds)
    told = ", ".join(f"{n}: {speed / 1e3:.0f}" for n, speed in zip(SHARERS, found, strict=True))
    return f"thousand tokens a second by ranks: {told}; {max(found) / found[0]:.2f} times one rank's"


def products(vocabulary: int, precision: str) -> str:
    """torch.mm at the shapes of a step of 64 x 128 tokens."""
    wanted = json.dumps(Gpt2(vocabulary=vocabulary).products())
    sizes = (wanted, 64 * 128, THREADS, precision, "cuda")
    found = run_module("gemm", *sizes)[0]
    print(json.dumps(found, indent=1))
    head = found["products"]["head"]
    each = ", ".join(f"head {name} {speed / 1e12:.0f}" for name, speed in head.items())
    return f"{found['operations'] / found['seconds'][0] / 1e12:.0f} TFLOP/s over the step; {each}"


def kernels() -> str:
    """Seconds of each kernel of three steps, by name, as ncu measures them."""
    case = Case(batch=64, precision="bf16", warm_up=2, measured=1)
    ncu: list[object] = ["ncu", "--target-processes", "all", "--graph-profiling", "node"]
    ncu += ["--clock-control", "none", "--metrics", "gpu__time_duration.sum"]
    ncu += ["--print-units", "base", "--csv"]  # nanoseconds
    output = started([*ncu, *bench_steps(case, "-")])
    table = output[output.index('"ID"') :]
    nanoseconds, launches = Counter[str](), Counter[str]()
    for line in csv.DictReader(io.StringIO(table)):
        name = re.sub(r"[<(].*", "", line["Kernel Name"])[:70]
        nanoseconds[name] += round(float(line["Metric Value"].replace(",", "")))
        launches[name] += 1
    for name, spent in nanoseconds.most_common(25):
        print(f"{spent / 1e6:9.3f} ms {launches[name]:6} x {name}")
    total = sum(nanoseconds.values()) / 1e6
    return f"{total:.1f} ms in {sum(launches.values())} kernels, set-up and three steps"


def timeline() -> str:
    """What nsys counts of kernels and copies, in the log."""
    case = Case(batch=64, precision="bf16", warm_up=2, measured=3)
    report = CACHE / "timeline"
    nsys: list[object] = ["nsys", "profile", "--trace=cuda", "--cuda-graph-trace=node", "--stats=true"]
    print(started([*nsys, "--force-overwrite=true", "-o", report, *bench_steps(case, "-")]))
    return "its summaries are in the log"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_subparsers(dest="what", required=True)
    for name in ("machine", "material", "kernels", "timeline"):
        what.add_parser(name)
    of_steps = what.add_parser("steps")
    of_steps.add_argument("batch", type=int)
    of_steps.add_argument("precision", choices=tuple(TOLERANCES))
    of_steps.add_argument("experts", type=int)
    of_steps.add_argument("--routers", action="store_true")
    of_steps.add_argument("--base", choices=tuple(BASES), default="gpt2")
    of_steps.add_argument("--prompts", type=int, default=0, help="in each group, where experts are groups")
    what.add_parser("ranks").add_argument("precision", choices=tuple(TOLERANCES))
    what.add_parser("sharing").add_argument("--mps", action="store_true")
    of_products = what.add_parser("products")
    of_products.add_argument("vocabulary", type=int)
    of_products.add_argument("precision", choices=tuple(TOLERANCES))
    return parser.parse_args()


def measured(wanted: argparse.Namespace) -> str:
    match wanted.what:
        case "steps":
            phase = "routers" if wanted.routers else "experts"
            sizes = {"batch": wanted.batch, "experts": wanted.experts, "prompts": wanted.prompts}
            base = BASES[wanted.base]
            return steps(
                Case(
                    phase=phase,
                    precision=wanted.precision,
                    warm_up=WARM_UP,
                    measured=MEASURED,
                    base=base,
                    **sizes,
                )
            )
        case "ranks":
            return ranks(wanted.precision)
        case "sharing":
            return sharing(wanted.mps)
        case "products":
            return products(wanted.vocabulary, wanted.precision)
        case other:
            alone = {"machine": machine, "material": material, "kernels": kernels, "timeline": timeline}
            return alone[other]()


def main() -> int:
    try:
        print(measured(arguments()))
    except (Failed, BenchError) as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
