"""What every numeric test shares."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Sum in the order of one thread, which is what peers use."""
    torch.set_num_threads(1)
