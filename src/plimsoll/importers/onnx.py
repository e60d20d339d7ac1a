"""ONNX files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from plimsoll.core.model import Model, Reader
from plimsoll.errors import SpecError
from plimsoll.onnx import load
from plimsoll.onnx.load import Shape, dtype_of, shape_of
from plimsoll.spec import Spec
from plimsoll.spec.output import Classify, Detect, Landmarks, Tensors


class Onnx(Reader):
    """ONNX."""

    name = "onnx"
    suffixes = (".onnx",)

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check the file, its external weights and whether the Spec fits, and return the Model.

        Raises ModelError for the file, SpecError where the Spec is for another network. Runs nothing in the file.
        """
        file = load.read(path)
        if spec is not None:
            check_fit(spec, file)
        return Model(path, self.name, spec, files=file.files)


def check_fit(spec: Spec, file: load.OnnxFile) -> None:
    """Raise SpecError where the Spec's tensors, size, dtype or number of labels are not the network's."""
    graph = file.proto.graph
    where = f"{file.path.name} and the Spec '{spec.name}'"
    value = _chosen(spec.input.tensor, load.inputs(graph), where, "input")
    _check_input(spec, value, where)
    outputs = list(graph.output)
    output = spec.output
    if isinstance(output, (Detect, Tensors)):
        for name in output.tensors:
            _chosen(name, outputs, where, "output")
        return
    answer = _chosen(output.tensor, outputs, where, "output")
    if isinstance(output, Landmarks) and output.presence is not None:
        _chosen(output.presence, outputs, where, "output")
    if isinstance(output, Classify):
        _check_labels(output, answer, where)


def describe(dtype: str, shape: Shape | None) -> str:
    """Write a dtype and a shape as in `float32 [N, 224, 224, 3]`; `?` where a size is free and has no name."""
    return (
        f"{dtype} of any shape"
        if shape is None
        else f"{dtype} [{', '.join('?' if size is None else str(size) for size in shape)}]"
    )


def _chosen(name: str | None, values: list[Any], where: str, side: str) -> Any:
    names = ", ".join(repr(one.name) for one in values) or "none"
    if name is None and len(values) == 1:
        return values[0]
    if name is None:
        message = f"{where}: the model has {len(values)} {side}s ({names}), the Spec names none"
        raise SpecError(message, f"Say which one: `tensor = …` under [{side}] of the Spec.")
    for value in values:
        if value.name == name:
            return value
    raise SpecError(
        f"{where}: the Spec's {side} is {name!r}, the model's {side}s are: {names}",
        f"Correct `tensor` under [{side}] of the Spec.",
    )


def _check_input(spec: Spec, value: Any, where: str) -> None:
    form = spec.input.form
    made, dtype, shape = form.shape, dtype_of(value), shape_of(value)
    fits = shape is None or (
        len(shape) == 4 and all(_agree(mine, its) for mine, its in zip(made, shape[1:], strict=True))
    )
    if fits and dtype == form.dtype:
        return
    message = (
        f"{where}: the Spec makes {describe(form.dtype, made)}, the model's input {value.name!r} takes"
        f" {describe(dtype, shape)}"
    )
    raise SpecError(
        message,
        (
            _remedy(made, form.layout, shape)
            if not fits
            else f"Make the last input step a dtype step with to = '{dtype}'."
        ),
    )


def _agree(mine: int | None, its: int | str | None) -> bool:
    return mine is None or not isinstance(its, int) or mine == its


def _remedy(made: tuple[int | None, ...], layout: str, shape: Shape | None) -> str:
    """Say which step would make the Spec fit, where one would."""
    if shape is None or len(shape) != 4:
        return (
            "A Spec is for networks that take pictures: [N, height, width, channels] or [N, channels, height, width]."
        )
    other = (made[2], made[0], made[1]) if layout == "NHWC" else (made[1], made[2], made[0])
    if all(_agree(mine, its) for mine, its in zip(other, shape[1:], strict=True)):
        return f"Add a layout step with order = '{'NCHW' if layout == 'NHWC' else 'NHWC'}' to the input steps."
    return "Set the sizes of the resize and crop steps to what the model takes."


def _check_labels(output: Classify, value: Any, where: str) -> None:
    shape = shape_of(value)
    sizes = [size for size in (shape or ())[1:] if isinstance(size, int)]
    if not sizes or shape is None or len(sizes) < len(shape) - 1 or math.prod(sizes) == len(output.labels):
        return
    message = (
        f"{where}: the Spec has {len(output.labels)} labels, the model's output {value.name!r} gives"
        f" {describe(dtype_of(value), shape)}"
    )
    raise SpecError(
        message, f"Give {math.prod(sizes)} labels in the order of the model's output, or name another output."
    )


IMPORTER = Onnx()
