"""The classes of inputs: how one is broken, and which command then meets it."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.helpers import tiny

from .broken import Broken, InputClass
from .damage import (
    OUTSIDE,
    TEXTS,
    VALUES,
    as_json,
    damaged_bytes,
    damaged_ini,
    damaged_json,
    linked_outside,
    replaced,
)
from .material import Place
from .results import damaged_results
from .tensors import damaged_safetensors


def _train(place: Place, what: str, names: Sequence[str], may_run: bool = True) -> Broken:
    return Broken(what, ["train", place.job], names, may_run)


def _route(
    place: Place, what: str, names: Sequence[str], *more: object, results: Path | None = None
) -> Broken:
    where = ["--model", place.base, "--device", "cpu", "--threads", 1]
    texts = [] if "--probes" in more else ["--data", place.data, "--tokens", 24]  # else the test split
    return Broken(what, ["route", results or place.results.parent, *where, *texts, *more], names)


# Configurations ---------------------------------------------------------------------------------------------


def job_file(place: Place, source: random.Random) -> Broken:
    text = place.write_job()
    if source.random() < 0.1:
        what = replaced(place.job, source) if source.random() < 0.5 else _huge(place.job)
        if place.job.is_fifo():  # whoever names a pipe means to write into it
            place.job.unlink()
    elif source.random() < 0.25:
        what, data = damaged_bytes(text.encode(), source)
        place.job.write_bytes(data)
    else:
        what, data = damaged_ini(text, source)
        place.job.write_bytes(data)
    return _train(place, what, (str(place.folder), "[", "--", "config.json", "data-set folder"))


def _huge(path: Path) -> str:
    path.write_text("# filler\n" * 300_000, encoding="utf-8")
    return "2.7 MB"


def options(place: Place, source: random.Random) -> Broken:
    given = {
        "--data": place.data,
        "--model": place.base,
        "--output": place.output,
        "--method": "comigs-1g1s",
        "--rounds": 1,
        "--local-steps": 2,
        "--batch-sequences": 2,
        "--context-tokens": 12,
        "--lora-rank": 2,
        "--device": "cpu",
        "--threads": 1,
        "--seed": 1,
        "--user.0.experts": 2,
    }
    words = [str(word) for pair in given.items() for word in pair]
    name = source.choice(list(given))
    value = words.index(name) + 1
    hostile = [text for text in (*VALUES, *TEXTS) if "\x00" not in text and text != "\ud800"]  # no words
    kind = source.choice(
        ("value", "value", "value", "no value", "twice", "absent", "unknown", "section", "bytes", "word")
    )
    if kind == "value":
        words[value] = source.choice(hostile)
    elif kind == "no value":
        del words[value]
    elif kind == "twice":
        words += [name, words[value]]
    elif kind == "absent":
        del words[value - 1 : value + 1]
    elif kind == "unknown":
        words[value - 1] = source.choice(
            (name[:-1], name + "x", name.upper(), "-" + name, "--=" + name, "--")
        )
    elif kind == "section":
        words += [
            source.choice(
                (
                    "--user.-1.experts",
                    "--user.9.experts",
                    "--user..experts",
                    "--user.99999999999999999999.experts",
                )
            ),
            "2",
        ]
    elif kind == "bytes":
        words[value] = "\udcff\udcfe" + words[value]  # not UTF-8
    else:
        words.insert(0, source.choice(hostile))
    named = [
        word
        for word in (str(place.folder), "[", "--", "option", "job file", "method", words[value % len(words)])
        if word
    ]
    what = f"{name}: {kind} {words[value % len(words)][:40]!r}"
    return Broken(what, ["train", *words], named)


# Data sets --------------------------------------------------------------------------------------------------


def manifest(place: Place, source: random.Random) -> Broken:
    return _json_file(place, place.manifest, source, lambda what: _train(place, what, (str(place.folder),)))


def traversal(place: Place, source: random.Random) -> Broken:
    """Paths that lead out of the data set's folder: to be refused even where a good file lies there."""
    content = json.loads(place.manifest.read_text(encoding="utf-8"))
    splits = content["users"][0]["splits"] | {"base": content["base"]["splits"]["train"]}
    holder = source.choice([*splits.values(), content["tokeniser"]])
    if source.random() < 0.3:
        what = linked_outside(place.data / holder["file"], place.folder)
    else:
        what = holder["file"] = source.choice([*OUTSIDE, str(place.folder / "secret"), "user0/../../secret"])
        place.manifest.write_text(json.dumps(content), encoding="utf-8")
    return _train(place, what, (str(place.data),), may_run=False)


