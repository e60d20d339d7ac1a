"""Make TFLite files: convert a float32 ONNX network and quantize the result, in the toolchain onnx2tf."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from plimsoll.backends.base import CalibrationData, calibration_missing
from plimsoll.backends.conversion import check_stage
from plimsoll.backends.litert import dialect, ranges, tflite_file
from plimsoll.backends.litert.tflite_file import INSTALL, TfliteFile
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BuildError, ModelError
from plimsoll.onnx import graph, load
from plimsoll.onnx.form import require_form
from plimsoll.onnx.signature import Signature
from plimsoll.system import toolchains

if TYPE_CHECKING:
    from onnx import ModelProto

TOOLCHAIN = "onnx2tf"
CALIBRATED = ("int8", "int16x8")

Io = Literal["float32", "integer"]
"""The type of an int8 or int16x8 file's own inputs and outputs."""

_GAPS = 32
"""How many items are enough to find the ranges that Plimsoll's calibrator doesn't know."""


def build(model: Model, target: Target, folder: Path, calibration: CalibrationData | None, io: Io) -> Model:
    """Return the TFLite file for a target, in `folder`; `model` itself where it is one already. Raises BuildError."""
    if model.format != "tflite":
        require_form(model, target, "float32")
    file = _read(model.path) if model.format == "tflite" else None
    if file is not None and file.precision == target.precision:
        return model
    if file is not None and file.precision != "float32":
        raise BuildError(
            f"{model.source}: {target} needs a float32 file, this one is {file.precision}",
            f"Run it as {target.runtime}:{target.device}:{file.precision}.",
        )
    if target.precision in CALIBRATED and calibration is None:
        raise calibration_missing(model, target)
    path = folder / f"{model.path.stem}.{target.precision}{'.integer' if io == 'integer' else ''}.tflite"
    with TemporaryDirectory(dir=folder, prefix=".building-") as work:
        source = None if file is not None else _fixed(model, Path(work))
        converted = model.path if source is None else _convert(model, source, Path(work))
        if target.precision != "float32":
            bounds = _ranges(source, _read(converted), target.precision, calibration)
            request = {"precision": target.precision, "io": io, "ranges": bounds}
            quantized = Path(work) / "quantized"
            quantized.mkdir()
            toolchains.run(
                TOOLCHAIN, "tflite_quantize", request, quantized, inputs={"model": converted}, where=str(model.source)
            )
            converted = quantized / "network.tflite"
        shutil.move(converted, path)
    return Model(path, "tflite", model.spec, parent=model)


def precision_of(model: Model) -> str:
    """Return the precision in which a TFLite file computes; raises BuildError for a damaged one."""
    return _read(model.path).precision


def _read(path: Path) -> TfliteFile:
    try:
        return tflite_file.read_file(path)
    except ModelError as error:
        raise BuildError(error.message, error.hint) from error


def _ranges(
    source: Model | None, file: TfliteFile, precision: str, calibration: CalibrationData | None
) -> dict[str, ranges.Range]:
    """Return the range of every tensor of a float32 file: as Plimsoll's calibrator has it where it knows the value, as
    observed elsewhere; none where the precision needs none."""
    if calibration is None or precision not in CALIBRATED:
        return {}
    tensors = calibration.tensors[: _GAPS * ranges.batch_of(file)] if calibration.ranges else calibration.tensors
    observed = ranges.observe(file, tensors)
    if source is None:
        return observed | {name: bounds for name, bounds in calibration.ranges.items() if name in observed}
    return observed | (ranges.transfer(source, file, tensors, calibration.ranges) if calibration.ranges else {})


