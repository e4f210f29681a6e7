"""What every test module here shares."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

# The references are tiny: a second thread only makes them wait, and ranks under test want the cores.
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "slow: more of what others cover already; `tests/run.sh --full` runs it too"
    )


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A Hugging Face folder of a GPT-2 with random weights; not to be written to."""
    from tests.helpers.tiny import gpt2_folder

    return gpt2_folder(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data-set folder of four users; not to be written to."""
    from tests.helpers.tiny import data_set

    return data_set(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def tiny_examples(tmp_path_factory) -> Path:
    """The same texts cut into examples of four categories, of which every user has some."""
    from tests.helpers.tiny import cut_into_examples, data_set

    return cut_into_examples(data_set(tmp_path_factory.mktemp("tiny") / "examples"), 13, mixed=True)


@pytest.fixture(scope="session")
def run_of(tiny_base, tiny_data, tiny_examples, tmp_path_factory) -> Callable[..., Path]:
    """run_of(method, *options): the results file of a run of four users, made once; not to be written to."""
    from tests.helpers.tiny import GATED, run_options, train

    @cache
    def made(method: str, *options: object, again: bool = False) -> Path:
        output = tmp_path_factory.mktemp(method) / "new" / "folder"
        data = tiny_examples if method in GATED else tiny_data
        given = ["--data", data, "--model", tiny_base, "--output", output, "--method", method]
        done = train(*given, *run_options(*options))
        assert "\x1b" not in done.output + done.errors  # no progress bar where nobody watches
        assert done.output.rstrip().splitlines()[-1].startswith(f"results: {output}/results.h5")
        return output / "results.h5"

    return made
