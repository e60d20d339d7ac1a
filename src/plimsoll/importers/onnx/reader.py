"""ONNX files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from plimsoll.core.fit import check_fit
from plimsoll.core.model import Model, Reader
from plimsoll.importers.onnx.fixed_inputs import with_batch_axis, with_fixed_inputs
from plimsoll.onnx import load
from plimsoll.onnx.normal_form import normal_form
from plimsoll.spec import Spec


class Onnx(Reader):
    """ONNX."""

    name = "onnx"
    suffixes = (".onnx",)

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check the file, its external weights and whether the Spec fits, and return the Model in normal form: itself,
        or a new one with it as its parent (`plimsoll.onnx.normal_form`). Further inputs that the Spec gives become
        constants in it, and a picture without an axis for pictures gets one (`plimsoll.importers.onnx.fixed_inputs`).

        Raises ModelError for the file, SpecError if the Spec is for another network.
        """
        file = load.parse(path)
        model, proto = with_batch_axis(Model(path, self.name, spec, files=file.files), file.proto)
        ends = load.inputs_and_outputs(proto)
        if spec is not None and spec.input.extra:
            check_fit(spec, *ends, path.name)
            model, proto = with_fixed_inputs(model, proto)
        model = normal_form(model, proto, _sample_tensors)
        if spec is not None:
            check_fit(spec, *ends, path.name)
        return model

    def reread(self, model: Model) -> Model:
        """Check the file of a Model that is used as it is, and return it with its external weights; raises
        ModelError."""
        file = load.read(model.path)
        if model.spec is not None:
            check_fit(model.spec, *load.inputs_and_outputs(file.proto), model.path.name)
        return replace(model, files=file.files)


def _sample_tensors(model: Model) -> list[NDArray[Any]]:
    from plimsoll.backends.trial_inputs import sample_tensors  # A network is written in normal form only once.

    return sample_tensors(model)


IMPORTER = Onnx()
