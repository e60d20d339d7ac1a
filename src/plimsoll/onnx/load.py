"""ONNX files: read them without trusting them, infer shapes.

A model file can name further files that hold its weights. onnx and the runtimes open those without asking, so a hostile
file could read any file of this machine. Here they are confined to the model's own folder before anything opens them.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from plimsoll.core.fit import Shape, takes_picture
from plimsoll.core.model import Model
from plimsoll.core.wording import printable
from plimsoll.errors import ModelError, PlimsollError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

MAX_BYTES = 2**31 - 1
"""Protobuf's limit for one message."""

MAX_CALLED_NODES = 1_000_000
MAX_CALL_DEPTH = 64
"""Model-local functions may call one another: 26 that each call the next twice are 67 million nodes, which the checker
would never finish."""

MAX_INSIDE_BYTES = 1_500_000_000
"""Weights of more bytes stay in a file of their own: one protobuf message has room for 2 GB."""
DEFAULT_DOMAINS = ("", "ai.onnx")

_DAMAGED = "Is it an ONNX file, and was it copied completely? Export or download it again."
_EXTERNAL = (
    "External weights must be plain files in the model's folder or below it: save it again with onnx.save_model(...,"
    " save_as_external_data=True)."
)


@dataclass(frozen=True)
class OnnxFile:
    """A checked ONNX file."""

    path: Path
    proto: ModelProto
    """The parsed file; external weights are not loaded into it."""
    files: tuple[Path, ...]
    """The files of its external weights, sorted."""


def read(path: Path) -> OnnxFile:
    """Parse and check an ONNX file and confine its external weights; raises ModelError."""
    file = parse(path)
    check(path)
    return file


def parse(path: Path) -> OnnxFile:
    """Parse an ONNX file and confine its external weights; raises ModelError. Whether it is valid ONNX, `check`
    tells."""
    proto = _parse(path)
    with _translated(path, "can't be read as ONNX"):
        _limit_calls(path, proto)
        files = _external_files(path, proto)
    return OnnxFile(path, proto, files)


def check(path: Path, source: Path | None = None) -> None:
    """Raise ModelError, about `source` where that is given, if a parsed file is not valid ONNX."""
    from onnx import checker

    with _translated(source or path, "not a valid ONNX model"):
        checker.check_model(str(path), full_check=True)


def _parse(path: Path) -> ModelProto:
    from onnx import ModelProto

    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ModelError(f"{path}: this is {kind}, expected an ONNX file", "Give the .onnx file itself.")
        if not 0 < status.st_size <= MAX_BYTES:
            hint = "Store its weights as external data." if status.st_size else _DAMAGED
            raise ModelError(f"{path}: {status.st_size:,} bytes; an ONNX file has 1 to {MAX_BYTES:,}", hint)
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ModelError(f"{path}: can't read the file: {reason}", "Check the path.") from error
    with _translated(path, "not an ONNX file"):
        proto = ModelProto.FromString(data)
        _require_text(proto)
        return proto


@contextmanager
def _translated(path: Path, problem: str) -> Iterator[None]:
    """Turn whatever protobuf and onnx raise into a ModelError with the reason's first line."""
    try:
        yield
    except PlimsollError:
        raise
    except Exception as error:  # On hostile bytes they raise almost any built-in exception, and their own.
        raise ModelError(f"{path}: {problem}: {_first_line(error)}", _DAMAGED) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    return printable(text, 300)


def _require_text(proto: ModelProto) -> None:
    """Refuse names that are no UTF-8: protobuf returns them as bytes, which later code doesn't expect."""
    for message in messages(proto):
        for field, value in message.ListFields():
            if field.type == field.TYPE_STRING:
                for text in [value] if isinstance(value, (str, bytes)) else value:
                    if isinstance(text, bytes):
                        raise ValueError(f"{field.full_name} is not UTF-8 text: {text[:40]!r}")


def messages(root: Any, kind: str | None = None) -> Iterator[Any]:
    """Yield every protobuf message (of the type `kind`) anywhere in `root`: in graphs, attributes, subgraphs and
    functions."""
    open_: list[Any] = [root]
    while open_:
        message = open_.pop()
        if kind in (None, message.DESCRIPTOR.name):
            yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                open_.extend([value] if hasattr(value, "DESCRIPTOR") else value)


def _limit_calls(path: Path, proto: ModelProto) -> None:
    """Refuse model-local functions that call themselves, nest too deeply or stand for too many nodes."""
    functions = {(function.domain, function.name): function for function in proto.functions}
    known: dict[tuple[str, str], int] = {}

    def weigh(body: Any, depth: int) -> int:
        if depth > MAX_CALL_DEPTH:
            raise ModelError(
                f"{path}: its functions call one another more than {MAX_CALL_DEPTH} deep, or in a circle",
                "Export the model without functions.",
            )
        total = 0
        for node in messages(body, "NodeProto"):
            name = (node.domain, node.op_type)
            if name in functions and name not in known:
                known[name] = weigh(functions[name], depth + 1)
            total += 1 + known.get(name, 0)
        return total

    if functions and (total := weigh(proto.graph, 0)) > MAX_CALLED_NODES:
        raise ModelError(
            f"{path}: its functions expand to {total:,} nodes; the limit is {MAX_CALLED_NODES:,}",
            "Export the model without functions.",
        )


def _external_files(path: Path, proto: ModelProto) -> tuple[Path, ...]:
    from onnx import TensorProto

    tensors = messages(proto, "TensorProto")
    return tuple(
        sorted(
            {
                _external_file(path, tensor)
                for tensor in tensors
                if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data
            }
        )
    )


