"""The machine's own matrix speed at the shapes of a step: torch.mm forward (x W) and to the inputs (d_y W^T).

python -m tests.bench.gemm LAYERS WIDTH VOCABULARY TOKENS THREADS float32|bf16 cpu|cuda
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from .material import Gpt2


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


def products(gpt2: Gpt2) -> list[tuple[str, int, int, int]]:
    """Name, in, out, how many of them a forward pass has."""
    c = gpt2.width
    return [
        ("qkv", c, 3 * c, gpt2.layers),
        ("proj", c, c, gpt2.layers),
        ("up", c, 4 * c, gpt2.layers),
        ("down", 4 * c, c, gpt2.layers),
        ("head", c, gpt2.vocabulary, 1),
    ]


def measure(gpt2: Gpt2, tokens: int, dtype: torch.dtype, device: str) -> dict[str, object]:
    """Seconds and operations of all products of a step, each as often as it occurs there; FLOP/s of each."""
    speeds: dict[str, object] = {}
    operations = seconds = 0.0
    for name, inputs, outputs, count in products(gpt2):
        weight = torch.randn(inputs, outputs).to(device, dtype)
        if name == "head":  # lies as the embedding, [V, C]
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
    for name in ("layers", "width", "vocabulary", "tokens", "threads"):
        parser.add_argument(name, type=int)
    parser.add_argument("precision", choices=("float32", "bf16"))
    parser.add_argument("device", choices=("cpu", "cuda"))
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    gpt2 = Gpt2(layers=wanted.layers, width=wanted.width, vocabulary=wanted.vocabulary)
    dtype = torch.bfloat16 if wanted.precision == "bf16" else torch.float32
    print(json.dumps(measure(gpt2, wanted.tokens, dtype, wanted.device), indent=1))


if __name__ == "__main__":
    main()
