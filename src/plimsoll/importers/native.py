"""The runtimes' own formats: OpenVINO IR, ncnn and MNN. They stay what they are: only their runtime runs them.

None of these runtimes has a tool that writes ONNX, so such a file has no reference to be compared with but itself.
TFLite and TensorRT engines have files of their own here.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any
from xml.parsers import expat

from plimsoll.core.model import Model
from plimsoll.errors import ModelError
from plimsoll.importers.base import Reader
from plimsoll.onnx.signature import SUFFIX
from plimsoll.spec import Spec

_COPIED = "Was it copied completely, with the files that belong to it?"
_IR_VERSIONS = ("10", "11")
_NCNN_MAGIC = "7767517"
_MAX_TEXT = 512_000_000
_MAX_LAYERS = 1_000_000


class OpenVinoIr(Reader):
    """OpenVINO IR: an .xml that describes the network, and a .bin with its weights."""

    name = "openvino"
    suffixes = (".xml",)

    def recognises(self, path: Path) -> bool:
        """Tell by the first element: there are other .xml files."""
        if path.suffix.lower() != ".xml" or not path.is_file():
            return False
        with path.open("rb") as stream:
            return b"<net" in stream.read(4096)

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check the outline and that all weights lie inside the .bin; raises ModelError."""
        weights = path.with_suffix(".bin")
        size = _size(weights) if weights.exists() or weights.is_symlink() else 0
        reach = _Reach(path)
        reach.read()
        if reach.end > size:
            raise ModelError(
                f"{path}: its weights reach to byte {reach.end:,}; {weights.name} has {size:,} bytes", _COPIED
            )
        return Model(path, self.name, spec, files=(weights,) if size else ())


class _Reach:
    """Walks an IR's .xml and notes up to where its weights reach. Entities, which can grow without end, are refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0
        self._root = ""

    def read(self) -> None:
        _size(self.path)
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._element
        parser.EntityDeclHandler = parser.StartDoctypeDeclHandler = self._refuse
        try:
            with self.path.open("rb") as stream:
                parser.ParseFile(stream)
        except expat.ExpatError as error:
            raise ModelError(f"{self.path}: can't be read as XML: {error}", _COPIED) from error

    def _element(self, name: str, attributes: dict[str, str]) -> None:
        if not self._root:
            self._root = name
            version = attributes.get("version", "none")
            if name != "net" or version not in _IR_VERSIONS:
                raise ModelError(
                    f"{self.path}: <{name} version={version}>, expected OpenVINO IR: <net version=10 or 11>",
                    "Convert it again with OpenVINO.",
                )
        if name == "data" and "offset" in attributes:
            numbers = [attributes["offset"], attributes.get("size", "")]
            if not all(number.isdecimal() and len(number) < 16 for number in numbers):
                raise ModelError(
                    f"{self.path}: weights at offset {numbers[0][:20]!r} of size {numbers[1][:20]!r}", _COPIED
                )
            self.end = max(self.end, sum(map(int, numbers)))

    def _refuse(self, *declared: Any) -> None:
        raise ModelError(
            f"{self.path}: it declares '{declared[0]}'; OpenVINO IR has no document type and no entities",
            "Don't use this file.",
        )


class Ncnn(Reader):
    """ncnn: a .param that describes the network, and a .bin with its weights."""

    name = "ncnn"
    suffixes = (".param",)

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check the outline; raises ModelError. The weights are the .bin of the same name."""
        _size(path, _MAX_TEXT)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except ValueError as error:
            raise ModelError(
                f"{path}: not ncnn's text form: it is no UTF-8 text", "Give the .param, not the .param.bin."
            ) from error
        counts = lines[1].split() if len(lines) > 1 and lines[0].strip() == _NCNN_MAGIC else []
        if len(counts) != 2 or not all(count.isdecimal() and int(count) <= _MAX_LAYERS for count in counts):
            raise ModelError(
                f"{path}: not an ncnn network: expected {_NCNN_MAGIC} and the numbers of layers and blobs in its first"
                " lines",
                _COPIED,
            )
        layers = [line.split() for line in lines[2:] if line.strip()]
        if len(layers) != int(counts[0]) or any(len(words) < 4 for words in layers):
            raise ModelError(f"{path}: its second line says {counts[0]} layers, {len(layers)} are there", _COPIED)
        weights = path.with_suffix(".bin")
        _size(weights)
        return Model(path, self.name, spec, files=(weights, *_signature(path)))


class Mnn(Reader):
    """MNN: one file."""

    name = "mnn"
    suffixes = (".mnn",)

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check that the file begins as a flatbuffer does; raises ModelError. Its insides only MNN can check."""
        size = _size(path)
        with path.open("rb") as stream:
            root = int.from_bytes(stream.read(4), "little")
            stream.seek(min(root, size))
            table = int.from_bytes(stream.read(4), "little", signed=True)
        if not 4 <= root <= size - 4 or not 0 <= root - table <= size - 4:
            raise ModelError(f"{path}: not an MNN file: it doesn't begin as a flatbuffer", _COPIED)
        return Model(path, self.name, spec, files=_signature(path))


def _signature(path: Path) -> tuple[Path, ...]:
    """Return the file that says what the network takes and gives, which Plimsoll writes beside what it converts."""
    beside = path.with_name(path.name + SUFFIX)
    return (beside,) if beside.is_file() else ()


def _size(path: Path, most: int | None = None) -> int:
    """Return a file's size; raises ModelError where it is missing, empty, a link or no file."""
    try:
        status = path.lstat()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}", _COPIED) from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path}: a link, or no regular file", "Copy the file itself.")
    if not status.st_size or (most is not None and status.st_size > most):
        raise ModelError(
            f"{path}: {status.st_size:,} bytes{f'; at most {most:,} are read' if status.st_size else ''}", _COPIED
        )
    return status.st_size


IMPORTER = (OpenVinoIr(), Ncnn(), Mnn())
