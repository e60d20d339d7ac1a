"""Write TFLite metadata from a Spec, so that MediaPipe Tasks configures itself from the file alone.

Metadata is a FlatBuffer of its own (MediaPipe's `metadata_schema.fbs`), held by the model as the buffer
TFLITE_METADATA, and a zip behind the model with the labels. MediaPipe Tasks resizes a picture itself, takes RGB, and
subtracts and divides by one number: whatever else the input steps do must be part of the network
(`plimsoll.preprocessing.folded`).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plimsoll.backends.litert import tflite_file
from plimsoll.backends.litert.tflite_file import INSTALL, TfliteFile, TfliteTensor
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError
from plimsoll.spec import Spec
from plimsoll.spec.spec import Classify
from plimsoll.spec.steps import Channels, Crop, Decode, Jpeg, Layout, Mean, Resize, Scale, Std
from plimsoll.system.flatbuffer import Field, Writer

METADATA = "TFLITE_METADATA"
LABELS = "labels.txt"
_IDENTIFIER = b"M001"
_PARSER = "1.0.0"
"""The first parser of metadata knows all that is written here."""
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES, _NORMALIZATION_OPTIONS = 2, 1, 1
"""Places in the schema's unions."""
_RGB, _AXIS_LABELS = 1, 2


@dataclass(frozen=True)
class _Normalization:
    """(value - mean) / std, on values in 0…255."""

    mean: float = 0.0
    std: float = 1.0


def export(model: Model, out: Path) -> tuple[str, ...]:
    """Write a built TFLite model to `out`, with metadata where it can express its Spec; returns notes for the user, a
    sentence each.

    MediaPipe Tasks' ImageClassifier loads a file with metadata. One without runs wherever TFLite files do, behind input
    steps of the caller's own; the note then says what stood in the way. Raises ModelError for a damaged file,
    BuildError where it can't be written.
    """
    file = tflite_file.read_file(model.path)
    try:
        normalization = _plan(model.require_spec(), file)
    except _UnsupportedError as reason:
        out.write_bytes(model.path.read_bytes())
        return (f"It has no metadata for MediaPipe Tasks: {reason}.",)
    spec = model.require_spec()
    assert isinstance(spec.output, Classify)  # noqa: S101 - as _plan has found
    with translate(BuildError, f"{out}: can't be written"):
        described = _describe(spec, file, normalization)
        out.write_bytes(_attach(model.path, described) + _zip({LABELS: "\n".join(spec.output.labels).encode()}))
    resized = any(isinstance(step, (Resize, Crop, Jpeg)) for step in spec.input.steps)
    return (
        (
            (
                "MediaPipe Tasks resizes pictures in its own way, and skips every other step on pixels: hand it"
                " pictures that are prepared."
            ),
        )
        if resized
        else ()
    )


class _UnsupportedError(Exception):
    """The metadata of MediaPipe Tasks can't express it."""


def _plan(spec: Spec, file: TfliteFile) -> _Normalization:
    """Return how MediaPipe has to prepare pixels; raises _UnsupportedError with the first thing that it can't do."""
    _check_output(spec, file)
    normalization = _normalization(spec)
    (taken,) = file.inputs if len(file.inputs) == 1 else (None,)
    if taken is None:
        raise _UnsupportedError(f"the network has {len(file.inputs)} inputs, not one picture")
    if len(taken.shape) != 4 or taken.shape[0] != 1 or taken.shape[3] != 3 or None in taken.shape:
        raise _UnsupportedError(
            f"the network takes {taken.dtype} {list(taken.shape)}, not one RGB picture [1, height, width, 3]"
        )
    if taken.dtype not in {"uint8", "float32"}:
        raise _UnsupportedError(f"it takes {taken.dtype}, MediaPipe Tasks gives uint8 or float32")
    if taken.dtype == "uint8" and not _is_bytes(taken, normalization):
        raise _UnsupportedError("the network takes bytes, but the Spec's input steps change their values")
    return normalization


def _check_output(spec: Spec, file: TfliteFile) -> None:
    output = spec.output
    if not isinstance(output, Classify):
        raise _UnsupportedError(f"it is written for classifiers, this network's task is '{output.task}'")
    if output.activation != "none":
        raise _UnsupportedError(
            f"the scores need a {output.activation} after the network, which MediaPipe Tasks doesn't compute"
        )
    shapes = [tensor.shape for tensor in file.outputs]
    if len(shapes) != 1 or None in shapes[0] or np.prod([size or 0 for size in shapes[0]]) != len(output.labels):
        raise _UnsupportedError(
            f"the network gives {[list(shape) for shape in shapes]}, not one score for each of {len(output.labels)}"
            " labels"
        )


