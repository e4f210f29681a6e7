"""Results files from elsewhere: they lead to no other file, claim no memory, and end no process that reads them."""

from __future__ import annotations

import os
import random
import signal
import stat
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from analysis.cli import main
from analysis.read import inspection
from analysis.read.results import ResultsError, open_run
from tests.helpers.results_fixture import two_experts, write_probe, write_results
from tests.helpers.tiny import ONE_STEP, comigs, data_set


def refusal(path: Path, capsys: pytest.CaptureFixture, command: str = "report") -> str:
    """The one line that the file is refused with."""
    assert main([command, str(path), "--output", str(path.parent / "page.html")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {path}: ") and errors.count("\n") == 1
    return errors


def elsewhere(file: h5py.File, name: str, kind: str, secret: Path) -> None:
    """The array's data in another file, in one of HDF5's ways."""
    del file[name]
    if kind == "link":
        file[name] = h5py.ExternalLink(str(secret), "/secret")
    elif kind == "raw":
        file.create_dataset(name, shape=(4, 2), dtype="f8", external=[(str(secret), 0, 64)])
    else:  # of another file, itself, a view of itself
        sources = {"virtual": (str(secret), "secret"), "itself": (".", f"/{name}"), "view": (".", "/other")}
        layout = h5py.VirtualLayout(shape=(4, 2), dtype="f8")
        layout[:] = h5py.VirtualSource(*sources[kind], shape=(4, 2))
        file.create_virtual_dataset(name, layout)
        if kind == "view":
            layout = h5py.VirtualLayout(shape=(4, 2), dtype="f8")
            layout[:] = h5py.VirtualSource(".", f"/{name}", shape=(4, 2))
            file.create_virtual_dataset("other", layout)


@pytest.mark.parametrize("kind", ["link", "raw", "virtual", "itself", "view"])
def test_data_in_other_files_are_not_followed(tmp_path, capsys, kind):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["secret"] = np.ones((4, 2))
    path = write_results(tmp_path / "run")
    with h5py.File(path, "r+") as file:
        elsewhere(file, "perplexity/test", kind, secret)
    words = "is a link to another file" if kind == "link" else "are in another file"
    told = refusal(path, capsys)
    assert words in told and ("'perplexity/test'" in told or (kind == "view" and "'other'" in told))


@pytest.mark.parametrize("command", ["report", "insight"])
def test_arrays_larger_than_the_file_are_not_read(tmp_path, capsys, command):
    path = write_results(tmp_path / "run")
    with h5py.File(path, "r+") as file:
        file.create_dataset("memory/petabytes", shape=(2**47,), dtype="f8", chunks=(2**20,))
    assert f"claims {2**50} bytes of a file of" in refusal(path, capsys, command)


def test_numbers_of_tokens_are_not_lengths(tmp_path, capsys):
    path = write_results(tmp_path / "run")
    write_probe(tmp_path / "run", "one", ["a", "b"], two_experts(2, 2, 3, 0.5), ids=[1, 2**60])
    assert "'tokens/one/ids' are no numbers of tokens" in refusal(path, capsys, "insight")


@pytest.mark.parametrize("end", ["crash", "hang"])
def test_a_library_that_crashes_or_hangs_is_told_in_one_line(tmp_path, capsys, monkeypatch, end):
    """What some damaged bytes make the HDF5 library do, in the place where it would."""

    def read(dataset: h5py.Dataset, scales: set[int]) -> None:
        os.kill(os.getpid(), signal.SIGSEGV if end == "crash" else signal.SIGPROF)

    monkeypatch.setattr(inspection, "_read", read)
    path = write_results(tmp_path / "run")
    expected = "crashes on it (SIGSEGV)" if end == "crash" else "does not come to an end with it in 20 s"
    assert expected in refusal(path, capsys)


@pytest.mark.parametrize("is_busy", [True, False])
def test_the_library_is_given_up_for_computing_not_for_waiting(tmp_path, capsys, monkeypatch, is_busy):
    """A machine with much else to do lets a reader wait, which says nothing of the file."""

    def read(dataset: h5py.Dataset, scales: set[int]) -> None:
        while is_busy:
            pass
        if dataset.name == "/perplexity/test":
            time.sleep(1.5)

    monkeypatch.setattr(inspection, "_read", read)
    monkeypatch.setattr(inspection, "_seconds", lambda size: 1)
    path = write_results(tmp_path / "run")
    if is_busy:
        assert "does not come to an end with it in 1 s" in refusal(path, capsys)
    else:
        assert open_run(path).rounds.size == 4


def test_every_flipped_byte_is_read_or_refused(tmp_path, capsys):
    whole = write_results(tmp_path / "run", rounds=2).read_bytes()
    source = random.Random(0)
    for number in range(150):
        data = bytearray(whole)
        for _ in range(3):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        path = tmp_path / f"{number}.h5"
        path.write_bytes(data)
        try:
            open_run(path)
        except ResultsError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        path.unlink()


def test_nothing_is_written_that_everybody_may_write(tmp_path, tiny_base):
    """Whatever the mask that the program is started with."""
    data = data_set(tmp_path / "data", users=("German",))
    options = ["--data", data, "--model", tiny_base, "--output", tmp_path / "out", "--method", "comigs-1g1s"]
    options += [*ONE_STEP, "--precision", "bf16"]  # makes a temporary copy of the base
    before = os.umask(0)
    try:
        done = comigs("train", *options, "--device", "cpu", "--threads", 1)
        page = tmp_path / "out" / "page.html"
        assert main(["report", str(tmp_path / "out"), "--output", str(page)]) == 0
    finally:
        os.umask(before)
    assert done.code == 0, done.errors
    written = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert len(written) > 4
    assert [path.name for path in written if path.stat().st_mode & stat.S_IWOTH] == []
