"""The steps that `bench_steps` recorded, in plain PyTorch: the same start, the same batches, the same report.

python -m tests.bench.plain_steps RECORD
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from .plain import PlainModel, Sizes, trained_name
from .plain_gpt2 import PlainGpt2
from .plain_llama import PlainLlama
from .plain_prompts import PlainPrompts

FAMILIES = {"gpt2": PlainGpt2, "llama": PlainLlama}  # by config.json's model_type


@dataclass(frozen=True)
class Record:
    """What `bench_steps` wrote; see steps.cpp."""

    setting: dict[str, Any]
    places: dict[str, tuple[int, int, int]]  # name of a parameter: offset, rows, columns
    values: torch.Tensor
    tokens: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def read(cls, file: Path) -> Record:
        with safe_open(file, "pt") as opened:
            metadata = dict(opened.metadata())
            setting = json.loads(metadata.pop("setting"))
            places = {name: tuple(map(int, place.split())) for name, place in metadata.items()}
            return cls(setting, places, *(opened.get_tensor(n) for n in ("values", "tokens", "targets")))


def plain_model(folder: Path, sizes: Sizes, dtype: torch.dtype) -> PlainModel:
    """Of the family that the Hugging Face folder is of."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return FAMILIES[config["model_type"]](folder, sizes, dtype)


def prompts_of(record: Record) -> PlainPrompts:
    """The mixture of prompts with the recorded initial values."""
    layer = int(next(iter(record.places)).split(".")[0])
    shapes = {name.split(".", 1)[1]: (rows, columns) for name, (_, rows, columns) in record.places.items()}
    model = PlainPrompts(
        Path(record.setting["model"]),
        record.setting["heads"],
        layer,
        (record.setting["experts"], shapes["expert.0.prompt"][0]),
        shapes["router.hidden_weight"][0],
    )
    for name, (offset, rows, columns) in record.places.items():
        model.place(name, record.values[offset : offset + rows * columns].view(rows, columns))
    return model


def model_of(record: Record) -> PlainModel:
    """The plain model with the recorded initial values."""
    setting = record.setting
    sizes = Sizes(
        heads=setting["heads"],
        experts=setting["experts"],
        top_k=setting["top_k"],
        rank=next(rows for name, (_, rows, _) in record.places.items() if name.endswith(".A")),
        scale=setting["scale"],
        balancing_weight=setting["balancing_weight"],
    )
    dtype = torch.bfloat16 if setting["precision"] == "bf16" else torch.float32
    model = plain_model(Path(setting["model"]), sizes, dtype)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, (offset, rows, columns) in record.places.items():
            values = record.values[offset : offset + rows * columns]
            parameters[trained_name(name)].copy_(values.view(rows, columns))
    return model.to(setting["device"])


def optimiser_of(parameters: Iterable[torch.nn.Parameter], setting: dict[str, Any]) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters,
        lr=setting["learning_rate"],
        betas=tuple(setting["betas"]),
        eps=setting["epsilon"],
        weight_decay=setting["weight_decay"],
        fused=True,
    )


def run(record: Record) -> dict[str, Any]:
    """All steps; seconds of those after the warm-up."""
    setting = record.setting
    if setting["adapter"] == "prompts":
        model = prompts_of(record)
        trained, frozen = list(model.parameters()), model.frozen_numbers
    else:
        model = model_of(record)
        trained = list(model.trained(setting["phase"]).values())
        frozen = sum(p.numel() for n, p in model.named_parameters() if not is_trained(n))
    optimiser = optimiser_of(trained, setting)
    half = setting["precision"] == "bf16"
    seconds, losses = [], []
    device = setting["device"]
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # the peak of the steps, not of reading weights
    for tokens, targets in zip(record.tokens.to(device), record.targets.to(device), strict=True):
        begun = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16) if half else contextlib.nullcontext():
            language_model, balancing = model.losses(tokens, targets)
            total = model.total(language_model, balancing)
        total.backward()
        optimiser.step()
        losses.append([language_model.item(), None if balancing is None else balancing.item()])
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return {
        "setting": setting,
        "seconds": seconds[setting["warm_up"] :],
        "losses": losses,
        "frozen_parameters": frozen,
        "trained_parameters": sum(p.numel() for p in trained),
        "peak_memory": torch.cuda.max_memory_reserved() if device == "cuda" else peak_memory(),
    }


def peak_memory() -> int:
    """Bytes. Not getrusage, whose peak starts with that of the process that started this one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024


def is_trained(name: str) -> bool:
    return name.endswith((".A", ".B", "router"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record", type=Path)
    record = Record.read(parser.parse_args().record)
    torch.set_num_threads(max(record.setting["threads"], 1))
    print(json.dumps(run(record), indent=1))


if __name__ == "__main__":
    main()