def _normalization(spec: Spec) -> _Normalization:
    """Return what the Spec's steps do to the values."""
    mean, std = 0.0, 1.0
    if spec.input.decode.colour != "RGB":
        raise _UnsupportedError("MediaPipe Tasks gives RGB pictures, the network takes grey ones")
    for step in spec.input.steps:
        if isinstance(step, (Channels, Layout)) and step.order not in {"RGB", "NHWC"}:
            raise _UnsupportedError(
                f"MediaPipe Tasks gives RGB, height x width x 3, the network takes {step.order} (fold the input steps"
                " into it)"
            )
        if isinstance(step, Mean):
            mean += _same(step.step, step.values) * std
        elif isinstance(step, Std):
            std *= _same(step.step, step.values)
        elif isinstance(step, Scale):
            std *= step.divisor if step.divisor is not None else 1 / (step.factor or 1.0)
        elif isinstance(step, (Decode, Resize, Crop, Jpeg)) and (mean, std) != (0.0, 1.0):
            raise _UnsupportedError(f"'{step.step}' follows steps that change the values")
    return _Normalization(mean, std)


def _same(step: str, values: Sequence[float]) -> float:
    if len(set(values)) != 1:
        raise _UnsupportedError(
            f"the input step '{step}' has a value a channel, MediaPipe Tasks takes one for all (fold the input steps"
            " into the network)"
        )
    return values[0]


def _is_bytes(tensor: TfliteTensor, normalization: _Normalization) -> bool:
    """Whether a byte of the picture, stored as it is, stands for what the input steps make of it."""
    if not tensor.quantized:
        return normalization == _Normalization()
    return bool(
        np.isclose(tensor.scales[0] * normalization.std, 1, rtol=1e-3)
        and abs(normalization.mean - tensor.zero_points[0]) <= 0.5
    )


def _describe(spec: Spec, file: TfliteFile, normalization: _Normalization) -> bytes:
    """Return the metadata's FlatBuffer."""
    (taken,), (given,) = file.inputs, file.outputs
    writer = Writer()
    size = writer.table([("uint32", taken.shape[2] or 0), ("uint32", taken.shape[1] or 0)])
    content = writer.table([("uint8", _IMAGE_PROPERTIES), ("offset", writer.table([("int8", _RGB), ("offset", size)]))])
    options = writer.table(
        [("offset", writer.floats([normalization.mean])), ("offset", writer.floats([normalization.std]))]
    )
    units = writer.tables([writer.table([("uint8", _NORMALIZATION_OPTIONS), ("offset", options)])])
    edges = [(bound - normalization.mean) / normalization.std for bound in (255.0, 0.0)]
    stats = writer.table([("offset", writer.floats([edge])) for edge in edges])
    fields: list[Field] = [("offset", writer.text(taken.name)), ("offset", writer.text("A picture, RGB.")), None]
    picture = writer.table([*fields, ("offset", content), ("offset", units), ("offset", stats)])
    labels = writer.table(
        [("offset", writer.text(LABELS)), ("offset", writer.text("One label a line.")), ("int8", _AXIS_LABELS)]
    )
    content = writer.table([("uint8", _FEATURE_PROPERTIES), ("offset", writer.table([]))])
    edges_of_scores = writer.table([("offset", writer.floats([edge])) for edge in (1.0, 0.0)])
    fields = [
        ("offset", writer.text(given.name)),
        ("offset", writer.text("One score a label.")),
        None,
        ("offset", content),
        None,
    ]
    scores = writer.table([*fields, ("offset", edges_of_scores), ("offset", writer.tables([labels]))])
    graph = writer.table([None, None, ("offset", writer.tables([picture])), ("offset", writer.tables([scores]))])
    names = [("offset", writer.text(spec.name)), ("offset", writer.text(spec.description)), None]
    root = [*names, ("offset", writer.tables([graph])), None, None, None, ("offset", writer.text(_PARSER))]
    return writer.finish(writer.table(root), _IDENTIFIER)


def _attach(path: Path, metadata: bytes) -> bytes:
    """Return the model's FlatBuffer with this metadata in place of what it had, all weights inside."""
    files = require("ai_edge_litert.tools.flatbuffer_utils", INSTALL)
    schema = require("ai_edge_litert.schema_py_generated", INSTALL)
    model = files.read_model(str(path))
    model.metadata = model.metadata or []
    entry = next((candidate for candidate in model.metadata if _text(candidate.name) == METADATA), None)
    if entry is None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = METADATA.encode(), len(model.buffers)
        model.metadata.append(entry)
        model.buffers.append(schema.BufferT())
    model.buffers[entry.buffer].data = metadata
    for buffer in model.buffers:
        if buffer.data is not None:  # What isn't an array would be packed byte by byte.
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    return bytes(files.convert_object_to_bytearray(model))


def _text(name: bytes | str) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def _zip(files: dict[str, bytes]) -> bytes:
    """Return a zip that is the same every time, its members stored as they are."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return data.getvalue()


__all__ = ["LABELS", "METADATA", "export"]
