"""Random pictures for the contract suite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture
def pictures() -> Callable[[int], NDArray[np.float32]]:
    """Make so many pictures [N, 5, 6, 3] with values in [0, 1)."""
    return lambda count: np.random.default_rng(count).random((count, 5, 6, 3), np.float32)
