"""Convert a module of this process: `plimsoll.from_torch`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plimsoll.core.foreign import require
from plimsoll.errors import InputError, ModelError
from plimsoll.importers.base import Conversion, Probe
from plimsoll.system.toolchains import plimsoll_job

if TYPE_CHECKING:
    import torch

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
