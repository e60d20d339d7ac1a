"""The protocol's datatypes and NumPy's; and how a caller's values stand in error messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plimsoll.serve.messages import Problem, RequestError

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""As they travel: little-endian. BYTES and BF16 have no dtype of NumPy's."""
DATATYPES: Mapping[np.dtype[Any], str] = {dtype: datatype for datatype, dtype in DTYPES.items()}
"""The other way round; asking a dtype for its name takes longer than all else that is done with an answer."""
_NAMES = {dtype.name: datatype for datatype, dtype in DTYPES.items()} | {"object": "BYTES", "bfloat16": "BF16"}


def bad_request(message: str, hint: str = "") -> RequestError:
    """Return the refusal (400) of what the caller could have done right."""
    return RequestError(Problem("input", message, hint, 400))


def quoted(value: object) -> str:
    """Return a caller's value for an error message: quoted, and short."""
    is_short = isinstance(value, (str, bool, int, float, type(None)))  # writing all of a list may take seconds
    text = repr(value[:80] if isinstance(value, str) else value) if is_short else f"a {type(value).__name__}"
    return text if len(text) <= 90 else f"{text[:80]} …"


def datatype_of(dtype: str) -> str:
    """Return the protocol's name of NumPy's dtype `dtype`; what the protocol doesn't know is named as it is."""
    return _NAMES.get(dtype, dtype.upper())


def dtype_of(datatype: str, where: str) -> np.dtype[Any]:
    """Return the dtype of numbers of this datatype; `where` names the tensor. Raises RequestError for BF16, BYTES and
    unknown ones."""
    dtype = DTYPES.get(datatype)
    if dtype is not None:
        return dtype
    if datatype == "BF16":
        raise bad_request(
            f"{where} is BF16, for which NumPy has no type", "Convert the network's inputs and outputs to FP32."
        )
    if datatype == "BYTES":
        raise bad_request(
            f"{where} is BYTES, and networks of text are not served", "Pictures go to the model under its own name."
        )
    raise bad_request(f"{where}: unknown datatype {quoted(datatype)}; choose from {', '.join(DTYPES)}, BYTES")


def listed(sizes: Sequence[int]) -> str:
    """Return a shape for an error message; a monstrous size in words."""
    return "[" + ", ".join(map(short, sizes)) + "]"


def short(number: int) -> str:
    """Return a number that a caller chose; a monstrous one in words."""
    return str(number) if abs(number) < 10**15 else "far too many"
