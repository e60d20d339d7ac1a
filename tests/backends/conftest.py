"""Random pictures for the contract suite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture
def pictures() -> Callable[[int], NDArray[np.float32]]:
    """Make so many pictures [N, 5, 6, 3] with values in (0, 1], each of another colour, so that no two get nearly the same scores."""

    def make(count: int) -> NDArray[np.float32]:
        random = np.random.default_rng(count)
        return 1 - random.random((count, 1, 1, 3), np.float32) * random.random((count, 5, 6, 3), np.float32)

    return make
