"""Make MNN files: convert a float32 ONNX network, and quantize what was converted."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.base import CalibrationData, calibration_missing
from plimsoll.backends.conversion import check_stage
from plimsoll.backends.mnn import grids
from plimsoll.backends.mnn.graph import Graph
from plimsoll.backends.mnn.session import MnnInterpreter, muted
from plimsoll.core.foreign import require, translate
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import BuildError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx import lowering, names
from plimsoll.onnx.form import require_form
from plimsoll.onnx.signature import SUFFIX, Signature
from plimsoll.system import subprocesses
from plimsoll.system.subprocesses import JobError, ProcessLimits

INSTALL = "pip install 'plimsoll-line[mnn]'"

CALIBRATORS = {
    "kl": ("KL", "MAX_ABS"),
    "kl-admm": ("KL", "ADMM"),
    "admm": ("ADMM", "MAX_ABS"),
    "admm-admm": ("ADMM", "ADMM"),
    "ema": ("EMA", "MAX_ABS"),
}
"""MNN's methods for what flows through the network, and for the weights. (Its EMA knows one method for weights alone.)
"""

_ARGUMENTS = {
    "float32": (),
    "float16": ("--fp16",),
    "int8_weights": ("--weightQuantBits", "8", "--hqq"),
    "int8": (),
}
"""HQQ (half-quadratic quantization) leaves a third of the error of the plain rounding, in as many bytes."""

_LACKING = ("Attention", "Mish", "RMSNormalization", "Swish")
_MOST_GELUS = 8
"""MNN computes a GELU with 75 dB, in half the time; where there are more, what is lost adds up to more than float32
may lose (59 dB with the twelve of a ViT-S)."""
_MOST_PICTURES = {"KL": 100, "EMA": 100, "ADMM": 2}
"""MNN's guide: 100 to 1000 pictures for KL, one batch for ADMM, which goes 300 times over each value. Tensors travel as
text, so not more than that."""
_RUN = "run"
_TOOLS = {"mnnconvert": "converter", "mnnquant": "quantizer"}
"""What MNN's tools are called in messages."""
_GAPS = 4
"""With ranges of ours, MNN's tool is given so many pictures, for the tensors that we know nothing of."""
_LIMITS = ProcessLimits(1800, 12_000_000_000)


def build(model: Model, target: Target, folder: Path, calibration: CalibrationData | None) -> Model:
    """Return the MNN file for a target, in `folder`; the model itself where it is one already. Raises BuildError."""
    if model.format == "mnn":
        return model
    require_form(model, target, "float32")
    if target.precision == "int8" and calibration is None:
        raise calibration_missing(model, target)
    signature = Signature.of(model)
    path = folder / f"{model.path.stem}.{target.precision}.mnn"
    with _workplace() as work:
        converted, renamed = _convert(model, work, _ARGUMENTS[target.precision])
        _check(model, signature, converted, work, "float32" if target.precision == "int8" else target.precision)
        if target.precision == "int8" and calibration is not None:
            ranges = {renamed.get(name, name): limits for name, limits in calibration.ranges.items()}
            converted = _quantize(model, converted, signature, replace(calibration, ranges=ranges), work)
        shutil.move(converted, path)
    beside = signature.write(path.with_name(path.name + SUFFIX))
    return Model(path, "mnn", model.spec, parent=model, files=(beside,))


