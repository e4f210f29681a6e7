"""What every test module here shares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

# The references are tiny: a second thread only makes them wait, and ranks under test want the cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A Hugging Face folder of a GPT-2 with random weights; not to be written to."""
    from tiny import gpt2_folder

    return gpt2_folder(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data-set folder of four users; not to be written to."""
    from tiny import data_set

    return data_set(tmp_path_factory.mktemp("tiny") / "data")
