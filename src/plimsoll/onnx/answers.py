"""What an ONNX network answers in ONNX Runtime, on given tensors or random ones; and which of its operators keep it
from answering the same twice."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.fit import takes_picture
from plimsoll.core.foreign import translate
from plimsoll.core.model import Model, TensorInfo, Tensors
from plimsoll.errors import BuildError, RunError
from plimsoll.onnx import graph, load
from plimsoll.onnx.signature import Signature

Array = NDArray[Any]

RANDOM_KINDS = ("noise", "positive", "pixels", "zeros")
"""What random tensors of floats may hold: -1 … 1, 0 … 1, 0 … 255, and nothing but 0."""

_RANDOM_OPERATORS = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)


class ReferenceNetwork:
    """A session of an ONNX network in ONNX Runtime."""

    concurrent = True

    def __init__(self, model: Model, changed: bytes | None = None) -> None:
        """Load the network; or `changed`, what was made of it. Raises BuildError."""
        # Q/DQ pairs as they are written, in float32.
        as_written = {"session.disable_quant_qdq": "1"}
        with translate(BuildError, f"{model.source}: ONNX Runtime can't run it"):
            session = graph.open_in_runtime(changed or str(model.path), entries=as_written)
        self.inputs = tuple(map(_info, session.get_inputs()))
        self.outputs = tuple(map(_info, session.get_outputs()))
        self._session = session

    def run(self, feeds: Mapping[str, Array]) -> Tensors:
        """Return all outputs; raises RunError."""
        names = [info.name for info in self.outputs]
        with translate(RunError, "ONNX Runtime failed"):
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))

    def close(self) -> None:
        """Release the session."""
        self._session = None


def _info(argument: Any) -> TensorInfo:
    kind = str(argument.type).removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64", "string": "object"}.get(kind, kind)
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in argument.shape)
    return TensorInfo(argument.name, shape, dtype)


def random_feeds(model: Model, signature: Signature, kind: str = "noise") -> dict[str, Array] | None:
    """Return random tensors for all inputs, for one picture; None if a size isn't known. Integers are pixel values."""
    feeds = {info.name: _random(model, info, len(signature.inputs), kind) for info in signature.inputs}
    known = {name: value for name, value in feeds.items() if value is not None}
    return known if len(known) == len(feeds) else None


def reference_answers(model: Model, feeds: Mapping[str, Array], names: Sequence[str]) -> Tensors:
    """Return some of an ONNX network's outputs in ONNX Runtime; raises BuildError or RunError."""
    answers = ReferenceNetwork(model).run(feeds)
    return {name: answers[name] for name in names}


def unrepeatable(model: Model) -> str:
    """Name the first operator by which the same picture may be answered otherwise the next time, or in another batch:
    one that draws random numbers, or that is still in training mode. Empty where there is none. Raises ModelError."""
    proto = load.parse(model.path).proto
    index = graph.Graph(proto)
    for node in load.messages(proto, "NodeProto"):
        if node.domain not in load.DEFAULT_DOMAINS:
            continue
        named = f"{node.op_type} ('{node.name or node.output[0]}')"
        if node.op_type in _RANDOM_OPERATORS:
            return f"{named} draws random numbers"
        mode = index.value(node.input[2]) if node.op_type == "Dropout" and len(node.input) > 2 else None
        training = mode is not None and bool(np.any(mode))
        if node.op_type == "BatchNormalization":
            training = bool(graph.attribute(node, "training_mode", 0))
        if training:
            return f"{named} is in training mode"
    return ""


def _random(model: Model, info: TensorInfo, inputs: int, kind: str) -> Array | None:
    form = model.require_spec().input if takes_picture(model.spec, info.name, inputs) else None
    known = (
        (1, *form.shape)
        if form is not None and len(form.shape) + 1 == len(info.shape)
        else (1, *[None] * (len(info.shape) - 1))
    )
    shape = [size if size is not None else other for size, other in zip(info.shape, known, strict=False)]
    if any(size is None for size in shape):
        return None
    sizes = [size for size in shape if size is not None]
    random = np.random.default_rng(zlib.crc32(f"{kind}{sizes}".encode()))
    if np.issubdtype(np.dtype(info.dtype), np.floating):
        low, high = {"noise": (-1, 1), "positive": (0, 1), "pixels": (0, 255), "zeros": (0, 0)}[kind]
        return random.uniform(low, high, sizes).astype(info.dtype)
    return random.integers(0, {"bool": 2, "uint8": 256}.get(info.dtype, 100), sizes).astype(info.dtype)
