"""Damage to safetensors: headers, lengths, and claims of what is not there."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

from .damage import (
    as_json,
    damaged_bytes,
    damaged_json,
    replaced,
)


def damaged_safetensors(file: Path, source: random.Random) -> str:
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = data[8 : 8 + length], data[8 + length :]
    kind = source.choice(
        ("json", "json", "json", "tensor", "tensor", "length", "bytes", "bytes", "body", "place")
    )
    if kind == "place":
        return replaced(file, source)
    if kind == "json":
        what, document = damaged_json(json.loads(header), source)
        header = as_json(document)
    elif kind == "tensor":
        what, header = _damaged_tensor(json.loads(header), source)
    elif kind == "bytes":
        what, header = damaged_bytes(header, source)
    elif kind == "body":
        what = "the data too short or too long"
        body = source.choice((body[:-1], body + b"\0", body[: len(body) // 2], b"", body * 2))
    else:
        what = "length of the header"
    said = len(header)
    if kind == "length":
        said = source.choice(
            (0, 1, 7, said - 1, said + 1, 99_999_999, 100_000_000, 2**31, 2**63, 2**64 - 1, 2**64 - 8)
        )
    file.write_bytes(struct.pack("<Q", said) + header + body)
    return f"{kind}: {what}"


def _damaged_tensor(header: dict, source: random.Random) -> tuple[str, bytes]:
    """Shapes and offsets that claim what is not there."""
    names = [name for name in header if name != "__metadata__"]
    first, second = source.sample(names, 2)
    tensor = header[first]
    kind = source.choice(
        ("petabytes", "overflow", "to zero", "overlap", "far", "backwards", "axes", "turned", "dtype")
    )
    if kind == "petabytes":
        tensor |= {"shape": [2**25, 2**25], "data_offsets": [0, 2**52]}
    elif kind == "overflow":
        tensor["shape"] = [2**32, 2**32, 2**32]
    elif kind == "to zero":
        tensor |= {"shape": [2**62], "data_offsets": [tensor["data_offsets"][0]] * 2}
    elif kind == "overlap":
        tensor["data_offsets"] = header[second]["data_offsets"]
    elif kind == "far":
        tensor["data_offsets"] = [2**63, 2**63 + 16]
    elif kind == "backwards":
        tensor["data_offsets"] = tensor["data_offsets"][::-1]
    elif kind == "axes":
        tensor["shape"] = tensor["shape"] + [1] * source.choice((14, 17, 10_000))
    elif kind == "turned":
        tensor["shape"] = tensor["shape"][::-1] + [1]
    else:
        tensor["dtype"] = source.choice(
            ("F64", "I32", "F8_E4M3", "BOOL", "f32", "F32\n\x1b[31m", "x" * 100_000)
        )
    return kind, json.dumps(header).encode()