@contextmanager
def _workplace() -> Iterator[Path]:
    """Give a folder for the work, which is removed whatever happens; of work that fails, the error has the end of the
    log."""
    with tempfile.TemporaryDirectory(prefix="plimsoll-mnn-") as work:
        yield Path(work)


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Run MNN's converter or quantizer, or a converted network, in a process of its own: on what they don't like they
    abort it.

    `arguments` are the command line's. The tools are called in MNN's extension module: its Python modules of the same
    names, and its console scripts, install a package that sends usage data to its makers (`MNN.tools.utils.log`).
    Raises BuildError where they write nothing.
    """
    result = Path(payload["result"])
    result.unlink(missing_ok=True)
    if payload["tool"] == _RUN:
        network, signature, feeds = payload["arguments"]
        _answer(network, signature, feeds, result)
        return {}
    tools = require("_tools", INSTALL)
    arguments = [payload["tool"], *payload["arguments"]]
    done = tools.mnnconvert(arguments) if payload["tool"] == "mnnconvert" else tools.mnnquant(arguments)
    if done is False or not result.is_file() or result.stat().st_size == 0:
        raise BuildError("it wrote no file")
    return {}


def _run(model: Model, tool: str, arguments: list[str], result: Path, work: Path) -> None:
    try:
        subprocesses.run_job(
            __name__, {"tool": tool, "arguments": arguments, "result": str(result)}, work / tool, _LIMITS
        )
    except JobError as error:
        if tool == _RUN:
            raise BuildError(
                f"{model.source}: MNN can't run what it converted: {error.message}", "Choose another runtime."
            ) from error
        log = subprocesses.last_lines(work / tool / "log.txt")
        unknown = re.search(r"Not Support: ([^|]*)", log)
        if unknown:
            raise BuildError(
                f"{model.source}: MNN has no operator for {unknown[1].replace('ONNX::', '').strip()}",
                "Export the network without such operators, or choose another runtime.",
            ) from error
        raise BuildError(
            f"{model.source}: MNN's {_TOOLS[tool]} failed: {error.message}", "Choose another runtime."
        ) from error


def _convert(model: Model, work: Path, arguments: tuple[str, ...]) -> tuple[Path, dict[str, str]]:
    """Convert a copy with its weights inside and plain names; returns the file, and the names that are others in it."""
    source, converted = work / "network.onnx", work / "network.mnn"
    proto = onnx_graph.load(model)
    lowering.lower(proto, _LACKING)
    if sum(node.op_type in ("Erf", "Gelu") for node in proto.graph.node) > _MOST_GELUS:
        lowering.lower(proto, ["Gelu"])
        lowering.spell_out_gelus(proto)
    _refuse(model, onnx_graph.Graph(proto))
    renamed = names.make_plain(proto)
    onnx_graph.save(proto, source, str(model.source))
    _run(
        model,
        "mnnconvert",
        ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(converted), "--bizCode", "plimsoll", *arguments],
        converted,
        work,
    )
    return converted, renamed


def _refuse(model: Model, graph: onnx_graph.Graph) -> None:
    """Raise BuildError for what MNN converts, and then reads beyond its memory."""
    for node in graph.nodes:
        if node.op_type == "Slice" and len(node.input) > 4:
            steps = graph.value(node.input[4])
            if steps is None or steps.min() < 0:
                raise BuildError(
                    f"{model.source}: MNN can't slice backwards, as '{node.name}' does", "Choose another runtime."
                )


def _check(model: Model, signature: Signature, converted: Path, work: Path, precision: str) -> None:
    """Compare what was converted with the network, in a process of its own: on some operators MNN crashes."""

    def answer(feeds: Mapping[str, Any]) -> dict[str, Any]:
        given, result = work / "feeds.npz", work / "answers.npz"
        # Where a call may hold several pictures, two: some operators crash with more than one.
        copies = 2 if all(info.shape[:1] == (None,) for info in (*signature.inputs, *signature.outputs)) else 1
        ends = signature.write(work / "signature.json")
        np.savez(given, *[np.concatenate([feeds[info.name]] * copies) for info in signature.inputs])
        _run(model, _RUN, [str(converted), str(ends), str(given)], result, work)
        with np.load(result, allow_pickle=False) as arrays:
            answers = [array[: len(array) // copies] for array in arrays.values()]
        return {info.name: array for info, array in zip(signature.outputs, answers, strict=True)}

    check_stage(model, signature, answer, "MNN's converter", precision)


def _answer(network: str, signature: str, feeds: str, result: Path) -> None:
    """Write what a converted network answers, output by output."""
    ends = Signature.read(Path(signature))
    with muted(), translate(BuildError, "MNN can't run what it converted"):
        config = {"backend": "CPU", "numThread": 1, "precision": "high"}
        interpreter = MnnInterpreter(require("MNN", INSTALL), network, ends, config)
        with np.load(feeds, allow_pickle=False) as arrays:
            answers = interpreter.run({info.name: arrays[f"arr_{index}"] for index, info in enumerate(ends.inputs)})
    np.savez(result, *[answers[info.name] for info in ends.outputs])


def _quantize(model: Model, converted: Path, signature: Signature, calibration: CalibrationData, work: Path) -> Path:
    """Return the file in int8, by Plimsoll's ranges where there are some, else by MNN's own calibrator; its heads stay
    in float."""
    if not calibration.ranges and calibration.method not in CALIBRATORS:
        raise BuildError(f"MNN has no calibrator '{calibration.method}'", f"It has: {', '.join(CALIBRATORS)}.")
    if len(signature.inputs) != 1:
        raise BuildError(
            f"{model.source}: it has {len(signature.inputs)} inputs; only networks with one can be calibrated",
            "Use mnn:cpu:int8_weights.",
        )
    if len(calibration.tensors) == 0:
        raise BuildError(f"{model.source}: no calibration pictures", "Give at least one.")
    name = names.stored(signature.inputs[0].name, "input", 0)
    tool = _Quantizer(model, converted, name, calibration.tensors, work)
    if calibration.ranges:
        return _with_ranges(tool, calibration.ranges)
    if calibration.method == "ema":
        # The network that it writes can't be saved from its grids: where values are added up it has no place for one.
        with translate(BuildError, f"{model.source}: what MNN's quantizer wrote can't be read"):
            ranges = grids.ranges_of(
                Graph.read(tool.run("EMA", "MAX_ABS", _MOST_PICTURES["EMA"])), Graph.read(converted)
            )
        return _with_ranges(tool, ranges)
    feature, weight = CALIBRATORS[calibration.method]
    return _settled(model, tool.run(feature, weight, _MOST_PICTURES[feature]), _own_names(model), {})


def _with_ranges(tool: _Quantizer, ranges: Mapping[str, grids.Range]) -> Path:
    """Have MNN's tool quantize the weights and lay out the network, for which the least calibration will do; then
    replace its ranges."""
    try:
        quantized = tool.run("KL", "MAX_ABS", _GAPS)
    except BuildError:  # Its KL ends in a segmentation fault on some networks where its ADMM doesn't.
        quantized = tool.run("ADMM", "MAX_ABS", 1)
    return _settled(tool.model, quantized, ranges, ranges)


def _own_names(model: Model) -> set[str]:
    """Return the names of the network's own tensors; those that MNN adds are not among them."""
    proto = onnx_graph.load(model)
    names.make_plain(proto)
    return {name for node in proto.graph.node for name in node.output} | {value.name for value in proto.graph.input}


