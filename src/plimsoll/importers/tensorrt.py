"""TensorRT engines: `.engine` and `.plan`."""

from __future__ import annotations

from pathlib import Path

from plimsoll.core.model import Model
from plimsoll.errors import ModelError
from plimsoll.importers.base import Reader
from plimsoll.spec import Spec


class TensorRtEngine(Reader):
    """TensorRT engine.

    What is in it only TensorRT can read, and only on the GPU it was built for. It is code for the GPU: load only what
    you trust.
    """

    name = "tensorrt"
    suffixes = (".engine", ".plan")

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Return the Model, with the JSON beside it that says what it was built for, where there is one; raises
        ModelError."""
        if not path.is_file() or not path.stat().st_size:
            raise ModelError(
                f"{path}: this is no engine: {'the file is empty' if path.is_file() else 'there is no such file'}",
                "Build it again.",
            )
        facts = path.with_name(f"{path.name}.json")
        return Model(path, self.name, spec, files=(facts,) if facts.is_file() else ())


IMPORTER = TensorRtEngine()
