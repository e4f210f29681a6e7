"""Damage to results files: to their bytes, or to what HDF5 says they hold."""

from __future__ import annotations

import random
from pathlib import Path

import h5py
import numpy as np

from .damage import TEXTS, damaged_bytes, damaged_ini, replaced

PETA = 2**50


def damaged_results(path: Path, source: random.Random) -> str:
    kind = source.choice(
        ("bytes", "bytes", "bytes", "object", "object", "object", "attribute", "attribute", "place")
    )
    if kind == "bytes":
        what, data = damaged_bytes(path.read_bytes(), source)
        path.write_bytes(data)
        return what
    if kind == "place":
        return replaced(path, source)
    with h5py.File(path, "r+") as file:
        return _damaged_object(file, source) if kind == "object" else _damaged_attribute(file, source)


def _names(file: h5py.File) -> list[str]:
    """Everything, the arrays that every reader looks at more often."""
    names: list[str] = []
    file.visit(names.append)
    return names + ["user", "round", "layer", "routing/expert", "perplexity/test", "users/experts"] * 8


def _damaged_object(file: h5py.File, source: random.Random) -> str:
    name = source.choice(_names(file))
    kind = source.choice(
        (
            "absent",
            "scalar",
            "texts",
            "numbers",
            "petabytes",
            "sparse",
            "loop",
            "external link",
            "external data",
        )
        + ("virtual", "group", "empty", "swapped", "control")
    )
    other = source.choice(_names(file))
    if kind == "swapped":
        if name != other and not name.startswith(other) and not other.startswith(name):
            file.move(name, "swap")
            file.move(other, name)
            file.move("swap", other)
        return f"{name} and {other}: swapped"
    del file[name]
    if kind == "scalar":
        file[name] = 1.0
    elif kind == "texts":
        file[name] = ["a", "b"]
    elif kind == "control":
        file.create_dataset(name, data=["\x1b[31m\nfake line", "b"], dtype=h5py.string_dtype())
    elif kind == "numbers":
        file[name] = np.arange(7.0)
    elif kind == "petabytes":
        file.create_dataset(name, shape=(PETA,), dtype="f8")
    elif kind == "sparse":
        file.create_dataset(name, shape=(2**31, 2**31, 4), dtype=h5py.string_dtype(), chunks=(1, 1, 1))
    elif kind == "loop":
        file[name] = h5py.SoftLink(f"/{name}")
    elif kind == "external link":
        file[name] = h5py.ExternalLink("/etc/passwd", "/")
    elif kind == "external data":
        file.create_dataset(name, shape=(8,), dtype="f8", external=[("/etc/passwd", 0, 64)])
    elif kind == "virtual":
        layout = h5py.VirtualLayout(shape=(2,), dtype="f8")
        layout[:] = h5py.VirtualSource("../../other.h5", "user", shape=(2,))
        file.create_virtual_dataset(name, layout)
    elif kind == "group":
        file.create_group(name)
    elif kind == "empty":
        file[name] = h5py.Empty("f8")
    return f"{name}: {kind}"


def _damaged_attribute(file: h5py.File, source: random.Random) -> str:
    name = source.choice([*file.attrs, *["configuration"] * 12])
    kind = source.choice(
        ("ini", "ini", "ini", "ini", "absent", "number", "list", "text", "bytes", "empty", "long")
    )
    what = kind
    if kind == "ini":
        what, text = damaged_ini(str(file.attrs["configuration"]), source)
        file.attrs[name] = text.decode("utf-8", "replace").replace("\x00", "")
    elif kind == "absent":
        del file.attrs[name]
    elif kind == "number":
        file.attrs[name] = -1
    elif kind == "list":
        file.attrs[name] = ["a", "b"]
    elif kind == "text":
        file.attrs[name] = source.choice([text for text in TEXTS if "\x00" not in text and text.isascii()])
    elif kind == "bytes":
        file.attrs[name] = np.bytes_(b"\xff\xfe\x1b[2J\n")
    elif kind == "long":
        file.attrs.create(name, "long " * 200_000, dtype=h5py.string_dtype())
    else:
        file.attrs[name] = h5py.Empty("f8")
    return f"attribute {name}: {what}"
