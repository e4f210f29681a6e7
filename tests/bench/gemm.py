"""The machine's own matrix speed at the shapes of a step: torch.mm forward (x W) and to the inputs (d_y W^T).

python -m tests.bench.gemm PRODUCTS TOKENS THREADS float32|bf16 cpu|cuda      PRODUCTS: JSON of `Base.products`
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from .bases import Product


def seconds_of(rows: torch.Tensor, weight: torch.Tensor, repeats: int = 5) -> float:
    """Median of one product into memory that is there; on a GPU, of one among many that are queued."""
    out = torch.empty(rows.shape[0], weight.shape[1], dtype=rows.dtype, device=rows.device)
    together = 50 if rows.is_cuda else 1

    def seconds() -> float:
        begun = time.perf_counter()
        for _ in range(together):
            torch.mm(rows, weight, out=out)
        if rows.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - begun) / together

    seconds()
    return statistics.median(seconds() for _ in range(repeats))


def measure(products: list[Product], tokens: int, dtype: torch.dtype, device: str) -> dict[str, object]:
    """Seconds and operations of all products of a step, each as often as it occurs there; FLOP/s of each."""
    speeds: dict[str, object] = {}
    operations = seconds = 0.0
    for name, inputs, outputs, out_in, count in products:
        weight = torch.randn(inputs, outputs).to(device, dtype)
        if out_in:
            weight = weight.t().contiguous().t()
        forward = seconds_of(torch.randn(tokens, inputs).to(device, dtype), weight)
        backward = seconds_of(torch.randn(tokens, outputs).to(device, dtype), weight.t())
        each = 2.0 * tokens * inputs * outputs
        speeds[name] = {"forward": each / forward, "to_inputs": each / backward}
        operations += 2 * each * count
        seconds += (forward + backward) * count
    return {"seconds": [seconds], "operations": operations, "products": speeds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("products", type=json.loads)
    for name in ("tokens", "threads"):
        parser.add_argument(name, type=int)
    parser.add_argument("precision", choices=("float32", "bf16"))
    parser.add_argument("device", choices=("cpu", "cuda"))
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    dtype = torch.bfloat16 if wanted.precision == "bf16" else torch.float32
    print(json.dumps(measure(wanted.products, wanted.tokens, dtype, wanted.device), indent=1))


if __name__ == "__main__":
    main()
