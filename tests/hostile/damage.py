"""What disks, users and attackers do to files, drawn from a seeded random source: bytes, lines, JSON, places."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

DEEP = "@deep@"  # stands for lists in lists, deeper than any stack
LEVELS = 200_000
NUMBERS = (
    -1,
    0,
    0.5,
    1e308,
    -(2**63),
    2**31,
    2**53,
    2**63,
    2**64 - 1,
    2**64,
    10**30,
    float("nan"),
    float("inf"),
)
TEXTS = (
    "",
    "x" * 100_000,
    "\x00\x1b[31m\nfake line\n",
    "../../../../etc/passwd",
    "/etc/passwd",
    "\ud800",
    "\u202e",
)
OTHERS = (None, True, [], {}, [[[]]], {"a": {"b": []}}, DEEP)
OUTSIDE = ("../secret", "/etc/passwd", "a/../../secret", "./../secret", "..", "/", "../data/../secret")


class Twice(dict):
    """An object that is written with one of its keys twice."""

    def __init__(self, content: dict, key: str, value: object) -> None:
        super().__init__(content)
        self.again = (key, value)


# Bytes ------------------------------------------------------------------------------------------------------


def damaged_bytes(data: bytes, source: random.Random) -> tuple[str, bytes]:
    """The data with one or several things wrong, and what."""
    kinds: tuple[Callable[[bytes, random.Random], bytes], ...] = (
        truncated,
        flipped,
        flipped,
        overwritten,
        inserted,
        without_a_piece,
        with_a_piece_twice,
        garbage,
    )
    kind = source.choice(kinds)
    return kind.__name__.replace("_", " "), kind(data, source)


def truncated(data: bytes, source: random.Random) -> bytes:
    return data[: source.randrange(len(data))]


def flipped(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 8))):
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
    return bytes(changed)


def overwritten(data: bytes, source: random.Random) -> bytes:
    begin, length = _piece(data, source)
    filling = source.choice((b"\x00", b"\xff", b"\x80", b"9"))
    return data[:begin] + filling * length + data[begin + length :]


def inserted(data: bytes, source: random.Random) -> bytes:
    place = source.randrange(len(data) + 1)
    what = source.choice(
        (b"\x00", b"\xff\xfe", b"\xc3\x28", b"\r\n", b"\xef\xbb\xbf", b"{", b'"', b"\x1b[2J")
    )
    return data[:place] + what + data[place:]


def without_a_piece(data: bytes, source: random.Random) -> bytes:
    begin, length = _piece(data, source)
    return data[:begin] + data[begin + length :]


def with_a_piece_twice(data: bytes, source: random.Random) -> bytes:
    begin, length = _piece(data, source)
    return data[: begin + length] + data[begin:]


def garbage(data: bytes, source: random.Random) -> bytes:
    return source.randbytes(min(len(data), 100_000))


def _piece(data: bytes, source: random.Random) -> tuple[int, int]:
    length = min(len(data), source.choice((1, 2, 8, 64, 512)))
    return source.randrange(len(data) - length + 1), length


# Places -----------------------------------------------------------------------------------------------------


def replaced(path: Path, source: random.Random) -> str:
    """Something else in the file's place; returns what."""
    kind = source.choice(
        ("empty", "absent", "folder", "link to itself", "link to nothing", "endless device", "named pipe")
    )
    path.unlink()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "link to nothing":
        path.symlink_to("nowhere")
    elif kind == "endless device":
        path.symlink_to("/dev/zero")
    elif kind == "named pipe":
        os.mkfifo(path)
    return kind


def linked_outside(path: Path, outside: Path) -> str:
    """The same file, but in the folder `outside`, behind a link."""
    away = outside / f"away-{path.name}"
    shutil.move(path, away)
    path.symlink_to(away)
    return "link to a file outside"


# JSON -------------------------------------------------------------------------------------------------------


def damaged_json(document: object, source: random.Random) -> tuple[str, object]:
    """A copy with one or two places changed, and what was done to them."""
    changed, notes = copy.deepcopy(document), []
    for _ in range(source.choice((1, 1, 1, 2))):
        places = list(_places(changed))
        if not places:
            break
        holder, key = source.choice(places)
        kind = source.choice(
            ("number", "text", "other", "absent", "twice", "swapped", "path", "string number")
        )
        notes.append(f"{key}: {kind}")
        if kind == "number":
            holder[key] = source.choice(NUMBERS)
        elif kind == "text":
            holder[key] = source.choice(TEXTS)
        elif kind == "other":
            holder[key] = copy.deepcopy(source.choice(OTHERS))
        elif kind == "path":
            holder[key] = source.choice(OUTSIDE)
        elif kind == "string number":
            holder[key] = str(holder[key])
        elif kind == "absent":
            del holder[key]
        elif kind == "swapped":
            other_holder, other = source.choice(places)
            holder[key], other_holder[other] = copy.deepcopy(other_holder[other]), copy.deepcopy(holder[key])
        elif isinstance(holder, dict) and type(holder) is dict:
            _write_twice(changed, holder, key, source.choice((0, "", None, holder[key])))
        else:
            holder[key] = [holder[key], holder[key]]
    return ", ".join(notes), changed


