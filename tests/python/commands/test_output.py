"""Where output cannot go: a folder that cannot be one, and printed text that does not arrive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.broken_runs import arguments, finish, rounds_in
from tests.helpers.tiny import MPI_ENVIRONMENT, ONE_STEP, comigs, data_set, executable


def loop(folder: Path) -> Path:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    return folder / "a"


def dangling(folder: Path) -> Path:
    (folder / "link").symlink_to("nowhere")
    return folder / "link"


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("precious")
    return folder / "file/run"


def a_file(folder: Path) -> Path:
    return below_a_file(folder).parent


IMPOSSIBLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "links in a circle": (loop, "Too many levels of symbolic links, expected"),
    "a link to nothing": (dangling, "is a link to nothing"),
    "below a link to nothing": (lambda folder: dangling(folder) / "run", "is a link to nothing"),
    "a name that is too long": (lambda folder: folder / ("x" * 300), "File name too long"),
    "below /proc": (lambda _: "/proc/self/x", "No such file or directory"),
    "a file": (a_file, "is a file"),
    "below a file": (below_a_file, "is a file"),
    "no name": (lambda _: "", "--output is required"),
    "a line end": (lambda folder: f"{folder}/run\n", "control characters"),
}


@pytest.mark.parametrize("place", IMPOSSIBLE)
@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_an_output_that_cannot_be_is_bad_input(command, place, tiny_base, tiny_data, tmp_path):
    make, words = IMPOSSIBLE[place]
    output = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    options = ["--steps", 1] if command == "pretrain" else ["--model", tiny_base, *ONE_STEP]
    done = comigs(command, "--data", tiny_data, *options, "--output", output, ranks=4)
    assert done.code == 2, done.output + done.errors
    # One message, a line or one list, beside the note that ranks outnumber cores.
    told = [
        line
        for line in done.errors.splitlines()
        if line.startswith("comigs") and "share the cores" not in line
    ]
    assert len(told) == 1 and "output" in done.errors and words in done.errors, done.errors
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk needs root")
def test_a_folder_that_others_do_not_let_be_written_is_bad_input(tiny_base, tiny_data, tmp_path):
    mount = f'mount -t tmpfs -o ro none {tmp_path} && exec "$@"'
    command = [
        "mpirun",
        "-n",
        "4",
        executable(),
        "train",
        "--data",
        tiny_data,
        "--model",
        tiny_base,
        *ONE_STEP,
    ]
    for output in (tmp_path, tmp_path / "run"):
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mount, "sh", *map(str, command), "--output", str(output)],
            env=os.environ | MPI_ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert f"--output {output}: Read-only file system, expected a folder" in done.stderr


def test_a_folder_made_for_a_run_that_is_refused_goes_again(tiny_base, tiny_data, tmp_path):
    (tmp_path / "base").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "base" / name).write_bytes((tiny_base / name).read_bytes())
    (tmp_path / "base/model.safetensors").write_bytes(b"no weights at all")
    given = ("--data", tiny_data, "--model", tmp_path / "base", *ONE_STEP, "--output", tmp_path / "new/run")
    finish(arguments(*given), code=2)
    assert not (tmp_path / "new").exists()


def lost(stdout: str, *words: object) -> subprocess.CompletedProcess[str]:
    line = " ".join(f"'{word}'" for word in (executable(), *words))
    command = ["bash", "-c", f"{line} {stdout}"]
    environment = os.environ | MPI_ENVIRONMENT
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)


FULL, CLOSED = ">/dev/full", ">&-"
PRINTING = {
    "help": ["--help"],
    "version": ["--version"],
    "methods": ["methods"],
    "help of train": ["train", "--help"],
    "help of plan": ["plan", "--help"],
    "help of pretrain": ["pretrain", "--help"],
    "help of prune": ["prune", "--help"],
    "help of route": ["route", "--help"],
    "help of evaluate": ["evaluate", "--help"],
    "help of generate": ["generate", "--help"],
    "help of inspect": ["inspect", "--help"],
}


@pytest.mark.parametrize(
    ("stdout", "reason"), [(FULL, "No space left on device"), (CLOSED, "Bad file descriptor")]
)
@pytest.mark.parametrize("command", PRINTING)
def test_what_is_printed_and_lost_is_told(command, stdout, reason):
    done = lost(stdout, *PRINTING[command])
    assert done.returncode == 1
    assert done.stderr == f"comigs: what was printed has not arrived: standard output: {reason}\n"


def test_a_plan_that_is_lost_is_told(tiny_base, tiny_data, tmp_path):
    given = ("plan", "--data", tiny_data, "--model", tiny_base, *ONE_STEP, "--device", "cpu")
    done = lost(FULL, *given, "--output", tmp_path / "run", "--json")
    assert done.returncode == 1 and "No space left on device" in done.stderr


def test_a_reader_that_has_seen_enough_ends_it_quietly():
    done = lost("| head -n 1 >/dev/null; exit ${PIPESTATUS[0]}", "methods")
    assert done.returncode in (0, 128 + 13) and done.stderr == ""


@pytest.mark.parametrize("stdout", [FULL, CLOSED, "| true; exit ${PIPESTATUS[0]}"])
def test_a_run_whose_output_is_lost_keeps_its_results(stdout, tiny_base, tmp_path):
    data = data_set(tmp_path / "data", users=("Alone",))
    given = ("--data", data, "--model", tiny_base, *ONE_STEP, "--output", tmp_path / "run")
    done = lost(stdout, *arguments(*given))
    assert done.returncode == 1, done.stderr
    assert "what was printed has not arrived" in done.stderr
    assert rounds_in(tmp_path / "run/results.h5") == 1


def test_errors_that_nobody_reads_change_no_code(tmp_path):
    assert lost("2>/dev/full", "train", "--data", tmp_path / "absent").returncode == 2
    assert lost(">/dev/null 2>&-", "methods").returncode == 0


REMARKS = """
import sys
from console import terminal

def main(words):
    for number in range(3):
        print("remark", number, file=sys.stderr)
    print("made")
    return 0

terminal.run(main)
"""


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", "2> >(true)"])
def test_what_a_python_program_remarks_and_nobody_reads_does_not_stop_it(stderr):
    """Nor does it come to where the results go."""
    line = f'exec {stderr}; sleep 0.2; exec "$@"'
    words = ["bash", "-c", line, "bash", sys.executable, "-c", REMARKS]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "made\n")
