"""Caffe networks: a `.prototxt` for deployment and the `.caffemodel` beside it, read without Caffe."""

from __future__ import annotations

from pathlib import Path

from plimsoll.errors import ModelError
from plimsoll.importers.base import Conversion, Converter, ImportOptions
from plimsoll.system import files

MAX_TEXT = 8_000_000
"""Bytes of a .prototxt; the longest known has under a million."""


class Caffe(Converter):
    """Caffe."""

    name = "Caffe network"
    suffixes = (".caffemodel", ".prototxt")

    def convert(self, path: Path, folder: Path, options: ImportOptions) -> Conversion:
        """Convert the pair that `path` is one of; names, NCHW layout and channel order stay Caffe's.

        There is no probe, since Caffe can't be installed any more; each layer is tested against Caffe's definition.
        """
        prototxt, caffemodel = pair(path)
        out = folder / f"{path.stem}.onnx"
        unused = to_onnx(prototxt, caffemodel, out, options)
        notes = [
            "not compared with Caffe, which can't be installed any more; compare with answers that you have from Caffe"
        ]
        if unused:
            notes.append(
                f"the weights file has layers that {prototxt.name} doesn't have:"
                f" {', '.join(unused[:10])}{' …' if len(unused) > 10 else ''}"
            )
        return Conversion(out, None, notes=tuple(notes))


def to_onnx(prototxt: Path, caffemodel: Path, path: Path, options: ImportOptions | None = None) -> list[str]:
    """Write the network as ONNX to `path` and return the layers of the weights file that the description doesn't have.

    Names of inputs and outputs are Caffe's; the layout is NCHW; the batch is free. Raises ModelError, naming the layer.
    """
    # Every importer is imported to recognise a file; protobuf is loaded only where it is Caffe's.
    from plimsoll.importers.caffe.files import Description, Weights
    from plimsoll.importers.caffe.network import Network, write

    network = Network.of(Description(_text(prototxt), str(prototxt)), prototxt.name, options or ImportOptions())
    graph, unused = write(network, Weights(caffemodel))
    graph.save(path)
    return unused


def pair(path: Path) -> tuple[Path, Path]:
    """Return the description and the weights, given one of them; raises ModelError if the other can't be found.

    The other has the same name, or is the only one of its kind in the folder; deploy.prototxt is preferred.
    """
    other = ".caffemodel" if path.suffix.lower() == ".prototxt" else ".prototxt"
    beside = path.with_suffix(other)
    if not beside.is_file():
        candidates = sorted(file for file in path.parent.glob(f"*{other}") if file.is_file())
        deploy = [file for file in candidates if file.stem.startswith("deploy")]
        chosen = deploy if len(deploy) == 1 else candidates
        if len(chosen) != 1:
            names = ", ".join(file.name for file in candidates[:10]) or "none"
            raise ModelError(
                f"{path}: can't tell which {other} belongs to it; its folder has: {names}",
                f"Rename it to {beside.name}.",
            )
        beside = chosen[0]
    return (path, beside) if other == ".caffemodel" else (beside, path)


def _text(path: Path) -> str:
    try:
        return files.read_text(path, MAX_TEXT, regular=True)
    except OSError as error:
        raise ModelError(
            f"{path}: can't read the Caffe network description: {error.strerror}", "Give the deploy .prototxt."
        ) from error


IMPORTER = Caffe()
