"""A Caffe layer to convert: its inputs, settings and weights, and the graph that it is written to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError
from plimsoll.importers.caffe.files import Blob, LayerSettings, Settings
from plimsoll.onnx.writer import GraphWriter, Size

MAX_ELEMENTS = 2**31
"""The largest value per picture: no network has more, and a hostile file would claim all memory."""

ANY = -1
"""The batch axis: always the first."""

_HARMLESS = ("engine", "weight_filler", "bias_filler", "filler", "force_nd_im2col")


@dataclass(frozen=True)
class Value:
    """One version of a blob: its name in ONNX and its shape, whose first axis is the batch (`ANY`)."""

    name: str
    shape: tuple[int, ...]

    def shown(self, graph: GraphWriter) -> tuple[Size, ...]:
        """Return the shape as the graph states it."""
        return (graph.batch, *self.shape[1:])


@dataclass
class Layer:
    """A layer, with everything needed to convert it."""

    name: str
    kind: str
    settings: LayerSettings
    bottoms: list[Value]
    tops: list[str]
    """The names that its values get in ONNX."""
    blobs: list[Blob]
    graph: GraphWriter

    @property
    def bottom(self) -> Value:
        """The layer's only input; raises ModelError if it has several."""
        if len(self.bottoms) != 1:
            self.fail(f"it reads {len(self.bottoms)} blobs, expected 1")
        return self.bottoms[0]

    def fail(self, reason: str, hint: str = "Correct the .prototxt, or replace the layer.") -> NoReturn:
        """Raise ModelError for this layer."""
        raise ModelError(f"{self.graph.name}: the layer '{self.name}' ({self.kind}): {reason}", hint)

    def params(self, name: str) -> Settings:
        """Return the settings of the layer's kind, for example those in `convolution_param`."""
        message = self.settings.message(name)
        message.ignore(*_HARMLESS)
        return message

    def constant(self, what: str, values: NDArray[Any]) -> str:
        """Store values under the layer's name and `what` they are."""
        return self.graph.constant(f"{self.name}.{what}", values)

    def emit(self, operator: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        """Add an operator; the layer's own top where no other name is given."""
        return self.graph.add(operator, inputs, output or self.tops[0], **attributes)

    def inner(self, what: str) -> str:
        """Return the name of a value inside the layer."""
        return f"{self.name}.{what}"

    def weights(self, index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return a blob in the shape that the settings give it; raises ModelError if it is missing or of another
        size."""
        if index >= len(self.blobs):
            hint = "Is this the .caffemodel that belongs to the .prototxt?"
            self.fail(
                f"the .caffemodel lacks its weights: expected at least {index + 1} blobs, found {len(self.blobs)}", hint
            )
        blob = self.blobs[index]
        if blob.values.size != math.prod(shape):
            self.fail(
                f"its blob {index + 1} is {list(blob.shape)}, expected {list(shape)} by the .prototxt",
                "Is this the .caffemodel that belongs to it?",
            )
        return blob.values.reshape(shape)

    def axis(self, value: int, rank: int) -> int:
        """Return an axis counted from the front; raises ModelError if there is no such axis, or it is the batch."""
        axis = value + rank if value < 0 else value
        if not 0 < axis < rank:
            self.fail(f"axis {value} of a blob with {rank} axes; the first is the batch")
        return axis

    def value(self, name: str, shape: tuple[int, ...]) -> Value:
        """Return a value of this layer; raises ModelError for an impossible shape."""
        if any(size < 1 for size in shape[1:]) or math.prod(shape[1:]) > MAX_ELEMENTS:
            self.fail(f"its output would have the shape {['N', *shape[1:]]}", "Check the sizes in the .prototxt.")
        return Value(name, shape)
