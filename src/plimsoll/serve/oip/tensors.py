"""What a caller sent, as pictures or as arrays; and arrays as bytes or JSON."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from plimsoll.core.model import TensorInfo
from plimsoll.serve.oip.datatypes import DATATYPES, datatype_of, dtype_of
from plimsoll.serve.oip.request import InputTensor, bad_request, shown

Array = NDArray[Any]

MOST_AXES = 32

_LENGTH = struct.Struct("<I")
_BASE64 = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64"))
"""Decodes text in half the time that `base64` takes, and as strictly."""
_BLANKS = {ord(blank): None for blank in " \t\r\n"}


def shape_of(value: object, where: str) -> tuple[int, ...]:
    """Return a shape that a caller sent, with whole sizes of at least 0; raises RequestError."""
    if not isinstance(value, (list, tuple)) or len(value) > MOST_AXES:
        raise bad_request(f"{where}: its shape is {shown(value)}; expected a list of at most {MOST_AXES} whole numbers")
    for size in value:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise bad_request(f"{where}: its shape holds {shown(size)}; expected whole numbers, 0 or more")
    return tuple(value)


def pictures(tensor: InputTensor, most: int) -> list[bytes]:
    """Return the picture files of a BYTES tensor of any shape, 1 to `most` of them, in row-major order; raises
    RequestError.

    In JSON each is text in base64, or `{"b64": text}`.
    """
    where = f"input '{tensor.name}'"
    if tensor.datatype != "BYTES":
        raise bad_request(
            f"{where} is {shown(tensor.datatype)}; expected BYTES: files of pictures",
            "The bare network is served under `<name>.tensor`.",
        )
    count = math.prod(tensor.shape)
    if not 1 <= count <= most:
        raise bad_request(
            f"{where} has the shape {_listed(tensor.shape)}: {_short(count)} pictures; expected 1 to {most}"
        )
    if tensor.raw is not None:
        return list(_elements(tensor.raw, count, where))
    found = [_picture(value, where) for value in _flat(tensor.values or (), count)]
    if len(found) != count:
        raise bad_request(f"{where} holds {len(found)} elements; its shape {_listed(tensor.shape)} says {count}")
    return found


def array(tensor: InputTensor, fact: TensorInfo, most: int) -> Array:
    """Return the tensor for the network's input `fact`, read-only where it was sent as bytes; raises RequestError.

    Its first axis counts rows, 1 to `most`.
    """
    where = f"input '{tensor.name}'"
    dtype = dtype_of(tensor.datatype, where)
    expected = datatype_of(fact.dtype)
    if tensor.datatype != expected:
        raise bad_request(f"{where} is {tensor.datatype}; the network takes {expected}")
    _check_shape(tensor.shape, fact, most, where)
    count = math.prod(tensor.shape)
    flat = (
        _from_raw(tensor.raw, dtype, count, where)
        if tensor.raw is not None
        else _from_values(tensor.values or (), dtype, tensor.shape, where)
    )
    return flat.reshape(tensor.shape)


def to_bytes(value: Array) -> bytes:
    """Return a tensor of numbers or of `bytes` (dtype object) row-major and little-endian, as it goes behind the JSON
    or in a gRPC message."""
    if value.dtype == object:
        return b"".join(part for element in value.flat for part in (_LENGTH.pack(len(element)), element))
    return (value if value.dtype in DATATYPES else value.astype(value.dtype.newbyteorder("<"))).tobytes()


def to_values(value: Array) -> list[Any]:
    """Return a tensor's elements for JSON, flat; `bytes` as text."""
    return (
        [element.decode("utf-8", "replace") for element in value.flat]
        if value.dtype == object
        else value.ravel().tolist()
    )


def _check_shape(shape: tuple[int, ...], fact: TensorInfo, most: int, where: str) -> None:
    fits = len(shape) == len(fact.shape) and all(
        want in (None, have) for have, want in zip(shape[1:], fact.shape[1:], strict=True)
    )
    if not fits or 0 in shape:
        wanted = _listed([-1, *(-1 if size is None else size for size in fact.shape[1:])])
        raise bad_request(f"{where} has the shape {_listed(shape)}; the network takes {wanted}, where -1 is 1 or more")
    if shape and shape[0] > most:
        raise bad_request(
            f"{where} has the shape {_listed(shape)}: {_short(shape[0])} rows; at most {most} go into one request"
        )


