"""Good inputs for each target to start from; made anew each time, never stored."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from tests.helpers import tiny
from tests.hostile.material import JOB, PROBES, TOKENISER
from tests.hostile.trial import ROOT


def _safetensors(folder: Path) -> list[bytes]:
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b.weight": np.zeros((3, 1), dtype=np.int64),
        "none": np.zeros((0, 5), dtype=np.float16),
    }
    return [save(tensors), save(tensors, {"format": "pt"}), save({"a": tensors["a"]})]


def _token_shards(folder: Path) -> list[bytes]:
    narrow, wide = np.arange(40, dtype="<u2").tobytes(), np.arange(40, dtype="<u4").tobytes()
    return [
        struct.pack("<4Bii", is_wide, digest, 1, differ, vocabulary, -1) + (wide if is_wide else narrow)
        for is_wide in (0, 1)
        for digest in (0, 1)
        for differ, vocabulary in ((0, 97), (0, 30), (1, 97))
    ]


def _manifests(folder: Path) -> list[bytes]:
    manifest = tiny.data_set(folder / "data", users=tiny.USERS[:2]) / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    small = content | {"base": None, "users": content["users"][:1]}
    return [json.dumps(content).encode(), json.dumps(small, ensure_ascii=False).encode()]


def _tokenisers(folder: Path) -> list[bytes]:
    plain = {"model": {"vocab": {"a": 0, "\u0120b": 1, "\u00c3": 96}}, "decoder": None}
    metaspace = {"type": "Metaspace", "replacement": "_", "add_prefix_space": True}
    unigram = {"model": {"type": "Unigram", "vocab": [["a", 0], ["_b", -2.5]]}, "pre_tokenizer": metaspace}
    return [
        json.dumps(unigram).encode(),
        json.dumps(TOKENISER).encode(),
        json.dumps(plain, ensure_ascii=False).encode(),
        tiny.TOKENISER.encode(),
    ]


def _checkpoints(folder: Path) -> list[bytes]:
    content = {
        "format": "comigs-checkpoint",
        "version": 1,
        "round": 3,
        "configuration": JOB.format(place="."),
        "data_digest": "da7a" * 16,
        "base_digest": "ba5e" * 16,
        "users": [{"name": name, "bytes": 4096, "sha256": "f00d" * 16} for name in tiny.USERS],
    }
    return [tiny.signed(content).encode()]


def _probes(folder: Path) -> list[bytes]:
    return [json.dumps(PROBES).encode()]


def _configurations(folder: Path) -> list[bytes]:
    jobs = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "jobs").glob("**/*.ini"))]
    complete = [
        JOB.format(place="."),
        JOB.format(place=".") + "[user.1]\nexperts = 2\n[user.2]\nmemory = 1.5\n",
    ]
    return [text.encode() for text in (*complete, *jobs)]


def _prunings(folder: Path) -> list[bytes]:
    text = {"sequences": 4, "context_tokens": 12, "seed": 0, "digest": "7e47" * 16, "precision": "bf16"}
    record = {
        "format": "comigs-pruning",
        "format_version": 1,
        "method": "sparsegpt",
        "zeros": 2,
        "of": 4,
        "calibration": text,
        "base_digest": "ba5e" * 16,
        "weights_digest": "f00d" * 16,
        "zeros_by_matrix": {"h.0.attn.c_attn.weight": 1536, "h.0.mlp.c_fc.weight": 2048},
    }
    magnitude = {name: value for name, value in record.items() if name not in ("zeros", "of")}
    magnitude |= {"method": "magnitude", "share": 0.5, "calibration": None}
    return [json.dumps(content).encode() for content in (record, magnitude)]


TARGETS: dict[str, tuple[Callable[[Path], list[bytes]], str]] = {
    "checkpoint": (_checkpoints, "json.dict"),
    "configuration": (_configurations, "ini.dict"),
    "manifest": (_manifests, "json.dict"),
    "probes": (_probes, "json.dict"),
    "pruning": (_prunings, "json.dict"),
    "safetensors": (_safetensors, "json.dict"),
    "token_shard": (_token_shards, ""),
    "tokeniser": (_tokenisers, "json.dict"),
}


def write_seeds(target: str, folder: Path, scratch: Path) -> None:
    """Writes the target's seeds into `folder`; needs `scratch` for a moment."""
    folder.mkdir(parents=True, exist_ok=True)
    make, _ = TARGETS[target]
    for number, content in enumerate(make(scratch)):
        (folder / f"seed-{number}").write_bytes(content)
