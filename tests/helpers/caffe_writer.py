"""Write Caffe pairs: the text of a network, and a `.caffemodel` by protobuf's wire format, with no code of Plimsoll."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Blobs = Mapping[str, Sequence[NDArray[Any]]]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def delimited(number: int, data: bytes) -> bytes:
    """A field with a length."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def blob(values: NDArray[Any], *, legacy: bool = False) -> bytes:
    data = delimited(5, np.ascontiguousarray(values, "<f4").tobytes())
    if legacy:
        sizes = [1] * (4 - values.ndim) + list(values.shape)
        return b"".join(varint(index << 3) + varint(size) for index, size in enumerate(sizes, 1)) + data
    return delimited(7, delimited(1, b"".join(map(varint, values.shape)))) + data


def caffemodel(blobs: Blobs, *, legacy: bool = False) -> bytes:
    """NetParameter with a name and a layer for each entry; `legacy`: in the form of before 2015."""
    layer, name, index = (2, 4, 6) if legacy else (100, 1, 7)
    out = delimited(1, b"a network")
    for title, values in blobs.items():
        inside = delimited(name, title.encode()) + b"".join(
            delimited(index, blob(value, legacy=legacy)) for value in values
        )
        # Fields that readers have to step over: a phase, a loss weight (fixed 32 bits).
        out += delimited(layer, inside + varint(10 << 3) + varint(1) + varint(5 << 3 | 5) + struct.pack("<f", 1.0))
    return out


def write_pair(folder: Path, text: str, blobs: Blobs, *, legacy: bool = False) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    prototxt, weights = folder / "deploy.prototxt", folder / "net.caffemodel"
    prototxt.write_text(text)
    weights.write_bytes(caffemodel(blobs, legacy=legacy))
    return prototxt, weights


def layer(name: str, kind: str, bottoms: str, tops: str, settings: str = "") -> str:
    """The text of a layer; several bottoms or tops stand with spaces between."""
    reads = " ".join(f'bottom: "{blob_name}"' for blob_name in bottoms.split())
    writes = " ".join(f'top: "{blob_name}"' for blob_name in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}" {reads} {writes} {settings} }}\n'


def inputs(*shape: int, name: str = "data") -> str:
    return (
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{'
        f" {' '.join(f'dim: {size}' for size in shape)} }} }} }}\n"
    )
