"""Read the tensors of a state dict that `torch.save` wrote, without PyTorch and without running anything.

A pickle is a program for a small stack machine. Only the opcodes are known here with which dictionaries of tensors are
written, and only the two calls that build them: an ordered dictionary, and a tensor that is a view of a stored array
(`torch._utils._rebuild_tensor_v2`). Anything else is refused. Formats as in PyTorch 2.13, `torch/serialization.py`:
an archive with `data.pkl` and an array a file, or, before 1.6, five pickles in a row and the arrays behind them.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError

Tensors = dict[str, NDArray[Any]]

MAX_BYTES = 2_000_000_000
"""Of the file, and of any array in it."""
MAX_PICKLE = 64_000_000
MAX_AXES = 16
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_DAMAGED = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, NotImplementedError, RuntimeError,
    RecursionError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What a pickle that is no dictionary of tensors, or a damaged archive, leads to."""
_HINT = "Save the weights alone: torch.save(model.state_dict(), …)."


@dataclass(frozen=True)
class _Global:
    """A function or class that a pickle names."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """An array of the file."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class _StoredTensor:
    """A tensor: a view of an array."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))
        count = math.prod(self.shape)
        if count > len(array) or (count and not 0 <= self.offset <= last < len(array)):
            raise ValueError(f"a tensor of the shape {list(self.shape)} outside its {len(array):,} numbers")
        steps = [step * array.itemsize for step in self.strides]
        view = np.lib.stride_tricks.as_strided(array[self.offset :], self.shape, steps, writeable=False)
        return np.ascontiguousarray(view)


def read_tensors(path: Path) -> Tensors:
    """Return the tensors of a file by their names, in the file's order; raises ModelError for anything but a dictionary
    of tensors, and for files that are damaged."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path}: {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
        with path.open("rb") as stream:
            if zipfile.is_zipfile(stream):
                with zipfile.ZipFile(stream) as archive:
                    return _from_archive(archive)
            stream.seek(0)
            return _from_stream(io.BytesIO(stream.read()))
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror or error}", "Check the path.") from error
    except _DAMAGED as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ModelError(f"{path}: not a dictionary of tensors: {reason}", _HINT) from error


def _from_archive(archive: zipfile.ZipFile) -> Tensors:
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        raise ValueError("the archive has no data.pkl")

    def member(name: str, most: int) -> bytes:
        info = archive.getinfo(names[name])
        if info.file_size > most:
            raise ValueError(f"{name} has {info.file_size:,} bytes; at most {most:,} are read")
        return archive.read(info)

    if "byteorder" in names and member("byteorder", 100).strip() != b"little":
        raise ValueError("its byte order is not little-endian")
    views = _views(_unpickled(io.BytesIO(member("data.pkl", MAX_PICKLE))))
    arrays = {
        view.storage.key: np.frombuffer(member(f"data/{view.storage.key}", MAX_BYTES), view.storage.dtype)
        for view in {view.storage.key: view for view in views.values()}.values()
    }
    return {name: view.of(arrays[view.storage.key]) for name, view in views.items()}


def _from_stream(stream: io.BytesIO) -> Tensors:
    _unpickled(stream)  # a magic number
    _unpickled(stream)  # the format's version
    system = _unpickled(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its byte order is not little-endian")
    views = _views(_unpickled(stream))
    storages = {view.storage.key: view.storage for view in views.values()}
    arrays = {}
    for key in _unpickled(stream):
        storage = storages[key]
        (count,) = struct.unpack("<q", stream.read(8))
        data = stream.read(max(count, 0) * np.dtype(storage.dtype).itemsize)
        arrays[key] = np.frombuffer(data, storage.dtype)
        if len(arrays[key]) != count:
            raise ValueError(f"the file ends within the array {key}")
    return {name: view.of(arrays[view.storage.key]) for name, view in views.items()}


def _views(value: Any) -> dict[str, _StoredTensor]:
    """Return the tensors of a dictionary, which may lie in one of its entries (`state_dict`)."""
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict) or not value:
        raise ValueError(f"it holds a {type(value).__name__}")
    for name, view in value.items():
        if not isinstance(name, str) or not isinstance(view, _StoredTensor):
            raise ValueError(f"the entry {name!r:.60} is no tensor")
    return value


def _unpickled(stream: io.BytesIO) -> Any:
    """Return the value of one pickle; raises ValueError for what no dictionary of tensors needs."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "STOP":
            return machine.stack.pop()
        step = _STEPS.get(opcode.name)
        if step is None:
            raise ValueError(f"its pickle has the opcode {opcode.name}")
        step(machine, argument)
    raise ValueError("its pickle has no end")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def top(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise ValueError("its pickle takes more than it has")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def set_items(self, values: list[Any]) -> None:
        self.stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def build(self) -> None:
        """A dictionary's own attributes (`_metadata`) are not read."""
        self.stack.pop()

    def storage(self) -> None:
        kind, called, key, _, count, *view = self.stack.pop()
        dtype = _DTYPES.get(called.name.removeprefix("torch.")) if isinstance(called, _Global) else None
        if kind != "storage" or dtype is None or (view and view[0] is not None):
            raise ValueError(f"an array of the kind {called!r:.60}")
        self.push(_Storage(str(key), dtype, int(count)))

    def call(self) -> None:
        function, arguments = self.top(2)
        name = function.name if isinstance(function, _Global) else ""
        if name == "collections.OrderedDict" and not arguments:
            self.push({})
        elif name == "torch._utils._rebuild_tensor_v2" and isinstance(arguments[0], _Storage):
            storage, offset, shape, strides = arguments[:4]
            sizes, steps = tuple(map(int, shape)), tuple(map(int, strides))
            if not len(sizes) == len(steps) <= MAX_AXES or min((*sizes, *steps), default=0) < 0:
                raise ValueError(f"a tensor of the shape {list(sizes)} with the steps {list(steps)}")
            self.push(_StoredTensor(storage, int(offset), sizes, steps))
        else:
            raise ValueError(f"its pickle calls {name or function!r:.60}")


_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, argument: None,  # noqa: ARG005
    "FRAME": lambda machine, argument: None,  # noqa: ARG005
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.top(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.top(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.top(3))),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"),
        lambda machine, argument: machine.push(argument),
    ),
    "GLOBAL": lambda machine, argument: machine.push(_Global(str(argument).replace(" ", "."))),
    **dict.fromkeys(
        ("BINPUT", "LONG_BINPUT"), lambda machine, argument: machine.memo.update({argument: machine.stack[-1]})
    ),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, argument: machine.push(machine.memo[argument])),
    "SETITEM": lambda machine, _: machine.set_items(machine.top(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "APPEND": lambda machine, _: machine.stack[-2].append(machine.stack.pop()),
    "APPENDS": lambda machine, _: machine.stack[machine.marks[-1] - 1].extend(machine.since_mark()),
    "BINPERSID": lambda machine, _: machine.storage(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
"""What each opcode does."""