def as_json(document: object) -> bytes:
    """As text that may break JSON's rules: keys twice, NaN, lone surrogates, endless depth."""
    return _text(document).encode("utf-8", "surrogatepass")


def _places(node: object) -> Iterator[tuple[dict | list, str | int]]:
    keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _places(node[key])


def _write_twice(root: object, holder: dict, key: str, value: object) -> None:
    """Puts a Twice in the place of `holder`."""
    for parent, name in list(_places(root)):
        if parent[name] is holder:
            parent[name] = Twice(holder, key, value)
            return
    holder[f"{key}\x00"] = value  # the root itself: an unknown key that prints badly


def _text(node: object) -> str:
    if node == DEEP:
        return "[" * LEVELS + "]" * LEVELS
    if isinstance(node, dict):
        pairs = [*node.items(), *([node.again] if isinstance(node, Twice) else [])]
        return "{" + ", ".join(f"{json.dumps(str(key))}: {_text(value)}" for key, value in pairs) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(_text, node)) + "]"
    return json.dumps(node, ensure_ascii=False)


# INI --------------------------------------------------------------------------------------------------------

# No large number that an option could take: it would be a correct run, of a year.
VALUES = ("", "-1", "nan", "inf", "-inf", "1e999", "1e-320", "99999999999999999999", "0x10", "1.5", "true")
VALUES += (
    "1,2,3,4,5",
    ",",
    "1,,",
    "x" * 100_000,
    "\x00",
    "\x1b[2J",
    "a=b",
    "[",
    "#",
    "'1'",
    "1 2",
    "1;",
    "+1",
    "\u0661",
)
LINES = (
    "=",
    "= 1",
    "a =",
    "[",
    "]",
    "[]",
    "[ ]",
    "[user",
    "[user.]",
    "[user.-1]",
    "[user.0.0]",
    "[user.9999999999]",
)
LINES += (
    "[user.99999999999999999999]",
    "[usr]",
    "[run]]",
    "rounds",
    "rounds == 1",
    "run.rounds = 1",
    "[job]",
)
LINES += ("[job]\ninherit = job.ini", "[job]\ninherit = .", "[job]\ninherit = absent.ini", "[job]\ninherit =")
LINES += (
    "[job]\ninherit = /dev/zero",
    "[job]\ninherit = other.ini",
    "[job]\ninherits = other.ini",
    "\x00",
    "\x0b",
)
LINES += (
    "[run]\nrounds = 1\nrounds = 1",
    "[user.0]\nexperts = 3",
    "; only a comment",
    "# another",
    "[a]" * 10_000,
)


def damaged_ini(text: str, source: random.Random) -> tuple[str, bytes]:
    lines = text.splitlines()
    notes = []
    for _ in range(source.choice((1, 1, 2))):
        kind = source.choice(("value", "value", "line", "line", "twice", "absent", "swapped", "name", "join"))
        notes.append(kind)
        settings = [place for place, line in enumerate(lines) if "=" in line]
        place = source.choice(settings) if settings else 0
        name, _, value = lines[place].partition("=")
        if kind == "value":
            lines[place] = f"{name}= {source.choice(VALUES)}"
        elif kind == "line":
            lines.insert(source.randrange(len(lines) + 1), source.choice(LINES))
        elif kind == "twice":
            lines.insert(place, lines[place])
        elif kind == "absent":
            del lines[source.randrange(len(lines))]
        elif kind == "swapped":
            other = source.choice(settings) if settings else 0
            lines[place], lines[other] = lines[other], lines[place]
        elif kind == "name":
            lines[place] = f"{name.strip()[::-1]} = {value}"
        else:
            lines[place] = lines[place] + " " + lines[(place + 1) % len(lines)]
    content = "\n".join(lines) + "\n"
    encoding = source.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "crlf"))
    notes.append(encoding)
    if encoding == "crlf":
        return ", ".join(notes), content.replace("\n", "\r\n").encode("utf-8")
    return ", ".join(notes), content.encode(encoding)
