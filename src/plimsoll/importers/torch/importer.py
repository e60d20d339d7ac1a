"""PyTorch: exported programs, TorchScript, and weights with the code of their network; read in the toolchain
`torch`."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from plimsoll.errors import InputError, ModelError
from plimsoll.importers.base import Conversion, Converter, ImportOptions, Probe
from plimsoll.importers.torch import contents
from plimsoll.system import toolchains

_FROM_TORCH = "Or convert the live module in Python: plimsoll.from_torch(module, example)."
_MAX_CODE = 20_000_000
"""Bytes of Python files that go along with weights."""


class Torch(Converter):
    """PyTorch."""

    name = "PyTorch file"
    suffixes = (".pt2", ".pt", ".pth", ".torchscript", ".safetensors")

    def convert(self, path: Path, folder: Path, options: ImportOptions) -> Conversion:
        """Convert in evaluation mode; inputs are called as forward calls them, outputs `output`, `output_0` … or by
        their keys.

        What would run code when it is loaded is refused without `options.trust`. Bare weights need
        `options.architecture`.
        """
        held = contents.look(path)
        _check(path, held, options)
        request = {
            "kind": held.kind,
            "shapes": {name: list(shape) for name, shape in options.input_shapes.items()},
            "batch": options.batch,
            "architecture": options.architecture.rpartition("/")[2].replace(".py:", ":"),
            "trust": options.trust,
        }
        inputs: dict[str, Path | list[Path]] = {"model": path}
        with tempfile.TemporaryDirectory(prefix="plimsoll-torch-") as temporary:
            if options.trust and held.kind in ("weights", "module"):
                inputs["code"] = _code(path, options.architecture, Path(temporary) / "code")
            try:
                result = toolchains.run("torch", "torch_to_onnx", request, folder, inputs=inputs)
            except ModelError as error:
                raise ModelError(f"{path}: {error.message}", error.hint) from error
        _require_names(path, options, result["inputs"], result["outputs"])
        return Conversion(
            folder / "model.onnx", Probe.read(folder / "probe.npz", result["framework"]), notes=tuple(result["notes"])
        )


def _check(path: Path, held: contents.Contents, options: ImportOptions) -> None:
    """Raise ModelError for what must not be loaded, InputError where the architecture is missing or pointless."""
    names = ", ".join(held.suspicious[:6]) + (" …" if len(held.suspicious) > 6 else "")
    if held.suspicious and not options.trust:
        what = {
            "exported": "an exported program with pickled objects of its own",
            "torchscript": "a TorchScript archive that reaches outside of the network",
            "module": (
                "a pickle of more than tensors, which runs code when it is loaded (a whole module, or a training"
                " checkpoint)"
            ),
        }.get(held.kind, "a pickle")
        hint = "Save the weights alone (torch.save(model.state_dict(), …)) or export the network (torch.export).\n"
        hint += "  If you trust its author as you would a program's: --trust."
        raise ModelError(f"{path}: {what}: it names {names}", f"{hint}\n  {_FROM_TORCH}")
    if held.kind in ("exported", "torchscript") and options.architecture:
        raise InputError(f"{path}: this file contains its network", "Omit --architecture.")
    if held.kind == "weights" and not (options.architecture and options.trust):
        some = f" ({', '.join(held.tensors[:4])} …)" if held.tensors else ""
        missing = (
            "their network was not named" if not options.architecture else "the code of their network would have to run"
        )
        hint = (
            "Name the network, and allow its code to run: --architecture module:callable --trust; put the .py file"
            " beside the weights, or give its path."
        )
        raise ModelError(f"{path}: weights without their network{some}: {missing}", f"{hint}\n  {_FROM_TORCH}")
    if options.architecture and ":" not in options.architecture:
        raise InputError(
            f"--architecture {options.architecture}",
            "Give module:callable, module:callable(10) or path/to/file.py:callable.",
        )


def _code(path: Path, architecture: str, target: Path) -> Path:
    """Copy the Python files that may be needed: the named file's folder, or the weights', with packages in them; raises
    InputError."""
    module = architecture.partition(":")[0]
    given = Path(module) if module.endswith(".py") else None
    if given is not None and not given.is_file():
        raise InputError(f"--architecture {architecture}: no such file: {given}")
    folders = [given.parent] if given is not None else [path.parent, Path()]
    top = module.partition(".")[0]
    home = next(
        (
            folder
            for folder in folders
            if given is not None or (folder / f"{top}.py").is_file() or (folder / top).is_dir()
        ),
        path.parent,
    )
    files = [
        file
        for file in [*home.glob("*.py"), *home.glob("*/**/*.py")]
        if not re.search(r"(^|/)(\.|site-packages)", file.relative_to(home).as_posix())
    ]
    if sum(file.stat().st_size for file in files) > _MAX_CODE:
        raise InputError(
            f"{home}: more than {_MAX_CODE:,} bytes of Python files",
            "Put the network's code into a folder of its own, and give its path.",
        )
    target.mkdir()
    for file in files:
        copied = target / file.relative_to(home)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copied)
    return target


def _require_names(path: Path, options: ImportOptions, inputs: list[str], outputs: list[str]) -> None:
    for side, names, there in (("input", options.inputs, inputs), ("output", options.outputs, outputs)):
        if names and set(names) != set(there):
            raise InputError(
                f"{path}: its {side}s are {', '.join(there)}, not {', '.join(names)}",
                "Omit the names: a PyTorch network has those of its forward().",
            )


IMPORTER = Torch()
