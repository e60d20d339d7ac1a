"""Compare a converted network with its ONNX original: converters mix up layouts without an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.fit import takes_picture
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model, TensorInfo
from plimsoll.errors import BuildError
from plimsoll.metrics.tensors import deviation
from plimsoll.onnx.signature import Signature

LEAST_SNR_DB = 20.0
"""A converted network below this is wrong: mixed-up layouts leave a few dB, int8 weights over 30."""

Array = NDArray[Any]
Answer = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def random_feeds(model: Model, signature: Signature) -> dict[str, Array] | None:
    """Return random tensors for all inputs, for one picture; None if a size isn't known. Integers are pixel
    values."""
    feeds = {info.name: _random(model, info, len(signature.inputs)) for info in signature.inputs}
    return (
        None
        if any(value is None for value in feeds.values())
        else {name: value for name, value in feeds.items() if value is not None}
    )


def reference_answers(model: Model, feeds: Mapping[str, Array], names: list[str]) -> dict[str, Array]:
    """Return an ONNX network's outputs in ONNX Runtime; raises BuildError."""
    runtime = require("onnxruntime", "pip install onnxruntime")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4
    with translate(BuildError, f"{model.source}: ONNX Runtime can't run it"):
        session = runtime.InferenceSession(str(model.path), settings, providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def check_answers(model: Model, signature: Signature, answer: Answer, converter: str) -> None:
    """Raise BuildError where `answer`, the converted network, gives other outputs on random tensors than the model in
    ONNX Runtime."""
    feeds = random_feeds(model, signature)
    if feeds is None:
        return
    answers = answer(feeds)
    hint = f"This is a bug in {converter}; please report it, with the model if you can. Other runtimes may do better."
    for name, reference in reference_answers(model, feeds, [info.name for info in signature.outputs]).items():
        other = answers[name]
        if other.shape != reference.shape:
            raise BuildError(
                f"{model.source}: {converter} changed the output '{name}' from {reference.shape} to {other.shape}", hint
            )
        if np.any(reference) and (snr := deviation(reference, other).snr_db) < LEAST_SNR_DB:
            raise BuildError(
                f"{model.source}: the converted network's answers differ: its output '{name}' has a signal-to-noise"
                f" ratio of {snr:.0f} dB",
                hint,
            )


def _random(model: Model, info: TensorInfo, inputs: int) -> Array | None:
    form = model.require_spec().input.tensor_spec if takes_picture(model.spec, info.name, inputs) else None
    known = (
        (1, *form.shape)
        if form is not None and len(form.shape) + 1 == len(info.shape)
        else (1, *[None] * (len(info.shape) - 1))
    )
    shape = [size if size is not None else other for size, other in zip(info.shape, known, strict=False)]
    if any(size is None for size in shape):
        return None
    sizes = [size for size in shape if size is not None]
    random = np.random.default_rng(20261122)
    if np.issubdtype(np.dtype(info.dtype), np.floating):
        return random.uniform(-1, 1, sizes).astype(info.dtype)
    return random.integers(0, 2 if info.dtype == "bool" else 100, sizes).astype(info.dtype)
