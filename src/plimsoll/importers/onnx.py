"""ONNX files."""

from __future__ import annotations

from pathlib import Path

from plimsoll.core.fit import check_fit
from plimsoll.core.model import Model, Reader
from plimsoll.onnx import load
from plimsoll.spec import Spec


class Onnx(Reader):
    """ONNX."""

    name = "onnx"
    suffixes = (".onnx",)

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check the file, its external weights and whether the Spec fits, and return the Model.

        Raises ModelError for the file, SpecError if the Spec is for another network. Runs nothing in the file.
        """
        file = load.read(path)
        if spec is not None:
            check_fit(spec, *load.inputs_and_outputs(file.proto), path.name)
        return Model(path, self.name, spec, files=file.files)


IMPORTER = Onnx()
