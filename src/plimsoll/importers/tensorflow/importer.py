"""TensorFlow and Keras: Keras files, SavedModels, frozen graphs and checkpoints of TensorFlow 1.

All are read in the toolchain `tensorflow`, which turns each into a frozen graph first: see its job
`tensorflow_to_onnx.py`.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from plimsoll.errors import InputError, ModelError
from plimsoll.importers.base import Conversion, Converter, ImportOptions, Probe
from plimsoll.system import toolchains

_ZIP = b"PK\x03\x04"
_HDF5 = b"\x89HDF\r\n\x1a\n"


class _TensorFlow(Converter):
    """What TensorFlow's formats have in common."""

    kind: ClassVar[str]

    @abstractmethod
    def files(self, path: Path) -> Path | list[Path]:
        """Return a model's files: a folder, or the main file and those beside it; raises ModelError."""

    def convert(self, path: Path, folder: Path, options: ImportOptions) -> Conversion:
        """Convert in the toolchain; names are the source's without `:0`, and layouts stay (mostly NHWC)."""
        if options.architecture:
            raise InputError(f"{path}: a {self.name} contains its architecture", "Omit --architecture.")
        request = {
            "kind": self.kind,
            "inputs": list(options.inputs),
            "outputs": list(options.outputs),
            "input_shapes": {name: list(shape) for name, shape in options.input_shapes.items()},
            "batch": options.batch,
            "trust": options.trust,
            "keep": options.keep is not None,
        }
        inputs = {"model": self.files(path)}
        result = toolchains.run("tensorflow", "tensorflow_to_onnx", request, folder, inputs=inputs, where=str(path))
        if options.keep is not None:
            options.keep.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / "frozen.pb", options.keep)
        return Conversion(
            folder / "model.onnx", Probe.read(folder / "probe.npz", result["framework"]), tuple(result["notes"])
        )


class Keras(_TensorFlow):
    """A whole model saved by Keras: `.keras`, or `.h5` of Keras 3 or tf.keras."""

    name = "Keras file"
    suffixes = (".keras", ".h5", ".hdf5")
    kind = "keras"

    def files(self, path: Path) -> Path | list[Path]:
        """Return the file after checking its first bytes."""
        if path.is_dir():
            raise ModelError(f"{path}: a folder, expected the file that model.save('NAME.keras') writes")
        try:
            with path.open("rb") as stream:
                begins = stream.read(8)
        except OSError as error:
            raise ModelError(f"{path}: can't be read: {error.strerror}") from error
        if not begins.startswith((_ZIP, _HDF5)):
            raise ModelError(
                f"{path}: neither a .keras nor an HDF5 file: it begins with {begins!r}", "Was it copied completely?"
            )
        return path


class SavedModel(_TensorFlow):
    """A SavedModel folder, of TensorFlow 1 or 2."""

    name = "SavedModel"
    suffixes = ()
    kind = "savedmodel"

    def recognises(self, path: Path) -> bool:
        """Tell whether it is the folder, or the `saved_model.pb` in it."""
        return (path / "saved_model.pb").is_file() or (path.name == "saved_model.pb" and path.is_file())

    def files(self, path: Path) -> Path | list[Path]:
        """Return the folder."""
        return path if path.is_dir() else path.resolve().parent


class FrozenGraph(_TensorFlow):
    """A frozen graph: a GraphDef with its weights as constants."""

    name = "frozen graph"
    suffixes = (".pb",)
    kind = "frozen"

    def recognises(self, path: Path) -> bool:
        """Tell whether it is a .pb file, other than a SavedModel's."""
        return path.suffix.lower() == ".pb" and path.is_file() and path.name != "saved_model.pb"

    def files(self, path: Path) -> Path | list[Path]:
        """Return the file."""
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        return path


class Checkpoint(_TensorFlow):
    """A checkpoint of TensorFlow 1: `NAME.meta` (the graph), `NAME.index` and `NAME.data-…` (the weights)."""

    name = "TensorFlow 1 checkpoint"
    suffixes = (".meta", ".index", ".ckpt")
    kind = "checkpoint"

    def recognises(self, path: Path) -> bool:
        """Tell whether it is one of the files, their common prefix, or a folder with one checkpoint."""
        return self._meta(path) is not None or (path.suffix == ".index" and path.is_file())

    def files(self, path: Path) -> Path | list[Path]:
        """Return the file of the graph and those of the weights."""
        meta = self._meta(path)
        if meta is None:
            raise ModelError(
                f"{path}: weights without a graph: {path.stem}.meta is missing",
                "A TensorFlow 1 checkpoint has one. Save a Keras network as a whole: model.save('NAME.keras').",
            )
        weights = sorted(
            file for file in meta.parent.glob("*") if file.name.startswith((f"{meta.stem}.index", f"{meta.stem}.data-"))
        )
        if not any(file.suffix == ".index" for file in weights) or not any(".data-" in file.name for file in weights):
            raise ModelError(
                f"{meta}: its weights ({meta.stem}.index and {meta.stem}.data-…) are not beside it", "Copy them there."
            )
        return [meta, *weights]

    def _meta(self, path: Path) -> Path | None:
        """Return the .meta file that a path means: itself, the one beside the weights, with this prefix, or the only
        one in a folder."""
        beginning = (
            path.with_suffix("") if path.suffix in {".meta", ".index"} or path.suffix.startswith(".data-") else path
        )
        meta = Path(f"{beginning}.meta")
        if meta.is_file():
            return meta
        graphs = sorted(path.glob("*.meta")) if path.is_dir() else []
        return graphs[0] if len(graphs) == 1 else None


IMPORTER = (Keras(), SavedModel(), FrozenGraph(), Checkpoint())
