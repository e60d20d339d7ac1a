"""Read tensorrtx's `.wts`: a line with the number of tensors, then a line each: name, count, and every float32 as hex
digits."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import ModelError

MAX_LINE = 2_000_000_000
"""Bytes of the longest tensor's line: 9 a number."""
MAX_TENSORS = 100_000
_WIDTH = 9
"""A number's 8 digits and the space behind them."""

Tensors = dict[str, NDArray[np.float32]]


def read(path: Path) -> Tensors:
    """Return the tensors, flat, by their names in the file's order; raises ModelError with the line where the file is
    damaged."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelError(f"{path}: no regular file; expected tensorrtx's .wts", "Give the .wts file itself.")
        with path.open("rb") as stream:
            first = stream.readline(100).strip()
            if not first.isdigit() or not 0 < int(first) <= MAX_TENSORS:
                raise ModelError(
                    f"{path}: not a .wts file: its first line is {_shown(first)}, expected the number of tensors", _HINT
                )
            tensors: Tensors = {}
            for number, (name, values) in enumerate(_lines(stream, path), 2):
                if name in tensors:
                    raise ModelError(f"{path}: line {number}: the tensor '{name}' stands there twice", _HINT)
                tensors[name] = values
    except OSError as error:
        raise ModelError(f"{path}: can't read the file: {error.strerror or error}", "Check the path.") from error
    if len(tensors) != int(first):
        raise ModelError(f"{path}: its first line says {int(first)} tensors, {len(tensors)} are there", _HINT)
    return tensors


_HINT = "Was it copied completely, and written by a gen_wts.py of tensorrtx?"


def _lines(stream: Iterator[bytes], path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for number, line in enumerate(stream, 2):
        words = line.split(maxsplit=2)
        if not words:
            continue
        where = f"{path}: line {number}"
        if len(line) > MAX_LINE:
            raise ModelError(f"{where}: {len(line):,} bytes; at most {MAX_LINE:,} are read", _HINT)
        if len(words) < 2 or not words[1].isdigit():
            raise ModelError(f"{where}: {_shown(line)}, expected a name, a count and that many numbers", _HINT)
        name = words[0].decode("utf-8", "replace")
        try:
            values = _floats(words[2].rstrip() if len(words) > 2 else b"")
        except ValueError as error:
            raise ModelError(
                f"{where}: the tensor '{name}' has a number that is not 1 to 8 hex digits", _HINT
            ) from error
        if int(words[1][:20]) != values.size:
            raise ModelError(
                f"{where}: the tensor '{name}' has {values.size:,} numbers, its count says {_shown(words[1])}", _HINT
            )
        yield name, values


def _floats(text: bytes) -> NDArray[np.float32]:
    """Return big-endian float32, written as hex digits between white space; raises ValueError."""
    letters = np.frombuffer(text + b" ", np.uint8)
    if letters.size % _WIDTH == 0 and (letters[_WIDTH - 1 :: _WIDTH] == ord(" ")).all():
        digits = letters.reshape(-1, _WIDTH)[
            :, :-1
        ].tobytes()  # As all writers in Python do; 50 times as fast as word by word.
    else:
        words = text.split()
        digits = b"".join(word.rjust(_WIDTH - 1, b"0") for word in words)  # C++ streams leave leading zeros out.
        if len(digits) != len(words) * (_WIDTH - 1):
            raise ValueError
    data = bytes.fromhex(digits.decode("ascii"))
    if len(data) * 2 != len(digits):  # fromhex passes over white space.
        raise ValueError
    return np.frombuffer(data, ">f4").astype(np.float32)


def _shown(data: bytes) -> str:
    return repr(data[:40].decode("utf-8", "replace"))