def _convert(model: Model, source: Model, work: Path) -> Path:
    """Return the network as a float32 TFLite file; `source`: the same with its sizes fixed. Raises BuildError."""
    from onnx import shape_inference

    proto = graph.optimized(source, work / "optimized.onnx")
    with translate(BuildError, f"{model.source}: its shapes can't be inferred"):
        # The converter goes by written shapes: without them it knows no operator for a Gemm behind a ReduceMean.
        proto = shape_inference.infer_shapes(proto)
    plain = work / "plain.onnx"
    graph.save(proto, plain, str(model.source))
    toolchains.run(TOOLCHAIN, "tflite_from_onnx", {}, work, inputs={"model": plain}, where=str(model.source))
    converted = work / "network.tflite"
    file = _read(converted)
    if foreign := [name.removeprefix("ONNX_") for name in file.custom]:
        raise BuildError(
            f"{model.source}: LiteRT has no operator, and its converter no substitute, for {', '.join(foreign)}",
            "Export the network without such operators, or choose another runtime.",
        )
    _check_ends(model, proto, file)
    _check_answers(model, plain, converted)
    return converted


def _fixed(model: Model, work: Path) -> Model:
    """Return the network with a batch of one and all sizes fixed; raises BuildError where a size stays free."""
    from onnx import external_data_helper

    with translate(BuildError, f"{model.source}: its sizes can't be fixed"):
        proto = load.infer_shapes(model, batch=1)
        external_data_helper.load_external_data_for_model(proto, str(model.path.parent))
    for value in load.inputs(proto.graph):
        shape = load.shape_of(value)
        if shape is None or not all(isinstance(size, int) for size in shape):
            raise BuildError(
                f"{model.source}: LiteRT needs fixed sizes; the input '{value.name}' is {shape or 'of any shape'}",
                "Fix them when the network is exported, or in the input steps of its Spec.",
            )
    del proto.graph.value_info[:]
    dialect.rewrite(proto, str(model.path))
    graph.save(proto, work / "fixed.onnx", str(model.source))
    return Model(work / "fixed.onnx", "onnx", model.spec)


def _check_ends(model: Model, proto: ModelProto, file: TfliteFile) -> None:
    """Make sure that inputs and outputs kept their names, dtypes and layouts."""
    ends = [
        *zip(load.inputs(proto.graph), file.inputs, strict=True),
        *zip(proto.graph.output, file.outputs, strict=True),
    ]
    for value, tensor in ends:
        shape = load.shape_of(value) or ()
        same = len(shape) == len(tensor.shape) and all(
            its == size or not isinstance(size, int) for size, its in zip(shape, tensor.shape, strict=True)
        )
        if value.name != tensor.name or load.dtype_of(value) != tensor.dtype or not (same or not shape):
            changed = f"'{tensor.name}' {tensor.dtype} {list(tensor.shape)}"
            raise BuildError(
                f"{model.source}: the converter changed '{value.name}' {load.dtype_of(value)} {list(shape)} to"
                f" {changed}",
                _REPORT,
            )


def _check_answers(model: Model, plain: Path, converted: Path) -> None:
    """Compare what the converted network and the ONNX file that it was made from compute from the same random
    tensors."""
    litert = require("ai_edge_litert.interpreter", INSTALL)
    source = Model(plain, "onnx", model.spec, parent=model)
    signature = Signature.of(source)

    def answer(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with translate(BuildError, f"{model.source}: the converted network can't be checked"):
            # LiteRT's own kernels: what XNNPACK computes is compared later, when the whole conversion is.
            kernels = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            interpreter = litert.Interpreter(
                model_content=converted.read_bytes(), experimental_op_resolver_type=kernels
            )
            interpreter.allocate_tensors()
            for detail, info in zip(interpreter.get_input_details(), signature.inputs, strict=True):
                interpreter.set_tensor(detail["index"], feeds[info.name])
            interpreter.invoke()
            answers = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
        return {info.name: value for info, value in zip(signature.outputs, answers, strict=True)}

    check_stage(source, signature, answer, "onnx2tf")


_REPORT = (
    "This is a bug in onnx2tf; please report it with the model, if you may. Other runtimes take the network as it is."
)
