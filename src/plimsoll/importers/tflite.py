"""TFLite files: run as they are by LiteRT, or converted to ONNX in float32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from plimsoll.core.model import Model
from plimsoll.errors import BuildError, InputError, ModelError, SpecError
from plimsoll.importers import tflite_file
from plimsoll.importers.base import Conversion, Converter, ImportOptions, Probe, Reader
from plimsoll.importers.tflite_file import TfliteFile, TfliteTensor
from plimsoll.spec import Spec
from plimsoll.spec.output import Classify
from plimsoll.system import toolchains

_SUFFIXES = (".tflite", ".lite")
_TOLERANCE = 1e-4
_SPREADS = 4
"""The ONNX network may lie so many times as far off as TensorFlow Lite's kernels do among themselves."""
_MOST = 0.02
"""But never further: a network that was misread lies 0.5 or more away."""


class Tflite(Reader):
    """A TFLite file as it is."""

    name = "tflite"
    suffixes = _SUFFIXES

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check the file's outline and whether the Spec fits, and return the Model; raises ModelError or SpecError."""
        file = tflite_file.read(path)
        if spec is not None:
            _check_fit(spec, file)
        return Model(path, self.name, spec)


class TfliteToOnnx(Converter):
    """A TFLite file that becomes ONNX."""

    name = "TFLite file"
    suffixes = _SUFFIXES

    def convert(self, path: Path, folder: Path, options: ImportOptions) -> Conversion:
        """Convert in the toolchain `tensorflow`; names and layouts (NHWC) are the file's.

        A quantized file becomes float32, its ends too, as Plimsoll presents them for the file as it is. The probe's
        answers are then those of TensorFlow Lite in float32; a note says how far its integers lie off.
        """
        _refuse(path, options)
        file = tflite_file.read(path)
        try:
            told = toolchains.run(
                "tensorflow", "tflite_to_onnx", {"quantized": file.quantized}, folder, inputs={"model": path}
            )
        except (ModelError, BuildError) as error:
            foreign = file.describe_custom()
            raise type(error)(
                f"{path}{f', which calls {foreign}' if foreign else ''}: {error.message}", error.hint
            ) from error
        tolerance = min(max(_TOLERANCE, _SPREADS * told["spread"]), _MOST)
        return Conversion(
            folder / "model.onnx",
            Probe.read(folder / "probe.npz", told["framework"], tolerance),
            _notes(file, told, tolerance),
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
            f"{path}: a TFLite file says itself what it takes and gives, and is converted as it is",
            f"Leave {', '.join(named)} out.",
        )


def _notes(file: TfliteFile, told: dict[str, Any], tolerance: float) -> tuple[str, ...]:
    notes = []
    if file.quantized:
        apart = ", ".join(f"'{name}' by up to {far:.2g}" for name, far in told["rounding"].items())
        notes.append(
            f"The file is quantized ({file.precision}); the ONNX network has its weights in float32 and rounds nothing"
            f" on the way. To random tensors they answer otherwise: {apart}."
        )
    if ends := [one.name for one in (*file.inputs, *file.outputs) if one.quantized]:
        notes.append(f"Integers in the file, float32 in ONNX: {', '.join(ends)}.")
    if tolerance > _TOLERANCE:
        notes.append(
            f"TensorFlow Lite's own kernels differ among themselves by {told['spread']:.1e} relative: "
            "float32 doesn't hold what this network computes more exactly."
        )
    return tuple(notes)


def _check_fit(spec: Spec, file: TfliteFile) -> None:
    """Raise SpecError where the Spec's tensors, size, dtype or number of labels are not the file's."""
    where = f"{file.path.name} and the Spec '{spec.name}'"
    taken = _chosen(spec.input.tensor, file.inputs, where, "input")
    dtype = "float32" if taken.quantized else taken.dtype
    made = spec.input.form
    fits = len(taken.shape) == 4 and all(
        mine in (None, its) or its is None for mine, its in zip(made.shape, taken.shape[1:], strict=True)
    )
    if not fits or dtype != made.dtype:
        raise SpecError(
            f"{where}: the Spec makes {made.dtype} {_sizes(made.shape)}, the file's input '{taken.name}' takes {dtype}"
            f" {_sizes(taken.shape)}",
            "Correct the input steps of the Spec.",
        )
    if isinstance(spec.output, Classify):
        answer = _chosen(spec.output.tensor, file.outputs, where, "output")
        sizes = [size for size in answer.shape[1:] if size is not None]
        if len(sizes) == len(answer.shape) - 1 and math.prod(sizes) != len(spec.output.labels):
            raise SpecError(
                f"{where}: the Spec has {len(spec.output.labels)} labels, the file's output '{answer.name}' gives"
                f" {_sizes(answer.shape)}"
            )


def _chosen(name: str | None, tensors: tuple[TfliteTensor, ...], where: str, side: str) -> TfliteTensor:
    names = ", ".join(f"'{one.name}'" for one in tensors)
    if name is None and len(tensors) != 1:
        raise SpecError(
            f"{where}: the file has {len(tensors)} {side}s ({names}), the Spec names none",
            f"Say which one: `tensor = …` under [{side}] of the Spec.",
        )
    found = next((one for one in tensors if name in (None, one.name)), None)
    if found is None:
        raise SpecError(
            f"{where}: the Spec's {side} is '{name}', the file's {side}s are: {names}",
            f"Correct `tensor` under [{side}] of the Spec.",
        )
    return found


def _sizes(shape: tuple[Any, ...]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


IMPORTER = (Tflite(), TfliteToOnnx())
