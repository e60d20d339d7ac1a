"""TensorFlow.js models: layers models and graph models, read without JavaScript."""

from __future__ import annotations

from pathlib import Path

from plimsoll.importers.base import Conversion, Converter, ImportOptions
from plimsoll.importers.tfjs import files, graph_model, layers_model, probe
from plimsoll.importers.tfjs.operators import ConvertedGraph


class Tfjs(Converter):
    """TensorFlow.js."""

    name = "TensorFlow.js model"
    suffixes = (".json", ".js")

    def recognises(self, path: Path) -> bool:
        """Tell whether the file, or the model.json in the folder, holds a TensorFlow.js model."""
        main = _main(path)
        return main is not None and files.is_model(main)

    def convert(self, path: Path, folder: Path, options: ImportOptions) -> Conversion:
        """Convert model.json and the shards beside it; layout NHWC and names as in TensorFlow.js."""
        main = _main(path) or path
        stored = files.read(main)
        written = write(stored, main.name, options)
        out = written.graph.save(folder / f"{main.name.partition('.')[0]}.onnx")
        answered, note = probe.answer(stored, written, bool(options.outputs))
        return Conversion(out, answered, notes=(note,) if note else ())


def write(stored: files.Stored, where: str, options: ImportOptions) -> ConvertedGraph:
    """Write a model that was read as an ONNX graph; `where` names it in errors. Raises ModelError or InputError."""
    if stored.is_graph:
        return graph_model.write(stored.topology, stored.weights, stored.signature, options, where)
    return layers_model.write(stored.topology, stored.weights, where, options)


def _main(path: Path) -> Path | None:
    if path.is_dir():
        return next((path / name for name in ("model.json", "model.min.js") if (path / name).is_file()), None)
    return path if path.suffix.lower() in Tfjs.suffixes and path.is_file() else None


IMPORTER = Tfjs()