def _elements(raw: memoryview | bytes, count: int, where: str) -> Iterator[bytes]:
    """Yield the elements of a BYTES tensor, at most `count`; raises RequestError where the lengths don't add up."""
    view = memoryview(raw)
    at = 0
    for place in range(count):
        if at + _LENGTH.size > len(view):
            raise bad_request(
                f"{where} ends after {place} elements; its shape says {count}",
                "Before each element stands its length: 4 bytes, little-endian.",
            )
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if length > len(view) - at:
            raise bad_request(
                f"{where}: element {place} is said to have {length:,} bytes, and {len(view) - at:,} follow",
                "Before each element stands its length: 4 bytes, little-endian.",
            )
        yield bytes(view[at : at + length])
        at += length
    if at != len(view):
        raise bad_request(f"{where}: {len(view) - at:,} bytes follow after its {count} elements")


def _flat(values: Sequence[object], count: int) -> list[object]:
    """Return nested lists flat, breadth first; stops once there are more than `count`."""
    level = list(values[: count + 1])
    while any(isinstance(one, list) for one in level):
        level = [inner for one in level for inner in (one[: count + 1] if isinstance(one, list) else [one])][
            : count + 1
        ]
    return level


def _picture(value: object, where: str) -> bytes:
    if isinstance(value, bytes):
        return value
    text = value.get("b64") if isinstance(value, dict) and len(value) == 1 else value
    if not isinstance(text, str):
        raise bad_request(
            f"{where} holds {shown(value)}; expected a picture's file as text in base64",
            "Or send it as bytes: the binary tensor extension.",
        )
    try:
        return _decoded(text)
    except ValueError as error:
        raise bad_request(
            f"{where} holds text that is not base64: {error}",
            "In JSON a picture's file is written in base64; or send it as bytes: the binary tensor extension.",
        ) from error


def _decoded(text: str) -> bytes:
    try:
        return _BASE64.validate_strings(text)
    except ValidationError:
        return _BASE64.validate_strings(text.translate(_BLANKS))


def _from_raw(raw: memoryview | bytes, dtype: np.dtype[Any], count: int, where: str) -> Array:
    if len(raw) != count * dtype.itemsize:
        raise bad_request(
            f"{where} has {len(raw):,} bytes; its shape and datatype say {_short(count * dtype.itemsize)}"
        )
    if dtype == np.bool_ and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise bad_request(f"{where} is BOOL and holds a byte that is neither 0 nor 1")
    return np.frombuffer(raw, dtype)


def _from_values(values: Sequence[object], dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> Array:
    try:
        found = _numbers(values, dtype)
    except (ValueError, OverflowError, RecursionError) as error:
        raise bad_request(
            f"{where}: its data is not a list of numbers, flat or nested as its shape {_listed(shape)}"
        ) from error
    count = math.prod(shape)
    if found.size != count or (found.ndim != 1 and found.shape != shape):
        held = found.shape if found.ndim != 1 else (found.size,)
        raise bad_request(
            f"{where}: its data is {_listed(held)}, its shape {_listed(shape)}",
            "Give the data flat, or nested as the shape says.",
        )
    kinds = "b" if dtype.kind == "b" else "iu" if dtype.kind in "iu" else "iuf"
    if found.dtype.kind not in kinds:
        raise bad_request(f"{where} is {datatype_of(dtype.name)}, and its data holds something else")
    return _fitted(found, dtype, where)


def _numbers(values: Sequence[object], dtype: np.dtype[Any]) -> Array:
    found = np.asarray(values)
    if (
        dtype == np.uint64 and found.dtype.kind == "f"
    ):  # NumPy before 2 reads small and very large whole numbers together as floats.
        exact = np.asarray(values, object)
        if all(type(value) is int and 0 <= value < 2**64 for value in exact.flat):
            return exact.astype(dtype)
    return found


def _fitted(found: Array, dtype: np.dtype[Any], where: str) -> Array:
    """Convert to `dtype` where every value has a place in it."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        outside = int(found.min()) < limits.min or int(found.max()) > limits.max
        converted = found.astype(dtype) if not outside else found
    else:
        with np.errstate(over="ignore"):
            converted = found.astype(dtype)
        outside = dtype.kind == "f" and bool((np.isinf(converted) & np.isfinite(found)).any())
    if outside:
        raise bad_request(f"{where}: its data holds numbers that {datatype_of(dtype.name)} can't hold")
    return converted


def _listed(shape: Sequence[int]) -> str:
    return "[" + ", ".join(map(_short, shape)) + "]"


def _short(number: int) -> str:
    """Return a number that a caller chose; a monstrous one in words."""
    return str(number) if abs(number) < 10**15 else "far too many"
