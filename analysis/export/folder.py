"""The folder of an export: adapters, router, what they make together, a card; there whole or not at all. Written here
of LoRA, in analysis.export.prompts of soft prompts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.export import adapters, merged, prompts
from analysis.export.base import Base, find_base
from analysis.export.card import Described, card
from analysis.export.moe import moe_kind
from analysis.export.packages import needed
from analysis.export.trained import Loras, TrainedUser, read_user
from analysis.read.results import ResultsError
from analysis.read.run import Run
from console.whole_folder import Contents, clear_leftovers, whole_folder

FORMAT, FORMAT_VERSION = "comigs-mixture", 1
MIXTURE, ROUTER, CARD = "mixture.json", "router.safetensors", "README.md"
_TOP = (MIXTURE, ROUTER, prompts.PROMPTS, prompts.GATE, CARD)
_CONTENTS = Contents(top=_TOP, below=(*adapters.FILES, *merged.FILES))
_OPEN_ADAPTER = """from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("adapter")"""
_OPEN_MIXTURE = """from transformers import AutoModelForCausalLM
from analysis.export.loader import load_mixture  # of comigs

model = load_mixture(".", AutoModelForCausalLM.from_pretrained(BASE))"""
_OPEN_MERGED = """from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("mixture")"""


@dataclass(frozen=True)
class Request:
    """`base`: where it is now, None: where the run had it; `output`: None: in the run's folder, by the user's name;
    `merged`: also the whole mixture as one model; `rslora`: whether PEFT is to divide by sqrt(r)."""

    user: str
    output: Path | None = None
    base: Path | None = None
    merged: bool = False
    rslora: bool = False


def write_export(run: Run, request: Request) -> Path:
    """Returns the folder. Raises ResultsError where the input is at fault or something lies there already."""
    trained = run.attribute("kind") or "lora"
    if trained not in _FILLERS:
        raise ResultsError(
            f"{run.path}: its users train '{trained}', of which no export is known; expected {', '.join(_FILLERS)}"
        )
    fill = _FILLERS[trained](run, request)
    output = request.output or run.path.parent / f"export-{_as_file_name(request.user)}"
    _check_free(output)
    place = Path(os.path.realpath(output))  # never fails, unlike resolve
    clear_leftovers(place, _CONTENTS)
    with whole_folder(place, _CONTENTS, lambda: _check_free(output)) as folder:
        (folder / CARD).write_text(fill(folder), encoding="utf-8")
    return output


def _as_file_name(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-") or "user"


def _check_free(output: Path) -> None:
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise ResultsError(f"--output {output}: is there already; choose another folder or remove it")


def _prompts(run: Run, request: Request) -> Callable[[Path], str]:
    """What fills the folder with soft prompts, and returns the card. Raises ResultsError as `write_export`."""
    user = prompts.read_prompts(run, request.user)
    if request.merged or request.rslora:
        option = "--mixture" if request.merged else "--rslora"
        raise ResultsError(f"{option}: is for LoRA, and method '{run.method}' trains soft prompts")
    base = find_base(run, request.base)
    return lambda folder: card(run, base, prompts.write_prompts(folder, run, user, base))


def _loras(run: Run, request: Request) -> Callable[[Path], str]:
    """The same with LoRA."""
    user = read_user(run, request.user)
    base = find_base(run, request.base)
    if request.merged:
        moe_kind(base, user)
    return lambda folder: card(run, base, _write_loras(folder, run, user, base, request))


def _write_loras(folder: Path, run: Run, user: TrainedUser, base: Base, request: Request) -> Described:
    if len(user.experts) == 1:
        layers = [attention | mlp for attention, mlp in zip(user.attention, user.experts[0])]
        adapters.write_adapter(folder / "adapter", layers, base, request.rslora)
        contents, opened = {"adapter": "PEFT adapter: LoRA of attention and MLP"}, _OPEN_ADAPTER
    else:
        contents, opened = _write_parts(folder, run, user, base, request.rslora), _OPEN_MIXTURE
    if request.merged:
        merged.write_mixture(folder / "mixture", user, base)
        contents["mixture"] = f"the whole model: {moe_kind(base, user).class_name} of transformers"
        opened = _OPEN_MERGED
    facts = {}
    for name, loras in (("LoRA of experts", user.experts[0][0]), ("LoRA of attention", user.attention[0])):
        lora = next(iter(loras.values()))
        facts[name] = f"rank {lora.rank}, gamma {lora.scale:.6g}"
    return Described(user.name, ("lora", "mixture-of-experts"), facts, contents, opened)


def _write_parts(folder: Path, run: Run, user: TrainedUser, base: Base, rslora: bool) -> dict[str, str]:
    """Adapters, router and mixture.json; what each is, in words."""
    contents = {"attention": "PEFT adapter: LoRA of attention"}
    adapters.write_adapter(folder / "attention", user.attention, base, rslora)
    for expert, mlps in enumerate(user.experts):
        layers = [attention | mlp for attention, mlp in zip(user.attention, mlps)]
        adapters.write_adapter(folder / f"expert-{expert}", layers, base, rslora)
        role = user.kinds[expert].role
        contents[f"expert-{expert}"] = f"PEFT adapter: LoRA of attention and of expert {expert}, a {role}"
    if user.routers:
        tensors = {f"layers.{layer}.router.weight": weight for layer, weight in enumerate(user.routers)}
        (folder / ROUTER).write_bytes(needed("safetensors.numpy", "export").save(tensors))
        contents[ROUTER] = "by layer the router's weight [experts, width]"
    text = json.dumps(_description(run, user, base), indent=2, ensure_ascii=False)
    (folder / MIXTURE).write_text(text + "\n", encoding="utf-8")
    return contents | {MIXTURE: "what they make together"}


def _scale(layers: Sequence[Loras]) -> float:
    """Gamma, the same in all of them."""
    return next(iter(layers[0].values())).scale


def _description(run: Run, user: TrainedUser, base: Base) -> dict[str, object]:
    """mixture.json, as docs/export.md has it."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "user": user.name,
        "method": run.method,
        "base": base.identity,
        "gate": user.gate,
        "top_k": user.top_k,
        "router": ROUTER if user.routers else None,
        "scale": _scale(user.experts[0]),
        "attention_scale": _scale(user.attention),
        "experts": [
            {"folder": f"expert-{expert}", "shared": kind.role == "generalist", "number": kind.number}
            for expert, kind in enumerate(user.kinds)
        ],
    }


# By the kind of adapter; runs of the first version do not say that theirs is LoRA.
_FILLERS = {"lora": _loras, "prompts": _prompts}