def _of_a_split(place: Place, kind: str, source: random.Random) -> Broken:
    """A file of a user's split, tokens or their index."""
    file = place.data / "user0" / f"{source.choice(('train', 'validation', 'test'))}{kind}.bin"
    if source.random() < 0.2:
        return _train(place, replaced(file, source), (str(place.data),))
    what, data = damaged_bytes(file.read_bytes(), source)
    file.write_bytes(data)
    if source.random() < 0.6:
        what += ", promised"
        place.promise(file)
    return _train(place, what, (str(place.data), "context_tokens"))


def tokens(place: Place, source: random.Random) -> Broken:
    """With a digest that fits, too: a manifest from elsewhere may promise anything."""
    return _of_a_split(place, "", source)


def examples(place: Place, source: random.Random) -> Broken:
    """Instruction data: a manifest with examples, an index, with a digest that fits, too."""
    tiny.cut_into_examples(place.data, 13)
    if source.random() < 0.3:
        return manifest(place, source)
    return _of_a_split(place, ".examples", source)


def tokeniser(place: Place, source: random.Random) -> Broken:
    holder = source.choice((place.data, place.base))
    names = (str(place.folder),)
    is_routed = holder == place.data and source.random() < 0.6
    return _json_file(
        place,
        holder / "tokenizer.json",
        source,
        lambda what: _route(place, what, names) if is_routed else _train(place, what, names),
    )


def probes(place: Place, source: random.Random) -> Broken:
    return _json_file(
        place,
        place.probes,
        source,
        lambda what: _route(place, what, (str(place.folder),), "--probes", place.probes),
    )


def _json_file(place: Place, file: Path, source: random.Random, command: Callable[[str], Broken]) -> Broken:
    draw = source.random()
    if draw < 0.1:
        return command(replaced(file, source))
    if draw < 0.35:
        what, data = damaged_bytes(file.read_bytes(), source)
    else:
        what, document = damaged_json(json.loads(file.read_text(encoding="utf-8")), source)
        data = as_json(document)
    file.write_bytes(data)
    return command(what)


# Base models ------------------------------------------------------------------------------------------------


def _base_or_adapter(place: Place, of_base: str, of_adapter: str, source: random.Random) -> Path:
    """A file of the base or, less often, of the adapter that the run then begins as."""
    if source.random() < 0.6:
        return place.base / of_base
    place.write_adapter_job()
    return place.adapter / of_adapter


def model_configuration(place: Place, source: random.Random) -> Broken:
    file = _base_or_adapter(place, "config.json", "adapter_config.json", source)
    return _json_file(place, file, source, lambda what: _train(place, what, (str(file.parent),)))


def safetensors(place: Place, source: random.Random) -> Broken:
    file = _base_or_adapter(place, "model.safetensors", "adapter_model.safetensors", source)
    what = damaged_safetensors(file, source)
    return _train(place, what, (str(file.parent),))


def shard_index(place: Place, source: random.Random) -> Broken:
    index = place.shard_base()
    return _json_file(place, index, source, lambda what: _train(place, what, (str(place.base),)))


def pruning_record(place: Place, source: random.Random) -> Broken:
    """Whoever computes with the base reads it, and `comigs prune` itself, to see whether the base is there."""
    where = ("--data", place.data, "--device", "cpu", "--threads", 1)
    words = source.choice(
        (
            ["inspect", place.pruned],
            ["evaluate", "--model", place.pruned, *where],
            ["train", place.job, "--model", place.pruned],
            ["prune", "--output", place.pruned, *place.pruning()],
        )
    )
    file = place.pruned / "comigs-pruning.json"
    return _json_file(place, file, source, lambda what: Broken(what, words, (str(place.pruned),)))


# Checkpoints ------------------------------------------------------------------------------------------------


def checkpoint(place: Place, source: random.Random) -> Broken:
    place.write_resuming_job()
    sets = sorted((place.stopped / "checkpoints").iterdir())
    kind = source.choice(
        ("manifest", "manifest", "part", "part", "promised part", "promised part", "results", "set")
    )
    chosen = source.choice(sets)
    manifest, part = chosen / "manifest.json", chosen / "user_0.safetensors"
    if kind == "manifest":
        broken = _json_file(place, manifest, source, lambda what: _train(place, what, ()))
        what = broken.what
    elif kind == "results":
        what = damaged_results(place.stopped / "results.h5", source)
    elif kind == "set":
        what = _damaged_set(chosen, source)
    else:
        what = damaged_safetensors(part, source) if source.random() < 0.5 else _damaged_state(part, source)
        if kind == "promised part" and part.is_file() and not part.is_symlink():
            _promise_part(manifest, part)
    return _train(place, f"{chosen.name} {kind}: {what}", (str(place.folder),))


