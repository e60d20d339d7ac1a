"""Write a PyTorch network as ONNX, and let it answer a probe: for a job of the toolchain `torch`, or in the process
that holds the network.

The network is an `nn.Module` in evaluation mode, a `torch.export` program or a TorchScript module. Imports nothing but
torch.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plimsoll_job import RefusedError

OPSET = 18
"""Of torch.export's exporter: what its operators are written for. Higher ones are converted from it."""
SCRIPT_OPSET = 17
"""Of TorchScript's exporter, whose highest is 20."""
BATCH = "N"
PROBE_BATCH = 3
"""Unlike the examples' batch of 2, so that a batch that was written down as a number is noticed."""
_EXAMPLE_BATCH = 2


@dataclass
class Exported:
    """What was written."""

    inputs: list[str]
    outputs: list[str]
    notes: list[str]


def from_module(
    module: torch.nn.Module, examples: Sequence[torch.Tensor], names: Sequence[str], batch: int | None, path: Path
) -> Exported:
    """Write an nn.Module in evaluation mode; `examples` are its inputs, of which the batch is the first axis, and their
    names.

    The batch is left free where the network allows that, else fixed to the examples'. Raises RefusedError.
    """
    module = module.eval()
    notes: list[str] = []
    program = None
    if batch is None:
        free = torch.export.Dim("batch")
        several = tuple(
            _with_batch(example, _EXAMPLE_BATCH if len(example) < 2 else len(example)) for example in examples
        )
        try:
            with _quiet():
                program = torch.export.export(
                    module, several, dynamic_shapes=tuple({0: free} if example.ndim else None for example in several)
                )
        except Exception as error:  # noqa: BLE001 - torch raises many kinds; the reason is told
            notes.append(
                f"the batch is fixed to {len(examples[0])}: with a free one PyTorch can't export it"
                f" ({_first_line(error)})"
            )
    if program is None:
        fixed = tuple(example if batch is None else _with_batch(example, batch) for example in examples)
        program = _exported(module, fixed)
    with torch.no_grad():
        answer = module(*(example for example in examples))
    outputs = output_names(answer)
    _write(program, path, list(names), outputs)
    return Exported(list(names), outputs, notes)


def from_program(program: Any, path: Path, examples: Sequence[torch.Tensor]) -> Exported:
    """Write a `torch.export` program; its free axes stay free. Raises RefusedError for one in training mode."""
    refuse_training(
        f"{node.target}({', '.join(map(str, node.args[1:]))})" for node in program.graph.nodes if _trains(node)
    )
    names = [str(name) for name in program.graph_signature.user_inputs]
    with torch.no_grad():
        outputs = output_names(program.module()(*examples))
    _write(program, path, names, outputs)
    return Exported(names, outputs, [])


def from_script(module: Any, examples: Sequence[torch.Tensor], batch: int | None, path: Path) -> Exported:
    """Write a TorchScript module. The batch is left free where the module itself takes another one than the examples'.
    Raises RefusedError."""
    module = module.eval()
    names = [argument.name for argument in module.forward.schema.arguments][1:]
    refuse_training(_script_training(module))
    notes = []
    fixed = tuple(examples if batch is None else (_with_batch(example, batch) for example in examples))
    with torch.no_grad():
        outputs = output_names(module(*fixed))
        free = batch is None
        if free:
            try:
                module(*(_with_batch(example, PROBE_BATCH) for example in examples))
            except Exception as error:  # noqa: BLE001 - what a network raises of its own
                free = False
                notes.append(
                    f"the batch is fixed to {len(examples[0])}: the network can't take another ({_first_line(error)})"
                )
    axes = {name: {0: BATCH} for name in (*names, *outputs)} if free else None
    try:
        with _quiet():
            torch.onnx.export(
                module,
                fixed,
                str(path),
                dynamo=False,
                opset_version=SCRIPT_OPSET,
                input_names=names,
                output_names=outputs,
                dynamic_axes=axes,
            )
    except Exception as error:
        raise RefusedError(
            f"PyTorch can't write this TorchScript module as ONNX: {_first_line(error)}",
            "Export it with torch.export instead.",
        ) from error
    return Exported(names, outputs, notes)


def probe(module: Any, examples: Sequence[torch.Tensor], exported: Exported, free_batch: bool, path: Path) -> None:
    """Let the network answer random inputs of the examples' shapes, and keep both; see `Probe.read`."""
    torch.manual_seed(0)
    feeds = []
    for example in examples:
        shape = (PROBE_BATCH, *example.shape[1:]) if free_batch and example.ndim else tuple(example.shape)
        feeds.append(
            torch.rand(shape, dtype=example.dtype)
            if example.dtype.is_floating_point
            else torch.zeros(shape, dtype=example.dtype)
        )
    with torch.no_grad():
        answers = flat(module(*feeds))
    arrays = {f"feed {name}": feed.numpy() for name, feed in zip(exported.inputs, feeds, strict=True)}
    arrays |= {
        f"answer {name}": answer.contiguous().numpy()
        for name, (_, answer) in zip(exported.outputs, answers, strict=True)
    }
    np.savez(path, **arrays)


