"""Read the anchors that lie beside a Spec, so that the Spec holds them itself and travels in one piece: into bundles,
jobs and web packages."""

from __future__ import annotations

import re
from pathlib import Path

from plimsoll.errors import SpecError
from plimsoll.spec import Spec
from plimsoll.spec.output import MAX_ANCHORS, Anchor, Detect
from plimsoll.system import files

MAX_BYTES = 8_000_000

_HEADER = re.compile(r"\{'descr': '(<f[48])', 'fortran_order': False, 'shape': \(([0-9]{1,9}), 4\), \} *\n")
_HINT = (
    "It holds [N, 4]: centre y, centre x, height, width; as .npy (float32 or float64) or as text, four numbers a line."
)


def with_anchors(spec: Spec, folder: Path) -> Spec:
    """Return the Spec with its `anchors_file` read from its folder or below; raises SpecError. A Spec that names none
    is returned as it is."""
    output = spec.output
    if not isinstance(output, Detect) or output.anchors_file is None:
        return spec
    anchors = read(folder, output.anchors_file)
    return spec.model_copy(update={"output": output.model_copy(update={"anchors": anchors, "anchors_file": None})})


def read(folder: Path, name: str) -> tuple[Anchor, ...]:
    """Return the anchors in a file of the folder or below; raises SpecError for a path that leads out of it, and for
    every other content."""
    where = f"output.anchors_file '{name}'"
    try:
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise SpecError(f"{where}: it leads out of the Spec's folder", "Put the file beside the Spec.")
        if not file.is_file():
            raise SpecError(f"{where}: there is no such file beside the Spec", _HINT)
        data = files.read_bytes(file, MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"{where}: can't read it: {reason}", "The path is relative to the Spec's file.") from error
    anchors = _from_npy(data, where) if data.startswith(b"\x93NUMPY") else _from_text(data, where)
    if not 1 <= len(anchors) <= MAX_ANCHORS:
        raise SpecError(f"{where}: {len(anchors):,} anchors; expected are 1 to {MAX_ANCHORS:,}", _HINT)
    if not all(abs(value) < float("inf") for anchor in anchors for value in anchor):
        raise SpecError(f"{where}: some of its values are NaN or infinite", _HINT)
    return anchors


def _from_npy(data: bytes, where: str) -> tuple[Anchor, ...]:
    """Read what `numpy.save` writes; its header is matched letter by letter, since NumPy would read it as Python."""
    import numpy as np

    wide = 2 if data[6:7] == b"\x01" else 4
    start = 8 + wide + int.from_bytes(data[8 : 8 + wide], "little")
    match = _HEADER.fullmatch(data[8 + wide : start].decode("latin-1"))
    if match is None:
        raise SpecError(f"{where}: not a plain array of [N, 4]", _HINT)
    dtype, count = np.dtype(match[1]), int(match[2])
    if len(data) - start != count * 4 * dtype.itemsize:
        raise SpecError(
            f"{where}: its header says {count:,} anchors, it has {len(data) - start:,} bytes of them", _HINT
        )
    # The shortest decimals that read back as the same float32 keep the Spec's text short.
    values = [float(str(value)) for value in np.frombuffer(data, dtype, offset=start)]
    return tuple(zip(*[iter(values)] * 4, strict=True))


def _from_text(data: bytes, where: str) -> tuple[Anchor, ...]:
    anchors: list[Anchor] = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        text = line.partition("#")[0].replace(",", " ").split()
        if not text:
            continue
        try:
            y, x, height, width = map(float, text)
        except ValueError as error:
            raise SpecError(f"{where}, line {number}: found {line[:60]!r}, expected four numbers", _HINT) from error
        anchors.append((y, x, height, width))
    return tuple(anchors)
