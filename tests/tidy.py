"""clang-tidy over all of src, as .clang-tidy says. Needs a configured build folder; takes a minute.

    python -m tests.tidy [BUILD]                                                     from the repository's root

Most of the time of a file goes into headers of others: what the build compiles together is read as one, a room at a time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path("src").resolve()
# What only the compiler of the build understands; its precompiled headers among it.
FOREIGN = re.compile(
    r" -Winvalid-pch| -include \S*cmake_pch\.hxx| -fpch-\S+| -fopenmp| -o \S+| -c \S+$|^\S*ccache "
)


def units(build: Path) -> Iterator[tuple[str, str, list[Path]]]:
    """Name, command without a file, and files."""
    rooms: dict[str, tuple[str, list[Path]]] = {}
    for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8")):
        file = Path(entry["file"])
        together = file.parent.name == "Unity" and file.is_relative_to(build / "src")
        if not together and not (file.suffix == ".cpp" and file.is_relative_to(SOURCES)):
            continue
        name = file.relative_to(build / "src" if together else SOURCES)
        unit = name.parts[0] if together else "-".join(name.with_suffix("").parts)
        rooms.setdefault(unit, (FOREIGN.sub("", entry["command"]), []))[1].append(file)
    for unit, (command, files) in rooms.items():
        yield unit, command, files


def write_units(build: Path, folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    commands, written = [], []
    for name, command, files in units(build):
        file = folder / f"{name}.cpp"
        file.write_text("".join(f'#include "{path}"\n' for path in sorted(files)), encoding="utf-8")
        commands.append({"directory": str(build), "file": str(file), "command": f"{command} -c {file}"})
        written.append(file)
    (folder / "compile_commands.json").write_text(json.dumps(commands), encoding="utf-8")
    return written


def tidy(file: Path) -> tuple[int, str]:
    words = [str(Path(sys.executable).parent / "clang-tidy"), "-p", str(file.parent), "--quiet", str(file)]
    words += [f"--config-file={SOURCES.parent / '.clang-tidy'}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + (done.stderr if done.returncode else "")


def main(words: list[str]) -> int:
    build = Path(words[0] if words else "build/dev").resolve()
    files = write_units(build, build / "tidy")
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = list(pool.map(tidy, files))
    for _, text in results:
        print(text, end="")
    return int(any(code for code, _ in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
