"""`comigs prune --replace`: what is there goes only when all of the new base is written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.finished import refused
from tests.helpers.tiny import alone, executable

MAGNITUDE = ("--method", "magnitude", "--device", "cpu", "--threads", 1)


def words(base: Path, output: Path, pattern: str, *more: object) -> list[object]:
    return ["prune", "--model", base, "--output", output, "--pattern", pattern, *MAGNITUDE, *more]


@pytest.fixture
def there(tiny_base, tmp_path) -> Path:
    folder = tmp_path / "pruned"
    assert alone(*words(tiny_base, folder, "zeros=2,of=4")).code == 0
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_the_base_itself_is_never_written_over(there, tmp_path):
    before = content(there)
    link = tmp_path / "link"
    link.symlink_to(there)
    for output in (there, link, there / ".." / there.name):
        for more in ((), ("--replace",)):
            message = refused(*words(there, output, "zeros=3,of=4", *more))
            assert "is the base model itself" in message
    assert content(there) == before


def test_what_somebody_put_there_stays(there, tiny_base):
    (there / "LICENSE.own").write_text("mine\n")
    (there / "notes.txt").write_text("mine, too\n")
    assert alone(*words(tiny_base, there, "zeros=3,of=4", "--replace")).code == 0
    assert (there / "LICENSE.own").read_text() == "mine\n"
    assert (there / "notes.txt").read_text() == "mine, too\n"
    assert not [file for file in there.iterdir() if file.name.startswith(".")]


def test_a_link_among_its_files_is_refused_before_anything_goes(there, tiny_base, tmp_path):
    shutil.move(there / "tokenizer.json", tmp_path / "tokenizer.json")
    (there / "tokenizer.json").symlink_to(tmp_path / "tokenizer.json")
    before = content(there)
    message = refused(*words(tiny_base, there, "zeros=3,of=4", "--replace"))
    assert "tokenizer.json is a link or a folder" in message
    assert content(there) == before


def test_a_record_that_cannot_be_read_is_replaced(there, tiny_base):
    (there / "comigs-pruning.json").write_text("{")
    assert "comigs-pruning.json" in refused(*words(tiny_base, there, "zeros=2,of=4"))
    assert alone(*words(tiny_base, there, "zeros=2,of=4", "--replace")).code == 0
    done = alone(*words(tiny_base, there, "zeros=2,of=4"))
    assert done.code == 0 and "there already" in done.output


def test_without_room_for_the_new_one_the_old_one_stays(there, tiny_base):
    """Files of at most four kilobytes: the weights are larger."""
    before = content(there)
    command = [executable(), *map(str, words(tiny_base, there, "zeros=3,of=4", "--replace"))]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 4; exec "$@"', "-", *command], capture_output=True, text=True
    )
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert content(there) == before
