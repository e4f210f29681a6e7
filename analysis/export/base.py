"""The frozen base of a run: where it lies, that it is the one, which family it is of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.read.results import ResultsError
from analysis.read.run import Run
from console.small_files import json_of

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Family:
    """Where projections lie. `layers`: the modules of the blocks; `mlp`: by what results.h5 calls them;
    `is_in_out`: whether weights are [in, out] (transformers' Conv1D)."""

    layers: str
    mlp: Mapping[str, str]
    is_in_out: bool


_LLAMA = Family(
    "model.layers", {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}, is_in_out=False
)
FAMILIES = {
    "gpt2": Family("transformer.h", {"up": "mlp.c_fc", "down": "mlp.c_proj"}, is_in_out=True),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}


@dataclass(frozen=True)
class Base:
    """`folder` as it was named; `config`: what of its config.json the run used, resolved, in the same names."""

    folder: Path
    digest: str
    config: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.config["model_type"])

    def setting(self, name: str) -> Any:
        """Raises ResultsError where the run did not record it."""
        if name not in self.config:
            raise ResultsError(f"{self.folder}: the run does not say what its config.json had as '{name}'")
        return self.config[name]

    @property
    def identity(self) -> dict[str, str]:
        """`base` of mixture.json, as docs/export.md has it."""
        return {"folder": str(self.folder), "model_type": self.kind, "sha256": self.digest}

    @property
    def family(self) -> Family:
        return FAMILIES[self.kind]


def find_base(run: Run, folder: Path | None) -> Base:
    """The run's base in the folder, by default in that which the run was given. Raises ResultsError where it is
    another one, or of a family that is not known here."""
    place = folder or Path(run.attribute("base_model"))
    if not place.is_dir():
        raise ResultsError(f"{place}: no such folder; --model says where the run's base model is now")
    try:
        config = json.loads(run.attribute("base_architecture"))
        kind = str(config["model_type"])
    except (ValueError, TypeError, KeyError):
        raise ResultsError(f"{run.path}: does not say what its base model is (base_architecture)") from None
    if kind not in FAMILIES:
        raise ResultsError(f"{run.path}: its base is of the kind '{kind}', expected {', '.join(FAMILIES)}")
    if weights_digest(place) != (expected := run.attribute("base_digest")):
        raise ResultsError(
            f"{place}: not the base model of {run.path}, the SHA-256 of whose weights is {expected}; --model says "
            "where that is"
        )
    return Base(place, expected, config)


def token_ids(base: Base) -> dict[str, Any]:
    """What the base's own config.json has of bos_token_id, eos_token_id, pad_token_id. Raises ResultsError."""
    file = base.folder / "config.json"
    try:
        values = json_of(file)
        return {name: values[name] for name in _TOKEN_IDS if name in values}
    except (OSError, ValueError, TypeError) as error:
        raise ResultsError(f"{file}: cannot be read as an object of JSON ({error})") from error


def weight_files(folder: Path) -> list[Path]:
    """The file of the weights, or its shards by name. Raises ResultsError."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    try:
        names = sorted({str(name) for name in json_of(folder / INDEX)["weight_map"].values()})
    except OSError as error:
        raise ResultsError(f"{folder}: there is neither {WEIGHTS} nor {INDEX}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{folder / INDEX}: no index of tensors and their files") from error
    return [folder / Path(name).name for name in names]  # none outside the folder


def weights_digest(folder: Path) -> str:
    """As comigs has it: SHA-256 of the file, or of its shards' digests and names, a line each."""
    files = weight_files(folder)
    try:
        digests = [hashlib.file_digest(file.open("rb"), "sha256").hexdigest() for file in files]
    except OSError as error:
        raise ResultsError(f"{error.filename}: cannot be read ({error.strerror})") from error
    if not (folder / WEIGHTS).exists():
        lines = (f"{digest}  {file.name}\n" for digest, file in zip(digests, files))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    return digests[0]
