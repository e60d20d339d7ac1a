"""tensorrtx's `.wts` files: weights without a network, for the networks that Plimsoll can name."""

from __future__ import annotations

from pathlib import Path

from plimsoll.errors import InputError, ModelError
from plimsoll.importers.base import Conversion, Converter, ImportOptions
from plimsoll.importers.wts import architectures, text
from plimsoll.onnx.writer import GraphWriter, require_names


class Wts(Converter):
    """tensorrtx weights."""

    name = "tensorrtx weights"
    suffixes = (".wts",)

    def convert(self, path: Path, folder: Path, options: ImportOptions) -> Conversion:
        """Convert weights of a network that `options.architecture` names, or that their names give away.

        Input `data`, NCHW, output `prob`, as tensorrtx calls them. There is no probe: the file holds numbers, no
        program.
        """
        tensors = text.read(path)
        name = options.architecture or architectures.recognise(tensors)
        known = ", ".join(architectures.NAMES)
        if not name:
            raise ModelError(
                f"{path}: its tensors are of no network that Plimsoll knows: {', '.join(list(tensors)[:6])} …",
                f"Known are: {known}.",
            )
        if name not in architectures.NAMES:
            raise InputError(
                f"{path}: Plimsoll doesn't know the architecture '{name}'", f"For .wts files it knows: {known}."
            )
        require_names([*options.inputs, *options.input_shapes], ["data"], "input", str(path))
        require_names(options.outputs, ["prob"], "output", str(path))
        graph = GraphWriter(path.name, options.batch)
        architectures.write(name, architectures.Weights(tensors, str(path)), graph, _size(options, path))
        found = f"as {name}" if options.architecture else f"taken for {name} by the names of its tensors"
        notes = (found, "not compared with the network that it was written from: the file holds weights alone")
        return Conversion(graph.save(folder / f"{path.stem}.onnx"), None, notes=notes)


def _size(options: ImportOptions, path: Path) -> tuple[int, int] | None:
    """Return the height and width that the user gave."""
    shape = options.input_shapes.get("data")
    if shape is None:
        return None
    if len(shape) != 4 or any(size is None or not 0 < size <= 65_535 for size in shape[2:]):
        raise InputError(f"{path}: the shape {list(shape)} for 'data'", "Give [N, channels, height, width].")
    return int(shape[2] or 0), int(shape[3] or 0)


IMPORTER = Wts()
