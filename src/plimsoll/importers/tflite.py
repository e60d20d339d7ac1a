"""TFLite files converted to ONNX, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from plimsoll.errors import InputError
from plimsoll.importers.base import Conversion, Converter, ImportOptions, Probe
from plimsoll.system import toolchains

if TYPE_CHECKING:
    from plimsoll.backends.litert.tflite_file import TfliteFile

_TOLERANCE = 1e-4
_SPREADS = 4
"""The tolerance, as a multiple of how far TensorFlow Lite's own kernels disagree."""
_MOST = 0.02
"""The largest tolerance: the error of a misread network is 0.5 or more."""


class TfliteToOnnx(Converter):
    """TFLite files, converted to ONNX."""

    name = "TFLite file"
    suffixes = (".tflite", ".lite")

    def convert(self, path: Path, folder: Path, options: ImportOptions) -> Conversion:
        """Convert in the toolchain `tensorflow`; names and layouts (NHWC) are the file's.

        A quantized file becomes float32, inputs and outputs too, as Plimsoll presents them when LiteRT runs the file.
        The probe's answers are then TensorFlow Lite's in float32; a note says how far the quantized ones are off.
        """
        from plimsoll.backends.litert import tflite_file  # Reading any model imports every importer.

        _refuse(path, options)
        file = tflite_file.read_file(path)
        foreign = file.describe_custom()
        where = f"{path}, which calls {foreign}" if foreign else str(path)
        request = {"quantized": file.quantized}
        result = toolchains.run("tensorflow", "tflite_to_onnx", request, folder, inputs={"model": path}, where=where)
        tolerance = min(max(_TOLERANCE, _SPREADS * result["spread"]), _MOST)
        return Conversion(
            folder / "model.onnx",
            Probe.read(folder / "probe.npz", result["framework"], tolerance),
            _notes(file, result, tolerance),
        )


def _refuse(path: Path, options: ImportOptions) -> None:
    """Raise InputError for options that don't fit."""
    given = {
        "--inputs or --outputs": options.inputs or options.outputs,
        "--input-shape": options.input_shapes,
        "--batch": options.batch is not None,
        "--architecture": options.architecture,
        "--keep": options.keep is not None,
    }
    if named := [name for name, value in given.items() if value]:
        raise InputError(
            f"{path}: a TFLite file declares its own inputs and outputs, and is converted as it is",
            f"Omit {', '.join(named)}.",
        )


def _notes(file: TfliteFile, result: dict[str, Any], tolerance: float) -> tuple[str, ...]:
    notes = []
    if file.quantized:
        apart = ", ".join(f"'{name}' by up to {far:.2g}" for name, far in result["rounding"].items())
        notes.append(
            f"The file is quantized ({file.precision}); the ONNX network has float32 weights and no rounding. On random"
            f" tensors their answers differ: {apart}."
        )
    if ends := [tensor.name for tensor in (*file.inputs, *file.outputs) if tensor.quantized]:
        notes.append(f"Integers in the file, float32 in the ONNX network: {', '.join(ends)}.")
    if tolerance > _TOLERANCE:
        notes.append(
            f"TensorFlow Lite's own kernels disagree by {result['spread']:.1e} relative: float32 can't represent what"
            " this network computes more exactly."
        )
    return tuple(notes)


IMPORTER = TfliteToOnnx()
