"""Files that a Spec names, beside it or below: anchors, the values of further inputs, an alphabet.

They are read together with the Spec, so that it contains them wherever it goes: into bundles, jobs and web packages.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from plimsoll.errors import SpecError
from plimsoll.spec.inputs import MAX_EXTRA_VALUES, Extra
from plimsoll.spec.spec import MAX_ANCHORS, MAX_SYMBOLS, Anchor, Detect, Spec, Text
from plimsoll.system import files

MAX_BYTES = 8_000_000

Numbers = tuple[float, ...]
_HEADER = re.compile(
    r"\{'descr': '(<[fi][248]|<u[248]|\|[biu]1)', 'fortran_order': False,"
    r" 'shape': \(((?:[0-9]{1,9}, ?)*(?:[0-9]{1,9})?)\), \} *\n"
)
_ANCHORS = (
    "It holds [N, 4], in the order of `anchor_format`; as .npy (float32 or float64) or as text, four numbers a line."
)
_VALUES = "It holds numbers: as .npy, or as text with any number of them a line."
_ALPHABET = "It holds one symbol a line, in UTF-8, in the order of the network's output and without the blank."


def resolved(spec: Spec, folder: Path) -> Spec:
    """Return the Spec with what its files hold, read from its folder or below; itself where it names none. Raises
    SpecError."""
    output: Any = spec.output
    changes: dict[str, Any] = {}
    if isinstance(output, Detect) and output.anchors_file is not None:
        changes = {"anchors": _read_anchors(folder, output.anchors_file), "anchors_file": None}
    elif isinstance(output, Text) and output.alphabet_file is not None:
        changes = {"alphabet": _read_alphabet(folder, output.alphabet_file), "alphabet_file": None}
    extra = tuple(_with_values(further, folder) for further in spec.input.extra)
    if changes:
        spec = spec.model_copy(update={"output": output.model_copy(update=changes)})
    if extra != spec.input.extra:
        spec = spec.model_copy(update={"input": spec.input.model_copy(update={"extra": extra})})
    return spec


def _read(folder: Path, name: str, where: str, hint: str) -> bytes:
    """Return the bytes of a file of the folder or below; raises SpecError for a path that leads out of it."""
    try:
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise SpecError(f"{where}: the path leads out of the Spec's folder", "Put the file beside the Spec.")
        if not file.is_file():
            raise SpecError(f"{where}: no such file beside the Spec", hint)
        return files.read_bytes(file, MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"{where}: can't read it: {reason}", "The path is relative to the Spec's file.") from error


def _read_anchors(folder: Path, name: str) -> tuple[Anchor, ...]:
    where = f"output.anchors_file '{name}'"
    data = _read(folder, name, where, _ANCHORS)
    if data.startswith(b"\x93NUMPY"):
        values, shape = _from_npy(data, where, _ANCHORS, "anchors")
        if len(shape) != 2 or shape[1] != 4:
            raise SpecError(f"{where}: not a plain array of [N, 4]", _ANCHORS)
    else:
        values = tuple(value for line in _from_text(data, where, _ANCHORS, 4) for value in line)
    anchors = tuple(zip(*[iter(values)] * 4, strict=True))
    if not 1 <= len(anchors) <= MAX_ANCHORS:
        raise SpecError(f"{where}: {len(anchors):,} anchors, expected 1 to {MAX_ANCHORS:,}", _ANCHORS)
    _require_finite(values, where, _ANCHORS)
    return anchors


def _with_values(further: Extra, folder: Path) -> Extra:
    if further.values_file is None:
        return further
    where = f"input.extra '{further.tensor}', values_file '{further.values_file}'"
    data = _read(folder, further.values_file, where, _VALUES)
    shape = further.shape
    if data.startswith(b"\x93NUMPY"):
        values, stored = _from_npy(data, where, _VALUES, "values")
        shape = stored if shape is None else shape
    else:
        values = tuple(value for line in _from_text(data, where, _VALUES) for value in line)
    if not 1 <= len(values) <= MAX_EXTRA_VALUES:
        raise SpecError(f"{where}: {len(values):,} values, expected 1 to {MAX_EXTRA_VALUES:,}", _VALUES)
    if shape is not None and math.prod(shape) != len(values):
        raise SpecError(f"{where}: {len(values):,} values, but shape is {list(shape)}", "Correct `shape`.")
    _require_finite(values, where, _VALUES)
    return further.model_copy(update={"values": values, "values_file": None, "shape": shape})


def _read_alphabet(folder: Path, name: str) -> tuple[str, ...]:
    where = f"output.alphabet_file '{name}'"
    try:
        text = _read(folder, name, where, _ALPHABET).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{where}: not UTF-8: {error.reason} at byte {error.start:,}", _ALPHABET) from error
    # Not `splitlines`: an alphabet may hold characters that Python takes for the end of a line.
    symbols = [line.removesuffix("\r") for line in text.split("\n")]
    while symbols and not symbols[-1]:
        symbols.pop()
    if "" in symbols:
        raise SpecError(f"{where}, line {symbols.index('') + 1}: empty, expected a symbol", _ALPHABET)
    if not 1 <= len(symbols) <= MAX_SYMBOLS:
        raise SpecError(f"{where}: {len(symbols):,} symbols, expected 1 to {MAX_SYMBOLS:,}", _ALPHABET)
    return tuple(symbols)


def _require_finite(values: Numbers, where: str, hint: str) -> None:
    if not all(abs(value) < float("inf") for value in values):
        raise SpecError(f"{where}: some of its values are NaN or infinite", hint)


def _from_npy(data: bytes, where: str, hint: str, what: str) -> tuple[Numbers, tuple[int, ...]]:
    """Read what `numpy.save` writes; its header is matched exactly, since NumPy would parse it as Python."""
    import numpy as np

    wide = 2 if data[6:7] == b"\x01" else 4
    start = 8 + wide + int.from_bytes(data[8 : 8 + wide], "little")
    match = _HEADER.fullmatch(data[8 + wide : start].decode("latin-1"))
    if match is None or (what == "anchors" and match[1] not in ("<f4", "<f8")):
        raise SpecError(
            f"{where}: not a plain array of [N, 4]" if what == "anchors" else f"{where}: not a plain array of numbers",
            hint,
        )
    dtype, shape = np.dtype(match[1]), tuple(int(size) for size in match[2].split(",") if size.strip())
    if len(data) - start != math.prod(shape) * dtype.itemsize:
        count = shape[0] if what == "anchors" and shape else math.prod(shape)
        raise SpecError(f"{where}: its header says {count:,} {what}, it has {len(data) - start:,} bytes of them", hint)
    # The shortest decimals that read back as the same float32 keep the Spec's text short.
    return tuple(float(str(value)) for value in np.frombuffer(data, dtype, offset=start) + 0), shape


def _from_text(data: bytes, where: str, hint: str, columns: int | None = None) -> list[Numbers]:
    rows: list[Numbers] = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        text = line.partition("#")[0].replace(",", " ").split()
        if not text:
            continue
        expected = "numbers" if columns is None else "four numbers"
        try:
            row = tuple(map(float, text))
        except ValueError as error:
            raise SpecError(f"{where}, line {number}: found {line[:60]!r}, expected {expected}", hint) from error
        if columns not in (None, len(row)):
            raise SpecError(f"{where}, line {number}: found {line[:60]!r}, expected {expected}", hint)
        rows.append(row)
    return rows
