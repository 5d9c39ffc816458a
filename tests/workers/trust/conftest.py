"""The models of docs/trust.md are those of the study; and there is one thread, as in a row process."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[3] / "studies"))


@pytest.fixture(autouse=True)
def threads():
    """As in a row process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
