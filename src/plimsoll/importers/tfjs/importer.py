"""TensorFlow.js models: layers models and graph models, read without JavaScript."""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import BackendMissingError, ModelError
from plimsoll.importers.base import Conversion, Converter, ImportOptions, Probe
from plimsoll.importers.tfjs import files, graph_model, layers_model
from plimsoll.importers.tfjs.files import Stored
from plimsoll.importers.tfjs.operators import ConvertedGraph
from plimsoll.system import npm, subprocesses
from plimsoll.system.npm import NpmFiles
from plimsoll.system.subprocesses import JobError, ProcessLimits

_BUNDLE = "dist/tf.min.js"
LIBRARY = NpmFiles(
    "@tensorflow/tfjs",
    "4.22.0",
    "sha512-0TrIrXs6/b7FLhLVNmfh8Sah6JgjBPH4mZ8JGb7NU6WW+cx00qK5BcAZxw7NCzxj6N8MRAIfHq+oNbPUNG5VAg==",
    {_BUNDLE: "300dfae273d20b4046f46a06d735688f03675a807561e9bcb5f664eb2f3d2831"},
)
"""TensorFlow.js as one file of 1.5 MB, out of a package of 31 MB."""

_LIMITS = ProcessLimits(1200, 8_000_000_000)
_FREE_SIDE = 64
"""Pixels per side of a picture whose size is free."""
_FEW = 20_000_000
"""A network with more weights answers one picture instead of two, since JavaScript is slow."""

Arrays = dict[str, NDArray[Any]]


def answer(stored: Stored, written: ConvertedGraph, chosen: bool) -> tuple[Probe | None, str]:
    """Return a probe answered by TensorFlow.js, or None and the reason; `chosen`: the outputs are not the model's own.

    Raises ModelError where TensorFlow.js refuses the model.
    """
    node = shutil.which("node")
    if node is None:
        return None, "not compared with TensorFlow.js: Node.js is not installed"
    try:
        library = npm.fetch(LIBRARY)[_BUNDLE]
    except BackendMissingError as error:
        return None, f"not compared with TensorFlow.js: {error.message}"
    with (
        tempfile.TemporaryDirectory(prefix="plimsoll-tfjs-") as name,
        resources.as_file(resources.files(__package__).joinpath("probe.cjs")) as script,
    ):
        folder = Path(name)
        feeds = _feeds(stored, written)
        _write(folder, library, stored, written, feeds, chosen)
        try:
            result = subprocesses.run_for_result([node, str(script), str(folder)], folder, _LIMITS)
        except JobError as error:
            log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = next((line for line in log if "Error" in line), error.message)
            raise ModelError(
                f"TensorFlow.js can't run this model: {reason[:300]}", "Does it run in a browser?"
            ) from error
        answers = {}
        for index, (output, shape) in enumerate(zip(written.outputs, result["outputs"], strict=True)):
            values = np.fromfile(folder / f"answer{index}.bin", np.float32).reshape(shape)
            answers[output] = values.astype(written.dtypes.get(output, "float32"))
    return Probe(f"TensorFlow.js {result['version']}", feeds, answers), ""


def _feeds(stored: Stored, written: ConvertedGraph) -> Arrays:
    chance = np.random.default_rng(0)
    numbers = sum(array.size for array in stored.weights.values())
    items = 1 if numbers > _FEW else 2
    feeds: Arrays = {}
    for name in written.inputs:
        batch, *sides = written.graph.input_shape(name)
        sizes = [items if batch is None else batch, *(_FREE_SIDE if size is None else size for size in sides)]
        # Pixels are whole numbers where TensorFlow.js takes int32.
        values = chance.integers(0, 256, sizes) if name in written.dtypes else chance.uniform(0, 1, sizes)
        feeds[name] = values.astype(np.float32)
    return feeds


def _write(folder: Path, library: Path, stored: Stored, written: ConvertedGraph, feeds: Arrays, chosen: bool) -> None:
    inputs = []
    for index, (name, feed) in enumerate(feeds.items()):
        feed.tofile(folder / f"feed{index}.bin")
        dtype = written.dtypes.get(name, "float32")
        inputs.append({"name": name, "shape": feed.shape, "file": f"feed{index}.bin", "dtype": dtype})
    (folder / "weights.bin").write_bytes(stored.data)
    request = {
        "library": str(library),
        "graph": stored.is_graph,
        "weights": stored.entries,
        "inputs": inputs,
        "outputs": written.outputs,
        "chosen": chosen,
    }
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    (folder / "model.json").write_text(json.dumps(stored.topology), encoding="utf-8")


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
        answered, note = answer(stored, written, bool(options.outputs))
        whole = [name for name in written.inputs if name in written.dtypes]
        notes = [f"{', '.join(whole)}: whole numbers, as int32 in TensorFlow.js, in float32 here"] if whole else []
        return Conversion(out, answered, notes=(*notes, *([note] if note else [])))


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
