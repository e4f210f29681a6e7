"""The steps of a record by the authors' own program (epfml/CoMiGS), whose checkout is given: its model, its optimiser,
its way through a step on a CPU, with comigs' initial numbers and batches. Prints what plain_steps.py prints.

python -m tests.bench.official_steps FOLDER RECORD
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from .plain import frozen_weights
from .plain_steps import Record, peak_memory

TRANSPOSED = (
    "attn.c_attn.weight",
    "attn.c_proj.weight",
    "mlp.c_fc.weight",
    "mlp.c_proj.weight",
)  # in GPT-2's files


def program(folder: Path) -> tuple[Any, Any, Any]:
    """What is called of it: the model's class, that of its settings, and which parameters are trained."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        model = importlib.import_module("models.model")
        strategies = importlib.import_module("collab_utils.collaboration_strategies")
    except ImportError as error:
        raise SystemExit(
            f"error: {folder}: not a checkout of epfml/CoMiGS that runs here ({error})"
        ) from error
    return model.GPT, model.GPTConfig, strategies.to_collaboration_strategy("expert_0")


def settings(record: Record) -> dict[str, Any]:
    """As its collab_run.py sets them."""
    setting = record.setting
    base = json.loads(Path(setting["model"], "config.json").read_text(encoding="utf-8"))
    rank = next(rows for name, (_, rows, _) in record.places.items() if name.endswith(".A"))
    return {
        "n_layer": base["n_layer"],
        "n_head": base["n_head"],
        "n_embd": base["n_embd"],
        "vocab_size": base["vocab_size"],
        "block_size": base["n_positions"],
        "lora_rank": rank,
        "lora_alpha": setting["scale"] * rank**0.5,
        "lora_dropout": 0.0,
        "expert_num": setting["experts"],
        "topk_exp": min(setting["top_k"], setting["experts"]),
        "load_balancing_lambda": setting["balancing_weight"],
        "noise_type": "normal",
        "device": "cpu",
    }


def name_of(name: str) -> str:
    """comigs' name of a trained tensor ("1.expert.3.up.B", "1.router", "1.attn.c_attn.A") -> the program's."""
    layer, *rest, last = name.split(".")
    if last == "router":
        return f"transformer.h.{layer}.mlp.per_token_router.weight"
    if rest[0] == "expert":
        rest = ["mlp", "experts", rest[1], {"up": "c_fc", "down": "c_proj"}[rest[2]]]
    return ".".join(["transformer", "h", layer, *rest, f"lora_{last}"])


def fill(model: torch.nn.Module, record: Record) -> None:
    """Frozen weights, an MLP's for each of its experts, and the recorded start of what is trained."""
    parameters = dict(model.named_parameters())
    frozen = frozen_weights(Path(record.setting["model"]), "transformer.", torch.float32)
    with torch.no_grad():
        for name, weight in frozen.items():
            values = weight.t() if name.endswith(TRANSPOSED) else weight
            experts = range(record.setting["experts"]) if ".mlp." in name else (None,)
            for expert in experts:
                place = name if expert is None else name.replace(".mlp.", f".mlp.experts.{expert}.")
                parameters[f"transformer.{place}"].copy_(values)
        for name, (offset, rows, columns) in record.places.items():
            parameters[name_of(name)].copy_(
                record.values[offset : offset + rows * columns].view(rows, columns)
            )


def run(folder: Path, record: Record) -> dict[str, Any]:
    setting = record.setting
    gpt, config, strategy = program(folder)
    with contextlib.redirect_stdout(sys.stderr):
        model = gpt(config(**settings(record)))
    fill(model, record)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(strategy.is_optimized(name))
    with contextlib.redirect_stdout(sys.stderr):
        of_experts, of_routers = model.configure_optimizers(
            setting["weight_decay"], setting["learning_rate"], tuple(setting["betas"]), "cpu"
        )
    optimiser = of_experts if setting["phase"] == "experts" else of_routers
    half = setting["precision"] == "bf16"
    model.train()
    seconds, losses = [], []
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the steps
    for tokens, targets in zip(record.tokens, record.targets, strict=True):
        begun = time.perf_counter()
        # On a GPU the program computes in bf16 by this context; on a CPU it has none.
        with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
            _, minimised, reported = model(tokens, targets=targets)
        minimised.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append([reported.item(), None])
        seconds.append(time.perf_counter() - begun)
    return {
        "setting": setting,
        "seconds": seconds[setting["warm_up"] :],
        "losses": losses,
        "peak_memory": peak_memory(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("record", type=Path)
    wanted = parser.parse_args()
    record = Record.read(wanted.record)
    torch.set_num_threads(max(record.setting["threads"], 1))
    print(json.dumps(run(wanted.folder, record), indent=1))


if __name__ == "__main__":
    main()
