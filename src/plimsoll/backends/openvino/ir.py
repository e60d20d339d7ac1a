"""OpenVINO IR: an .xml that describes the network, and a .bin with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.parsers import expat

from plimsoll.core.model import INCOMPLETE, Model, Reader, model_file_size
from plimsoll.errors import ModelError
from plimsoll.spec import Spec

_VERSIONS = ("10", "11")


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
        size = model_file_size(weights) if weights.exists() or weights.is_symlink() else 0
        reach = _Reach(path)
        reach.read()
        if reach.end > size:
            raise ModelError(
                f"{path}: its weights reach to byte {reach.end:,}; {weights.name} has {size:,} bytes", INCOMPLETE
            )
        return Model(path, self.name, spec, files=(weights,) if size else ())


class _Reach:
    """Walks an IR's .xml and notes up to where its weights reach. Entities, which can grow without end, are refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0
        self._root = ""

    def read(self) -> None:
        model_file_size(self.path)
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._element
        parser.EntityDeclHandler = parser.StartDoctypeDeclHandler = self._refuse
        try:
            with self.path.open("rb") as stream:
                parser.ParseFile(stream)
        except expat.ExpatError as error:
            raise ModelError(f"{self.path}: can't be read as XML: {error}", INCOMPLETE) from error

    def _element(self, name: str, attributes: dict[str, str]) -> None:
        if not self._root:
            self._root = name
            version = attributes.get("version", "none")
            if name != "net" or version not in _VERSIONS:
                raise ModelError(
                    f"{self.path}: <{name} version={version}>, expected OpenVINO IR: <net version=10 or 11>",
                    "Convert it again with OpenVINO.",
                )
        if name == "data" and "offset" in attributes:
            numbers = [attributes["offset"], attributes.get("size", "")]
            if not all(number.isdecimal() and len(number) < 16 for number in numbers):
                raise ModelError(
                    f"{self.path}: weights at offset {numbers[0][:20]!r} of size {numbers[1][:20]!r}", INCOMPLETE
                )
            self.end = max(self.end, sum(map(int, numbers)))

    def _refuse(self, *declared: Any) -> None:
        raise ModelError(
            f"{self.path}: it declares '{declared[0]}'; OpenVINO IR has no document type and no entities",
            "Don't use this file.",
        )