def flat(answer: Any) -> list[tuple[str, torch.Tensor]]:
    """Return the tensors of an answer with their keys, in the order in which the exporters give them; raises
    RefusedError for anything else."""
    if isinstance(answer, torch.Tensor):
        return [("", answer)]
    if isinstance(answer, dict):
        return [
            (f"{key}_{inner}" if inner else str(key), tensor)
            for key, value in answer.items()
            for inner, tensor in flat(value)
        ]
    if isinstance(answer, (list, tuple)):
        return [
            (f"{index}_{inner}" if inner else str(index), tensor)
            for index, value in enumerate(answer)
            for inner, tensor in flat(value)
        ]
    raise RefusedError(
        f"the network answers with a {type(answer).__name__}, expected tensors",
        "Wrap it in a module that returns tensors.",
    )


def output_names(answer: Any) -> list[str]:
    """Return names for the tensors of an answer: the keys of a dictionary, else `output` or `output_0` and so on."""
    keys = [key for key, _ in flat(answer)]
    return [key if isinstance(answer, dict) else f"output_{key}" if key else "output" for key in keys]


def refuse_training(reasons: Iterator[str]) -> None:
    """Raise RefusedError if any operator behaves as in training."""
    if first := next(reasons, ""):
        raise RefusedError(
            f"the network was saved in training mode: {first}",
            "Call model.eval() before it is exported, and export it again.",
        )


def _write(program: Any, path: Path, inputs: list[str], outputs: list[str]) -> None:
    try:
        with _quiet():
            proto = torch.onnx.export(
                program, (), dynamo=True, verbose=False, optimize=True, opset_version=OPSET, external_data=False
            ).model_proto
    except Exception as error:
        raise RefusedError(
            f"PyTorch can't write this network as ONNX: {_first_line(error)}",
            "Its operators have to be ones that torch.onnx knows.",
        ) from error
    if len(proto.graph.input) != len(inputs) or len(proto.graph.output) != len(outputs):
        raise RefusedError(
            f"PyTorch wrote {len(proto.graph.input)} inputs and {len(proto.graph.output)} outputs, expected"
            f" {len(inputs)} and {len(outputs)}"
        )
    values = [*zip(proto.graph.input, inputs, strict=True), *zip(proto.graph.output, outputs, strict=True)]
    _rename(proto.graph, {value.name: name for value, name in values if value.name != name})
    _name_batch(proto)
    path.write_bytes(proto.SerializeToString())


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Rename values, in subgraphs too; another value that has one of the new names already gets `.inner` behind its
    own."""
    taken = {value.name for value in (*graph.input, *graph.initializer)} | {
        name for node in graph.node for name in node.output
    }
    names = {name: f"{name}.inner" for name in names.values() if name in taken and name not in names} | names
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for part in (node.input, node.output):
            part[:] = [names.get(name, name) for name in part]
        for attribute in node.attribute:
            for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                _rename(inner, names)


def _name_batch(proto: Any) -> None:
    """Call the free first axis of all inputs `N`, wherever it stands."""
    graph = proto.graph
    first = {
        value.type.tensor_type.shape.dim[0].dim_param for value in graph.input if value.type.tensor_type.shape.dim
    } - {""}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in first:
                axis.dim_param = BATCH


def _exported(module: torch.nn.Module, examples: tuple[torch.Tensor, ...]) -> Any:
    try:
        with _quiet():
            return torch.export.export(module, examples)
    except Exception as error:
        hint = "torch.export says more: try it on the module. Data-dependent Python control flow has to go."
        raise RefusedError(f"torch.export can't take this network: {_first_line(error)}", hint) from error


def _with_batch(example: torch.Tensor, batch: int) -> torch.Tensor:
    return example[:1].expand(batch, *example.shape[1:]).contiguous() if example.ndim else example


def _trains(node: Any) -> bool:
    """Tell whether an operator of a program drops values, or normalizes by the batch's own statistics."""
    name = str(node.target)
    flags = {
        "aten.dropout.default": 2,
        "aten.batch_norm.default": 5,
        "aten._native_batch_norm_legit.default": 5,
        "aten.native_batch_norm.default": 5,
    }
    position = flags.get(name)
    return position is not None and len(node.args) > position and node.args[position] is True


def _script_training(module: Any) -> Iterator[str]:
    graph = module.inlined_graph  # Its nodes live as long as somebody holds it.
    for kind, position in (("aten::dropout", 2), ("aten::batch_norm", 5)):
        for node in graph.findAllNodes(kind):
            flag = list(node.inputs())[position].toIValue()
            if flag is True:
                yield f"{kind} with train = True"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress and advice out of the answer; errors are raised."""
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(level)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "\x1b" not in line]
    cause = error.__cause__
    if cause is not None and lines and "torch.export" in lines[0]:
        return _first_line(cause)
    return (lines[0] if lines else type(error).__name__)[:300]
