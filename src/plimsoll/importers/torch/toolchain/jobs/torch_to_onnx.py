"""Read a PyTorch file of any kind and write it as ONNX, with a probe that PyTorch answered.

Request: `kind` (exported, torchscript, weights, module), `shapes` (by input name; null for a free size), `batch`,
`architecture` (`module:callable`, of weights), `trust`. Inputs: `model`, and `code`, a folder of Python files. Leaves
model.onnx and probe.npz.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch_export
from plimsoll_job import RefusedError

_SIDE = 224
"""Pixels, where nobody says how large the pictures are and the file doesn't either."""
_MAX_HEADER = 100_000_000
_KINDS = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "BOOL": torch.bool,
}  # fmt: skip
"""The dtypes of a safetensors file."""


def run(request: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    if not request["trust"]:
        # torch.export.load falls back to unpickling anything, unless PyTorch is told so.
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    torch.set_num_threads(
        max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    )
    path = out / "model.onnx"
    shapes: Mapping[str, Sequence[int | None]] = request["shapes"]
    if request["kind"] == "exported":
        network, examples, exported, free = _exported(inputs["model"], shapes, request["batch"], path)
    elif request["kind"] == "torchscript":
        network, examples, exported, free = _script(inputs["model"], shapes, request["batch"], path)
    else:
        if "code" in inputs:
            sys.path.insert(0, str(inputs["code"]))
        network = _module(request, inputs["model"]).float().eval()
        names = _parameters(network)
        examples = _examples(names, {}, shapes, request["batch"])
        exported = torch_export.from_module(network, examples, names, request["batch"], path)
        free = request["batch"] is None and not any("batch is fixed" in note for note in exported.notes)
    torch_export.probe(network, examples, exported, free, out / "probe.npz")
    return {
        "framework": f"PyTorch {torch.__version__}",
        "inputs": exported.inputs,
        "outputs": exported.outputs,
        "notes": exported.notes,
    }


_Read = tuple[Any, list[torch.Tensor], torch_export.Exported, bool]


def _exported(file: Path, shapes: Mapping[str, Sequence[int | None]], batch: int | None, path: Path) -> _Read:
    try:
        program = torch.export.load(str(file))
    except Exception as error:
        raise RefusedError(
            f"PyTorch {torch.__version__} can't load this program: {_line(error)}",
            "Export it again with torch.export.save of that version.",
        ) from error
    names = [str(name) for name in program.graph_signature.user_inputs]
    stated = {name: _sizes(program, name) for name in names}
    fixed = {name: [None if size is None else size for size in sizes] for name, sizes in stated.items()}
    free = bool(names) and all(sizes and sizes[0] is None for sizes in fixed.values())
    _require_known(shapes, names)
    if batch is not None and not free and any(sizes[0] != batch for sizes in fixed.values()):
        raise RefusedError(
            f"the program was exported for a batch of {fixed[names[0]][0]}, not {batch}",
            "Export it with a free batch (dynamic_shapes).",
        )
    given = {name: shapes.get(name) or _example_shape(program, name) for name in names}
    dtypes = {name: _meta(program, name).dtype for name in names}
    examples = [_example(given[name], dtypes[name], torch_export.PROBE_BATCH if free else None) for name in names]
    exported = torch_export.from_program(program, path, examples)
    if batch is not None and free:
        exported.notes.append(f"the batch stays free: the program takes any, {batch} too")
    return program.module(), examples, exported, free


def _meta(program: Any, name: str) -> Any:
    return next(node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name == name)


def _sizes(program: Any, name: str) -> list[int | None]:
    return [size if isinstance(size, int) else None for size in _meta(program, name).shape]


def _example_shape(program: Any, name: str) -> list[int | None]:
    """Return an input's shape, its free sizes but the batch as in the example that it was exported with."""
    sizes = _sizes(program, name)
    names = [str(name) for name in program.graph_signature.user_inputs]
    example = (
        program.example_inputs[0][names.index(name)] if program.example_inputs and program.example_inputs[0] else None
    )
    return [
        size if size is not None or example is None else int(example.shape[axis]) for axis, size in enumerate(sizes)
    ]


def _script(file: Path, shapes: Mapping[str, Sequence[int | None]], batch: int | None, path: Path) -> _Read:
    try:
        module = torch.jit.load(str(file), map_location="cpu", _restore_shapes=True).float().eval()
    except Exception as error:
        raise RefusedError(f"PyTorch {torch.__version__} can't load this TorchScript module: {_line(error)}") from error
    arguments = module.forward.schema.arguments[1:]
    graph = module.forward.graph
    kinds = [value.type() for value in graph.inputs()][1:]
    known = {
        argument.name: kind.sizes()
        for argument, kind in zip(arguments, kinds, strict=True)
        if kind.kind() == "TensorType"
    }
    if len(known) != len(arguments) or not arguments:
        raise RefusedError(
            "its forward takes something other than tensors", "Wrap it in a module whose inputs are tensors."
        )
    examples = _examples(list(known), {name: sizes for name, sizes in known.items() if sizes}, shapes, batch)
    try:
        exported = torch_export.from_script(module, examples, batch, path)
    except RuntimeError as error:
        raise RefusedError(
            f"the module can't take inputs of {[list(example.shape) for example in examples]}: {_line(error)}",
            "Say what it takes: --shape NAME=1,3,224,224",
        ) from error
    return module, examples, exported, batch is None and not exported.notes


def _module(request: Mapping[str, Any], file: Path) -> torch.nn.Module:
    """Return the network that weights belong to, with the weights in it; or the network that a trusted file holds
    whole."""
    try:
        loaded = (
            _safetensors(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=request["kind"] == "weights")
        )
    except RefusedError:
        raise
    except Exception as error:
        raise RefusedError(
            f"PyTorch can't load this file: {_line(error)}",
            "What its pickle needs has to be importable: give the code with --architecture.",
        ) from error
    network = (
        loaded.get("model", loaded)
        if isinstance(loaded, dict) and isinstance(loaded.get("model"), torch.nn.Module)
        else loaded
    )
    if isinstance(network, torch.nn.Module):
        return network
    weights = _weights(loaded)
    network = _built(request["architecture"])
    return _filled(network, weights)


def _filled(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Load weights into a network; raises RefusedError, naming what doesn't fit. Names may begin with `module.`, as
    parallel training leaves them."""
    if weights and all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    try:
        missing, unexpected = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise RefusedError(f"the weights don't fit the network: {' '.join(str(error).split())[:300]}") from error
    if missing or unexpected:
        mismatches = [
            f"{len(names)} {what} ({', '.join(names[:4])})"
            for names, what in ((missing, "missing"), (unexpected, "without a place"))
            if names
        ]
        raise RefusedError(
            f"the weights don't fit the network: {'; '.join(mismatches)}",
            "Is it the architecture that they were trained with?",
        )
    return network


def _weights(loaded: Any) -> dict[str, torch.Tensor]:
    """Return the state dict of what was loaded: itself, or where training frameworks put it."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if (
        not isinstance(loaded, dict)
        or not loaded
        or not all(isinstance(tensor, torch.Tensor) for tensor in loaded.values())
    ):
        raise RefusedError(f"the file holds a {type(loaded).__name__}, expected weights by their names (a state dict)")
    return dict(loaded)


def _built(architecture: str) -> torch.nn.Module:
    """Call `module:callable` or `module:callable(1, name=2)`, with plain values, and return the network; raises
    RefusedError."""
    module, _, call = architecture.partition(":")
    try:
        parsed = ast.parse(call, mode="eval").body
        arguments = [ast.literal_eval(argument) for argument in parsed.args] if isinstance(parsed, ast.Call) else []
        named = (
            {keyword.arg: ast.literal_eval(keyword.value) for keyword in parsed.keywords if keyword.arg}
            if isinstance(parsed, ast.Call)
            else {}
        )
        target = ast.unparse(parsed.func if isinstance(parsed, ast.Call) else parsed)
    except (SyntaxError, ValueError) as error:
        raise RefusedError(
            f"the architecture {architecture!r}",
            "Give module:callable, or module:callable(10, width=0.5) with plain values.",
        ) from error
    try:
        built: Any = importlib.import_module(module)
        for part in target.split("."):
            built = getattr(built, part)
        network = built(*arguments, **named)
    except Exception as error:
        raise RefusedError(
            f"the architecture {architecture!r} can't be made: {_line(error)}",
            "Only PyTorch, NumPy and the given code are there.",
        ) from error
    if not isinstance(network, torch.nn.Module):
        raise RefusedError(f"the architecture {architecture!r} gives a {type(network).__name__}, expected an nn.Module")
    return network


def _safetensors(file: Path) -> dict[str, torch.Tensor]:
    """Read the safetensors format: a length (8 bytes), a JSON header, the data."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(_MAX_HEADER, len(data) - 8):
        raise RefusedError(f"not a safetensors file: its header would have {length:,} bytes")
    out = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            part = bytearray(data[8 + length + begin : 8 + length + end])
            values = (
                torch.frombuffer(part, dtype=_KINDS[entry["dtype"]])
                if part
                else torch.zeros(0, dtype=_KINDS[entry["dtype"]])
            )
            out[name] = values.reshape(entry["shape"])
    return out


def _parameters(network: torch.nn.Module) -> list[str]:
    """Return the names of forward's inputs that have no default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [
        parameter for parameter in inspect.signature(network.forward).parameters.values() if parameter.kind in kinds
    ]
    return (
        [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
        or [parameter.name for parameter in parameters[:1]]
        or ["input"]
    )


def _examples(
    names: list[str], known: Mapping[str, Sequence[int]], shapes: Mapping[str, Sequence[int | None]], batch: int | None
) -> list[torch.Tensor]:
    _require_known(shapes, names)
    out = []
    for name in names:
        shape: Sequence[int | None] = shapes.get(name) or known.get(name) or (1, 3, _SIDE, _SIDE)
        out.append(_example(shape, torch.float32, batch))
    return out


def _example(shape: Sequence[int | None], dtype: torch.dtype, batch: int | None) -> torch.Tensor:
    sizes = [_SIDE if size is None and axis else size or 1 for axis, size in enumerate(shape)]
    if batch is not None and sizes:
        sizes[0] = batch
    torch.manual_seed(1)
    return torch.rand(sizes, dtype=dtype) if dtype.is_floating_point else torch.zeros(sizes, dtype=dtype)


def _require_known(shapes: Mapping[str, Any], names: Sequence[str]) -> None:
    if unknown := [name for name in shapes if name not in names]:
        raise RefusedError(f"the network has no input {', '.join(unknown)}", f"It has: {', '.join(names)}.")


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)[:300]
