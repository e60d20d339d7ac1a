"""The classification extension: an output's highest values, each with its place and its label.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_classification.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def best(value: NDArray[Any], count: int, labels: Sequence[str]) -> NDArray[np.object_]:
    """Return `[N, min(count, C)]` of `bytes` `value:index:label` for an output `[N, C]` (further axes are laid flat
    into C), best first.

    Labels stand there where there are C of them. NaN comes last; of equal values the first comes first.
    """
    rows = value.reshape(len(value), -1)
    named = len(labels) == rows.shape[1]
    kept = min(count, rows.shape[1])
    ranked = np.empty((len(rows), kept), dtype=object)
    for row, scores in enumerate(rows):
        for place, index in enumerate(np.argsort(-scores.astype(np.float64), kind="stable")[:kept]):
            ranked[row, place] = f"{float(scores[index]):f}:{index}{':' + labels[index] if named else ''}".encode()
    return ranked