def _settled(model: Model, path: Path, known: Collection[str], ranges: Mapping[str, grids.Range]) -> Path:
    graph = Graph.read(path)
    with translate(BuildError, f"{model.source}: what MNN's quantizer wrote can't be read"):
        in_int8 = grids.settle(graph, known, ranges)
    if not in_int8:
        raise BuildError(
            f"{model.source}: MNN's quantizer left all of it in float",
            "Use another calibrator, mnn:cpu:int8_weights, or another runtime.",
        )
    graph.write(path)
    return path


@dataclass(frozen=True)
class _Quantizer:
    """MNN's quantizer, with what it works on."""

    model: Model
    network: Path
    input: str
    tensors: NDArray[Any]
    work: Path

    def run(self, feature: str, weight: str, most: int) -> Path:
        """Quantize all but the heads, with so many pictures at most; raises BuildError."""
        pictures = self.tensors[:most]
        batch = len(pictures) if feature == "ADMM" else 1  # It reads one batch alone, and pictures one after another.
        folder = self.work / f"{feature}-{weight}"
        _write_samples(folder / "samples", self.input, pictures, batch)
        config = {
            "path": f"{folder / 'samples'}/",
            "input_type": "sequence",
            "used_sample_num": len(pictures) // batch,
            "feature_quantize_method": feature,
            "weight_quantize_method": weight,
            "batch_size": 1,
            "skip_quant_op_names": [operator.name for operator in Graph.read(self.network).in_float()],
        }
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        quantized = folder / "network.mnn"
        _run(
            self.model, "mnnquant", [str(self.network), str(quantized), str(folder / "config.json")], quantized, folder
        )
        shutil.rmtree(folder / "samples")
        return quantized


def _write_samples(folder: Path, name: str, tensors: Any, batch: int) -> None:
    """Write what the network reads, as MNN's tool takes it: a folder a sample, with the shape in JSON and the values as
    text.

    Its other way, a folder of pictures with a mean and a scale, knows one resize and one layout, [N, C, H, W].
    """
    for number in range(0, len(tensors) - batch + 1, batch):
        sample = np.ascontiguousarray(tensors[number : number + batch])
        sample_folder = folder / f"{number:06d}"
        values = sample_folder / f"{name}.txt"  # A plain name may hold a slash: MNN then looks in a folder below.
        values.parent.mkdir(parents=True)
        np.savetxt(values, sample.reshape(1, -1), fmt="%.9g")
        (sample_folder / "input.json").write_text(
            json.dumps({"inputs": [{"name": name, "shape": list(sample.shape)}]}), encoding="utf-8"
        )
