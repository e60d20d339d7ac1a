"""PyTorch: exported programs, TorchScript, and weights with the code of their network; read in the toolchain
`torch`. A live module is converted in this process (`plimsoll.from_torch`)."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plimsoll.core.foreign import require
from plimsoll.errors import InputError, ModelError
from plimsoll.importers.base import Conversion, Converter, ImportOptions, Probe
from plimsoll.importers.torch import contents, known
from plimsoll.onnx.writer import require_names
from plimsoll.system import toolchains
from plimsoll.system.toolchains import plimsoll_job

if TYPE_CHECKING:
    import torch


_FROM_TORCH = "Or convert the live module in Python: plimsoll.from_torch(module, example)."
_MAX_CODE = 20_000_000
"""Limit for the Python files copied along with weights, in bytes."""


class Torch(Converter):
    """PyTorch."""

    name = "PyTorch file"
    suffixes = (".pt2", ".pt", ".pth", ".torchscript", ".safetensors")

    def convert(self, path: Path, folder: Path, options: ImportOptions) -> Conversion:
        """Convert in evaluation mode; inputs are called as forward calls them, outputs `output`, `output_0` … or by
        their keys.

        A file that would run code when it is loaded is refused without `options.trust`. Bare weights need
        `options.architecture`; those of the networks in `known` need neither trust nor PyTorch.
        """
        if options.architecture in known.FORMS:
            return _known(path, folder, options)
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
            result = toolchains.run("torch", "torch_to_onnx", request, folder, inputs=inputs, where=str(path))
        _require_names(path, options, result["inputs"], result["outputs"])
        return Conversion(
            folder / "model.onnx", Probe.read(folder / "probe.npz", result["framework"]), notes=tuple(result["notes"])
        )


def _known(path: Path, folder: Path, options: ImportOptions) -> Conversion:
    require_names([*options.inputs, *options.input_shapes], ["data"], "input", str(path))
    require_names(options.outputs, ["logits"], "output", str(path))
    if options.input_shapes:
        raise InputError(f"{path}: --shape: {options.architecture} has a size of its own", "Omit --shape.")
    written = known.write(path, options.architecture, options.batch)
    notes = ("not compared with PyTorch: the file holds weights alone",)
    return Conversion(written.save(folder / f"{path.stem}.onnx"), None, notes=notes)


def _check(path: Path, held: contents.Contents, options: ImportOptions) -> None:
    """Raise ModelError for what must not be loaded, InputError if the architecture is missing or pointless."""
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
            " beside the weights, or give its path.\n"
            f"  Known without code: --architecture {', '.join(known.FORMS)}."
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


_INSTALL = "pip install torch onnxscript"


def convert(
    module: torch.nn.Module, example: torch.Tensor | Sequence[torch.Tensor], folder: Path, batch: int | None
) -> Conversion:
    """Write an nn.Module as ONNX into `folder`, in evaluation mode, and let it answer a probe; the module's mode is
    restored.

    `example` is what forward takes, with the batch as its first axis; its values don't matter. Raises InputError,
    ModelError or BackendMissingError.
    """
    torch = require("torch", _INSTALL)
    require("onnxscript", _INSTALL)
    examples = [example] if isinstance(example, torch.Tensor) else list(example)
    if (
        not isinstance(module, torch.nn.Module)
        or not examples
        or not all(isinstance(tensor, torch.Tensor) for tensor in examples)
    ):
        raise InputError(f"from_torch: found a {type(module).__name__}, expected an nn.Module and example tensors")
    export = _exporter()
    modes = {part: part.training for part in module.modules()}
    path = folder / "model.onnx"
    try:
        names = _names(module, len(examples))
        exported = export.from_module(module, [tensor.detach().cpu() for tensor in examples], names, batch, path)
        free = batch is None and not any("batch is fixed" in note for note in exported.notes)
        export.probe(module, examples, exported, free, folder / "probe.npz")
    except plimsoll_job.RefusedError as error:
        raise ModelError(f"{type(module).__name__}: {error.message}", error.hint) from error
    finally:
        for part, mode in modes.items():
            part.training = mode
    return Conversion(
        path, Probe.read(folder / "probe.npz", f"PyTorch {torch.__version__}"), notes=tuple(exported.notes)
    )


def _names(module: Any, count: int) -> list[str]:
    """Return the names of forward's first inputs."""
    import inspect

    names = [
        parameter.name
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return names[:count] if len(names) >= count else [f"input_{index}" for index in range(count)]


def _exporter() -> Any:
    """Import the part of the toolchain's job that writes a network: its scripts are not a package, and need only
    torch."""
    name = "plimsoll_torch_export"
    if name not in sys.modules:
        sys.modules.setdefault("plimsoll_job", plimsoll_job)
        script = Path(__file__).with_name("toolchain") / "jobs" / "torch_export.py"
        spec = importlib.util.spec_from_file_location(name, script)
        if spec is None or spec.loader is None:
            raise ModelError("Plimsoll's own file torch_export.py is missing", "Install Plimsoll again.")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded
        spec.loader.exec_module(loaded)
    return sys.modules[name]
