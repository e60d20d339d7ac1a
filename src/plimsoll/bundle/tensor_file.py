"""One tensor in one `.npy` file, read without trusting it.

`numpy.load` parses the header as Python and can unpickle. Here the header must be exactly what `numpy.save` writes for
an array of plain numbers, and its size that of the file, before memory is allocated.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import math
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import BundleError

MAX_HEADER_BYTES = 10_000
MAX_DIMENSIONS = 32
DTYPES = frozenset({"|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"})
"""NumPy's names of the stored dtypes: numbers and booleans, little-endian."""

_HEADER = re.compile(
    r"\{'descr': '([^']{1,8})', 'fortran_order': False, 'shape': \((|[0-9]+,|[0-9]+(?:, [0-9]+)+)\), \} *\n"
)


def dumps(tensor: NDArray[Any]) -> bytes:
    """Return the tensor as the bytes of a `.npy` file; raises BundleError for a dtype that is not stored."""
    little = tensor.astype(tensor.dtype.newbyteorder("<"), order="C", copy=False)
    if little.dtype.str not in DTYPES:
        raise BundleError(f"a tensor of {tensor.dtype} can't be stored", f"Stored are {_known()}.")
    buffer = io.BytesIO()
    np.save(buffer, little, allow_pickle=False)
    return buffer.getvalue()


def read(path: Path) -> NDArray[Any]:
    """Return the tensor in a `.npy` file, read-only; raises BundleError for everything but a plain tensor."""
    try:
        with path.open("rb") as stream:
            dtype, shape = _header(stream)
            claimed = math.prod(shape) * dtype.itemsize
            present = os.fstat(stream.fileno()).st_size - stream.tell()
            if claimed != present:
                raise BundleError(f"its header says {claimed:,} bytes of values, the file has {present:,}")
            return np.frombuffer(stream.read(claimed), dtype).reshape(shape)
    except BundleError as error:
        raise BundleError(f"{path.name}: unsupported tensor file: {error.message}", error.hint) from error
    except (OSError, ValueError, MemoryError) as error:
        raise BundleError(f"{path.name}: can't read the tensor: {error}") from error


def _header(stream: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise BundleError(f"it starts with {magic!r}, expected a .npy file of version 1.0 or 2.0")
    length = int.from_bytes(stream.read(2 if magic[6] == 1 else 4), "little")
    if length > MAX_HEADER_BYTES:
        raise BundleError(f"a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
    text = stream.read(length).decode("latin-1")
    match = _HEADER.fullmatch(text)
    if len(text) != length or match is None:
        raise BundleError(f"its header is {text[:80]!r}, expected what numpy.save writes for plain numbers")
    descr, axes = match.groups()
    if descr not in DTYPES:
        raise BundleError(f"its values are of the type {descr!r}", f"Stored are {_known()}.")
    sizes = [size for size in axes.replace(" ", "").split(",") if size]
    if len(sizes) > MAX_DIMENSIONS or any(len(size) > 19 for size in sizes):
        raise BundleError(f"its shape ({axes[:80]}) is beyond what an array can have")
    return np.dtype(descr), tuple(map(int, sizes))


def _known() -> str:
    return ", ".join(sorted(np.dtype(name).name for name in DTYPES))
