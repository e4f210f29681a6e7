"""Room io against independent readers and writers: the safetensors package and hashlib."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.helpers.built_program import built_program, run_program


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "wte.weight": torch.randn(11, 3, generator=generator),
        "half": torch.randn(5, generator=generator).to(torch.bfloat16),
        "ieee_half": torch.randn(5, 2, generator=generator).to(torch.float16),
        "double": torch.randn(2, 2, 2, generator=generator, dtype=torch.float64),
        "ids": torch.tensor([-1, 2**40]),
        "mask": torch.tensor([True, False, True]),
        "scalar": torch.tensor(1.5),
        "nothing": torch.zeros(0, 4),
        "größe": torch.arange(3, dtype=torch.uint8),
    }


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def test_reads_what_the_safetensors_package_writes(tmp_path):
    save_file(tensors(), tmp_path / "a.safetensors", metadata={"format": "pt"})
    lines = run_program("io_demo", "list", tmp_path / "a.safetensors").splitlines()
    listed = dict(line.split(" ", 1) for line in lines)
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
    names |= {torch.int64: "I64", torch.bool: "BOOL", torch.uint8: "U8"}
    assert listed == {
        name: f"{names[tensor.dtype]} [{','.join(map(str, tensor.shape))}] {digest(tensor)}"
        for name, tensor in tensors().items()
    }


def test_the_safetensors_package_reads_what_is_written(tmp_path):
    save_file(tensors(), tmp_path / "a.safetensors", metadata={"format": "pt", "note": "ä"})
    run_program("io_demo", "copy", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    copied = load_file(tmp_path / "b.safetensors")
    assert copied.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert copied[name].dtype == tensor.dtype and torch.equal(copied[name], tensor)
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "note": "ä"}
    content = (tmp_path / "b.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert (8 + length) % 64 == 0
    json.loads(content[8 : 8 + length])


def test_headers_of_the_package_cut_or_flipped_never_crash(tmp_path):
    """Bytes of a good header changed at random: exit code 2 and one message, or a listing."""
    save_file(tensors(), tmp_path / "good.safetensors")
    good = (tmp_path / "good.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", good[:8])
    random = np.random.default_rng(0)
    program, path, refused = built_program("io_demo"), tmp_path / "bad.safetensors", 0
    for _ in range(150):
        content = bytearray(good)
        for position in random.integers(0, 8 + length, size=random.integers(1, 4)):
            content[position] = random.integers(0, 256)
        path.write_bytes(content)
        done = subprocess.run([program, "list", path], capture_output=True, timeout=60)
        assert done.returncode in (0, 2)
        if done.returncode == 2:
            refused += 1
            assert done.stderr.startswith(b"error: ") and b"bad.safetensors" in done.stderr
            assert done.stderr.count(b"\n") == 1
    assert refused > 75


def test_missing_file_is_one_message(tmp_path):
    message = run_program("io_demo", "list", tmp_path / "absent.safetensors", code=2)
    assert message == f"error: cannot read '{tmp_path}/absent.safetensors': No such file or directory\n"


def test_digests_are_those_of_hashlib(tmp_path):
    path = tmp_path / "file"
    for size in (0, 1, 63, 64, 2**20, 2**20 + 1, 3_000_000):
        content = np.random.default_rng(size).bytes(size)
        path.write_bytes(content)
        assert run_program("io_demo", "sha256", path).strip() == hashlib.sha256(content).hexdigest()
