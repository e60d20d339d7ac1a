"""PyTriton: Triton's server with 4 instances of a Python function, a photo as a BYTES tensor in the binary extension.

python -m peers.pytriton_app
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from peers.steps import open_session, score
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def instance() -> Any:
    """Return a function with a session of its own."""
    session = open_session()

    @batch
    def infer(image: Any) -> list[Any]:
        return [np.array([[score(session, bytes(photo[0]))] for photo in image])]

    return infer


if __name__ == "__main__":
    port = int(os.environ["PORT"])
    config = TritonConfig(
        http_address="127.0.0.1", http_port=port, allow_grpc=False, allow_metrics=False, log_verbose=0
    )
    with Triton(config=config) as triton:
        inputs, outputs = (
            [Tensor(name="image", dtype=bytes, shape=(1,))],
            [Tensor(name="score", dtype=np.float64, shape=(1,))],
        )
        triton.bind("open_nsfw", [instance() for _ in range(4)], inputs, outputs, config=ModelConfig(max_batch_size=8))
        triton.serve()