def _damaged_set(chosen: Path, source: random.Random) -> str:
    name = source.choice(("999999999999", "000000", "link", "9" * 40, "moved away"))
    if name == "link":
        chosen.rename(chosen.parent.parent / "elsewhere")
        chosen.symlink_to(chosen.parent.parent / "elsewhere")
    elif name == "moved away":
        chosen.rename(chosen.parent.parent / "elsewhere")
    else:
        chosen.rename(chosen.with_name(name))
    return name


def _damaged_state(part: Path, source: random.Random) -> str:
    """Numbers that no run writes, in the place of some."""
    data = part.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {
        name: entry for name, entry in json.loads(data[8 : 8 + length]).items() if name != "__metadata__"
    }
    name = source.choice(["position", "aggregation", "record", "start", *tensors])
    begin, end = tensors[name]["data_offsets"]
    kind = {"I64": "q", "F64": "d", "F32": "f"}[tensors[name]["dtype"]]
    width = struct.calcsize(kind)
    if begin == end:
        return f"{name}: nothing to change"
    place = 8 + length + begin + width * source.randrange((end - begin) // width)
    value = source.choice(
        (-1, 3, 2**31, 2**40, 2**62, -(2**63))
        if kind == "q"
        else (-1.0, 0.5, 1e30, 2.0**40, float("nan"), float("-inf"))
    )
    part.write_bytes(data[:place] + struct.pack(f"<{kind}", value) + data[place + width :])
    return f"{name}: {value}"


def _promise_part(manifest: Path, part: Path) -> None:
    content = json.loads(manifest.read_text(encoding="utf-8"))
    data = part.read_bytes()
    content["users"][0] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.write_text(tiny.signed(content), encoding="utf-8")


# Results ----------------------------------------------------------------------------------------------------


def results_routed(place: Place, source: random.Random) -> Broken:
    what = damaged_results(place.results, source)
    # The file is what is broken: where its folder is asked for, a missing one is named too.
    return _route(place, what, (str(place.folder),), results=place.results)


def results_read(place: Place, source: random.Random) -> Broken:
    what = damaged_results(place.results, source)
    where = ["--model", place.base, "--device", "cpu", "--threads", 1]
    words = source.choice(
        (
            ["inspect"],
            ["evaluate", "--data", place.data, *where],
            ["generate", "--prompts", place.probes, "--tokens", 2, *where],
        )
    )
    return Broken(what, [words[0], place.results, *words[1:]], (str(place.folder),))


def inspected(place: Place, source: random.Random) -> Broken:
    """What train meets, too, as it lies there."""
    base = place.base
    holder, file = source.choice(
        ((base, base / "config.json"), (place.data, place.manifest), (base, base / "model.safetensors"))
    )
    if file.suffix == ".safetensors":
        what = damaged_safetensors(file, source)
        return Broken(what, ["inspect", holder], (str(holder),))
    return _json_file(place, file, source, lambda what: Broken(what, ["inspect", holder], (str(holder),)))


def results_analysed(place: Place, source: random.Random) -> Broken:
    what = damaged_results(place.results, source)
    command = source.choice(("report", "report", "insight"))
    page = place.folder / "page.html"
    return Broken(what, [command, place.results, "--output", page], (str(place.folder),))


CLASSES = (
    InputClass("configurations (INI)", job_file),
    InputClass("options", options),
    InputClass("manifests", manifest),
    InputClass("paths in manifests", traversal),
    InputClass("token files", tokens),
    InputClass("tokenisers", tokeniser),
    InputClass("probe texts", probes),
    InputClass("config.json, of bases and adapters", model_configuration),
    InputClass("safetensors, of bases and adapters", safetensors),
    InputClass("indices of shards", shard_index),
    InputClass("checkpoints", checkpoint),
    InputClass("comigs-pruning.json", pruning_record),
    InputClass("results.h5, comigs route", results_routed),
    InputClass("results.h5, comigs inspect, evaluate, generate", results_read),
    InputClass("models and data sets, comigs inspect", inspected),
    InputClass("results.h5, analysis", results_analysed, module="analysis"),
    InputClass("instruction data", examples),
)
