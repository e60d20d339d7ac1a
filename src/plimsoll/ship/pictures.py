"""Pictures as the tensors that a network reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ImageError
from plimsoll.preprocessing import Preprocessor

_BATCH = 8


def batches(preprocessor: Preprocessor, pictures: Sequence[str]) -> Iterator[NDArray[Any]]:
    """Yield `[N, …]` in a plan's dtype and layout, N up to 8; a picture that can't be read is left out."""
    gathered: list[NDArray[Any]] = []
    for picture in pictures:
        try:
            gathered.append(preprocessor(Path(picture)))
        except ImageError:
            continue
        if len(gathered) == _BATCH:
            yield np.stack(gathered)
            gathered = []
    if gathered:
        yield np.stack(gathered)
