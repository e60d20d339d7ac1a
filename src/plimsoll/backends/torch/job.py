"""Compile a network ahead of time, in a process of its own: see `compilation`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from plimsoll.backends.torch import compilation
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model, TensorInfo
from plimsoll.errors import BuildError

_EXAMPLE_BATCH = 2
"""PyTorch takes a size of 1 that it sees for one that is always 1."""


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Write the compiled program to `payload["out"]`; raises BuildError."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = payload["scratch"]
    os.environ["TRITON_CACHE_DIR"] = str(Path(payload["scratch"]) / "triton")
    torch = require("torch", compilation.INSTALL)
    inductor = require("torch._inductor", compilation.INSTALL)
    from plimsoll.backends.torch import graph

    logging.getLogger("torch").setLevel(logging.ERROR)
    model = Model(Path(payload["network"]), "onnx", files=tuple(map(Path, payload["files"])))
    inputs, _ = compilation.interface(model)
    with translate(BuildError, "PyTorch"):
        module = graph.translated(model, getattr(torch, payload["precision"])).to(payload["where"])
        examples = tuple(_example(torch, one, payload) for one in inputs)
        batch = torch.export.Dim("batch", min=1, max=payload["max_batch"])
        free = tuple({0: batch} if one.shape[:1] == (None,) else None for one in inputs)
        with torch.no_grad():
            program = torch.export.export(module, examples, dynamic_shapes=(free,))
            settings = {"max_autotune": payload["tuned"], "cpp.dynamic_threads": True, "freezing": True}
            inductor.aoti_compile_and_package(program, package_path=payload["out"], inductor_configs=settings)
    return {}


def _example(torch: Any, info: TensorInfo, payload: dict[str, Any]) -> Any:
    """Return an input to export with; raises BuildError for a size that nothing fixes."""
    sizes = payload["sizes"] if len(payload["sizes"]) == len(info.shape) - 1 else [None] * (len(info.shape) - 1)
    inner = [given if size is None else size for size, given in zip(info.shape[1:], sizes, strict=True)]
    if None in inner:
        raise BuildError(
            f"the input '{info.name}' has free sizes besides the batch",
            "Fix them in the network, or with a resize step in the Spec.",
        )
    batch = [info.shape[0] or _EXAMPLE_BATCH] if info.shape else []
    return torch.zeros(*batch, *inner, dtype=getattr(torch, info.dtype), device=payload["where"])