def _external_file(path: Path, tensor: TensorProto) -> Path:
    """Return the file that holds a tensor; raises ModelError if it is not a plain file in the model's folder, or too
    short."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    where = f"{path}: the weights of {tensor.name!r} are in {location!r}"
    if len(entries) != len(tensor.external_data):
        raise ModelError(f"{where}: duplicate key", _EXTERNAL)
    if reason := _unsafe_name(location):
        raise ModelError(f"{where}: {reason}", _EXTERNAL)
    file = path.parent / PurePosixPath(location)
    try:
        if reason := _unsafe_file(file, path.parent):
            raise ModelError(f"{where}: {reason}", _EXTERNAL)
        size = file.stat().st_size
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ModelError(f"{where}, which can't be read: {reason}", "Copy the weights beside the model.") from error
    numbers = [entries.get("offset", "0"), entries.get("length", "0")]
    if not all(re.fullmatch(r"[0-9]{1,19}", number) for number in numbers):
        raise ModelError(
            f"{where}: offset {numbers[0]!r} and length {numbers[1]!r}, expected whole numbers from 0", _EXTERNAL
        )
    if sum(map(int, numbers)) > size:
        raise ModelError(
            f"{where}: offset {numbers[0]} and length {numbers[1]} reach beyond its {size:,} bytes",
            "Copy the weights again, completely.",
        )
    return file


def _unsafe_name(location: str) -> str:
    """Return why a location is refused by its name alone, or nothing."""
    windows = PureWindowsPath(location)
    if not location:
        return "an empty location"
    if not location.isprintable() or "\\" in location or "*" in location:
        # ONNX Runtime reads "*/_ORT_MEM_ADDR_/*" as an address in its own memory.
        return "a location with a backslash, a star or a control character"
    if PurePosixPath(location).is_absolute() or windows.drive or windows.root:
        return "an absolute path, expected one in the model's folder"
    if ".." in windows.parts:
        return "a path out of the model's folder ('..')"
    return ""


def _unsafe_file(file: Path, folder: Path) -> str:
    """Return why a file is refused, or nothing; raises OSError if it isn't there."""
    below = [part for part in (file, *file.parents) if part != folder and part.is_relative_to(folder)]
    if any(part.is_symlink() for part in below):
        return "a symbolic link is in the way"
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_nlink > 1:
        return "a hard link"
    return "" if file.resolve().is_relative_to(folder.resolve()) else "outside the model's folder"


def inputs(graph: GraphProto) -> list[Any]:
    """Return the inputs that a caller has to feed: without those that have a stored value."""
    stored = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in stored]


@dataclass(frozen=True)
class Value:
    """An input or output of a network, as the file states it."""

    name: str
    dtype: str
    """NumPy's name, for example float32."""
    shape: Shape | None
    """A free size is its name, or None without one; the whole shape is None where even the number of axes is free."""


def inputs_and_outputs(proto: ModelProto) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """Return a network's inputs and outputs."""
    inside, outside = (
        tuple(Value(info.name, dtype_of(info), shape_of(info)) for info in infos)
        for infos in (inputs(proto.graph), proto.graph.output)
    )
    return inside, outside


def opset(proto: ModelProto) -> int:
    """Return the version of ONNX's own operators that the model uses; files without one (before 2017) have
    version 1."""
    return max((entry.version for entry in proto.opset_import if entry.domain in DEFAULT_DOMAINS), default=1)


def shape_of(value: Any) -> Shape | None:
    """Return the shape of a graph's input or output; None where even the number of axes is free, or it is no tensor."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(_size(axis) for axis in tensor.shape.dim)


def _size(axis: Any) -> int | str | None:
    # Some exporters write -1 for a free size.
    return axis.dim_value if axis.HasField("dim_value") and axis.dim_value >= 0 else axis.dim_param or None


def dtype_of(value: Any) -> str:
    """Return the dtype of a graph's input or output by NumPy's name; for what is no tensor, ONNX's name of its kind."""
    kind = value.type.WhichOneof("value")
    return dtype_name(value.type.tensor_type.elem_type) if kind == "tensor_type" else str(kind or "unknown")


def dtype_name(element_type: int) -> str:
    """Return NumPy's name of ONNX's element type, for example float32 of 1; text is `object`."""
    from onnx import helper

    return str(helper.tensor_dtype_to_np_dtype(element_type).name)


def infer_shapes(model: Model, batch: int | None = None) -> ModelProto:
    """Return the model's graph with all shapes that can be inferred, model-local functions inlined, weights as in the
    file.

    With `batch`, the free first axis of every input is set to it, and free sides of the picture to the Spec's where
    there is one. Raises ModelError.
    """
    from onnx import inliner, shape_inference

    proto = read(model.path).proto
    with _translated(model.path, "can't infer its shapes"):
        if proto.functions:
            proto = inliner.inline_local_functions(proto)
        if batch is not None:
            _fix_sizes(proto.graph, model, batch)
        try:
            return shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
        except shape_inference.InferenceError:
            # Strict stops at the first operator without a rule; the rest can still be inferred.
            return shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)


def _fix_sizes(graph: GraphProto, model: Model, batch: int) -> None:
    """Set the free axes of the inputs, and all others that carry the same name."""
    fed = inputs(graph)
    sizes: dict[str, int] = {}
    for value in fed:
        is_picture = takes_picture(model.spec, value.name, len(fed))
        sizes_given = (batch, *(model.require_spec().input.shape if is_picture else ()))
        for axis, size in zip(value.type.tensor_type.shape.dim, sizes_given, strict=False):
            if size is not None and not isinstance(_size(axis), int):
                sizes.setdefault(axis.dim_param, size)
                axis.dim_value = size
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param and axis.dim_param in sizes:
                axis.dim_value = sizes[axis.dim_param]
