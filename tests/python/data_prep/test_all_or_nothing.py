"""Data sets are there whole or not at all; what is there is kept, known or made anew."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.data_set_reader import (
    ROOT,
    DataSet,
    data_prep,
    made,
    refused,
    write_jsonl,
)
from tests.helpers.toy_text import nothing_left, one, toy_rows

__all__ = ["one"]  # the fixture is for tests here


# All or nothing ---------------------------------------------------------------------------------------------


def test_a_failure_while_writing_leaves_nothing(one: Path, tmp_path: Path) -> None:
    """The training file is written by then; the test split turns out too small."""
    options = ["--vocabulary", 270, "--test-tokens", 50_000, "--output", tmp_path / "data"]
    message = refused("text", "--user", f"One={one}", *options)
    assert "One, test: " in message and "50,000 wanted" in message
    assert nothing_left(tmp_path)


def test_a_failed_replacement_leaves_the_old_data_set(one: Path, tmp_path: Path) -> None:
    options = ["text", "--user", f"One={one}", "--vocabulary", 270, "--output", tmp_path / "data"]
    made(*options)
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    refused(*options, "--replace", "--test-tokens", 50_000)
    assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data"]


def test_a_killed_run_leaves_no_data_set_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    """Killed as soon as its temporary folder is seen; what it left goes away with the next run."""
    big = write_jsonl(tmp_path / "big.jsonl", toy_rows(60_000, 4))
    options = ["text", "--user", f"One={big}", "--vocabulary", "270", "--output", str(tmp_path / "data")]
    process = subprocess.Popen([sys.executable, "-m", "data_prep", *options], cwd=ROOT)
    limit = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < limit and nothing_left(tmp_path):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "data").exists() and not nothing_left(tmp_path)
    write_jsonl(big, toy_rows(60, 4))
    made(*options)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data"]


def test_the_same_command_again_does_nothing(one: Path, tmp_path: Path) -> None:
    options = ["text", "--user", f"One={one}", "--vocabulary", 270, "--output", tmp_path / "data"]
    made(*options)
    manifest = tmp_path / "data/manifest.json"
    before = manifest.stat()
    assert "nothing to do" in made(*options)
    assert (manifest.stat().st_ino, manifest.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert "holds another data set" in refused(*options, "--seed", 1)
    write_jsonl(one, toy_rows(61, 1))
    assert "holds another data set" in refused(*options)
    assert "written in" in made(*options, "--replace")
    assert sum(entry["documents"] for entry in DataSet(tmp_path / "data").files.values()) == 61


def test_what_came_there_meanwhile_is_not_replaced(one: Path, tmp_path: Path) -> None:
    """Two calls with unlike options into one folder: the one that ends last leaves what the other has made."""
    big = write_jsonl(tmp_path / "big.jsonl", toy_rows(60_000, 4))
    output = tmp_path / "data"
    options = ["text", "--user", f"One={big}", "--vocabulary", "270", "--output", str(output)]
    slow = subprocess.Popen(
        [sys.executable, "-m", "data_prep", *options], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    limit = time.monotonic() + 60
    while slow.poll() is None and time.monotonic() < limit and nothing_left(tmp_path):
        time.sleep(0.002)
    assert slow.poll() is None
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    _, errors = slow.communicate(timeout=120)
    assert slow.returncode == 2 and f"--output {output}" in errors
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["data"]
    assert [path.read_text() for path in output.iterdir()] == ["mine"]


def test_leftovers_are_known_by_name_and_content(one: Path, tmp_path: Path) -> None:
    host = socket.gethostname()
    output = tmp_path / "data"
    options = ["text", "--user", f"One={one}", "--vocabulary", 270, "--output", output]
    gone = 4_194_304 + 1  # above the largest number that a process can have
    left, with_more, other = (
        tmp_path / name
        for name in (
            f".data.partial-{host}-{gone}",
            f".data.partial-{host}-{gone + 1}",
            f".data.partial-{host}-x",
        )
    )
    for folder in (left, with_more, other):
        (folder / "one").mkdir(parents=True)
        (folder / "one/train.bin").write_text("tokens")
    (with_more / "one/thesis.tex").write_text("mine")
    made(*options)
    assert (
        not left.exists() and (with_more / "one/thesis.tex").exists() and (other / "one/train.bin").exists()
    )
    # Killed between putting the old data set aside and the new one in its place: the old one comes back.
    before = (output / "manifest.json").read_bytes()
    output.rename(left.with_name(left.name + ".old"))
    assert "holds another data set" in refused(*options, "--seed", 1)
    assert (output / "manifest.json").read_bytes() == before
    made(*options, "--replace", "--seed", 1)
    assert (output / "manifest.json").read_bytes() != before
    assert not left.with_name(left.name + ".old").exists()


def test_a_manifest_of_something_else_makes_no_data_set(one: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"format": "another", "users": [], "base": null}')
    options = ["text", "--user", f"One={one}", "--vocabulary", 270, "--output", folder, "--replace"]
    assert "exists and is no data set of comigs" in refused(*options)


def test_a_damaged_data_set_is_made_anew_and_other_folders_are_left_alone(one: Path, tmp_path: Path) -> None:
    options = ["text", "--user", f"One={one}", "--vocabulary", 270, "--output", tmp_path / "data"]
    made(*options)
    file = tmp_path / "data/one/train.bin"
    file.write_bytes(file.read_bytes()[:-2])
    assert "written in" in made(*options)
    DataSet(tmp_path / "data").check_against_manifest()
    (tmp_path / "data/notes.txt").write_text("mine")
    assert "holds notes.txt, which is no part" in refused(*options, "--replace")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("mine")
    message = refused(*options[:-1], tmp_path / "home", "--replace")
    assert "exists and is no data set" in message and (tmp_path / "home/letter.txt").exists()


def test_an_output_that_cannot_be_written_is_a_failure_not_bad_input(one: Path) -> None:
    done = data_prep("text", "--user", f"One={one}", "--vocabulary", 270, "--output", "/proc/comigs/data")
    assert done.returncode == 1 and done.stderr.startswith("error: /proc/comigs")
