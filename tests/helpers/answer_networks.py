"""Networks that see red and blue rectangles on a dark ground and say so in the form of each task: three convolutions,
soft masks of both colours, and from these classes, boxes, points or masks. And drawn pictures of such rectangles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

from plimsoll.core.model import Model
from plimsoll.spec import Spec
from plimsoll.spec.files import validate

SIDE = 48
COLOURS = ("red", "blue")

OUTPUTS: dict[str, dict[str, Any]] = {
    "classify": {"task": "classify", "labels": ["red", "blue", "neither"]},
    "detect": {"task": "detect", "head": "yolov8", "labels": list(COLOURS)},
    "landmarks": {"task": "landmarks", "points": 4, "tensor": "points", "presence": "presence"},
    "segment": {"task": "segment", "labels": ["ground", "red", "blue"]},
}
ANSWER = {"classify": "scores", "detect": "head", "landmarks": "points", "segment": "masks"}
"""The output that holds each task's answer."""


def spec_of(task: str, **output: Any) -> Spec:
    steps: list[dict[str, Any]] = [
        {"step": "decode"},
        {"step": "resize", "width": SIDE, "height": SIDE},
        {"step": "scale", "divisor": 255},
        {"step": "layout", "order": "NCHW"},
    ]
    return validate({"name": task, "input": {"steps": steps}, "output": {**OUTPUTS[task], **output}})


def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)


def constant(name: str, value: Any) -> onnx.TensorProto:
    array = np.asarray(value)
    return numpy_helper.from_array(array if array.dtype.kind == "i" else array.astype(np.float32), name)


def network(task: str) -> onnx.ModelProto:
    """Build a task's network: `picture` [N, 3, 48, 48] in 0 … 1."""
    blur = np.full((3, 1, 3, 3), 0.05)
    blur[:, :, 1, 1] = 0.6
    ramp = (np.arange(SIDE) + 0.5).astype(np.float32)
    constants = [
        constant("stem_weights", np.eye(3)[:, :, np.newaxis, np.newaxis]),
        constant("blur_weights", blur),
        constant("colour_weights", 20 * np.array([[1, -0.5, -0.5], [-0.5, -0.5, 1]])[:, :, np.newaxis, np.newaxis]),
        constant("colour_bias", [-6.0, -6.0]),
        constant("x", ramp.reshape(1, 1, 1, SIDE)),
        constant("y", ramp.reshape(1, 1, SIDE, 1)),
        constant("pixels", np.array([2, 3], np.int64)),
        constant("little", 1e-3),
        constant("one", 1.0),
        constant("last", np.array([2], np.int64)),
    ]
    nodes = [
        node("Conv", ["picture", "stem_weights"], "stem"),
        node("Conv", ["stem", "blur_weights"], "blurred", group=3, pads=[1, 1, 1, 1]),
        node("Relu", ["blurred"], "smooth"),
        node("Conv", ["smooth", "colour_weights", "colour_bias"], "colours"),
        node("Sigmoid", ["colours"], "heat"),
        node("ReduceMean", ["heat", "pixels"], "area", keepdims=0),
        node("ReduceSum", ["heat", "pixels"], "sum", keepdims=1),
        node("Add", ["sum", "little"], "mass"),
    ]
    shapes: dict[str, list[Any]] = {ANSWER[task]: {"classify": ["N", 3], "detect": ["N", 6, 2]}.get(task, ["N", 4, 2])}
    if task == "classify":
        constants += [constant("gain", 30.0), constant("rest", [[1.5]]), constant("column", np.array([1], np.int64))]
        nodes += [
            node("Mul", ["area", "gain"], "evidence"),
            node("ReduceSum", ["evidence", "column"], "any", keepdims=1),
            node("Mul", ["any", "little"], "nothing"),
            node("Add", ["nothing", "rest"], "neither"),
            node("Concat", ["evidence", "neither"], "logits", axis=1),
            node("Softmax", ["logits"], "scores", axis=1),
        ]
    if task == "segment":
        shapes = {"masks": ["N", 3, SIDE, SIDE]}
        constants.append(constant("channel", np.array([1], np.int64)))
        nodes += [
            node("ReduceMax", ["heat", "channel"], "shown", keepdims=1),
            node("Sub", ["one", "shown"], "ground"),
            node("Concat", ["ground", "heat"], "masks", axis=1),
        ]
    if task in ("detect", "landmarks"):
        nodes += [*_moments("x"), *_moments("y")]
    if task == "detect":
        constants += [constant("wide", 12**0.5), constant("gain", 40.0), constant("offset", 2.0)]
        constants += [constant("own", np.eye(2)[np.newaxis]), constant("rows", np.array([1], np.int64))]
        nodes += [
            *(node("Mul", [f"{axis}_deviation", "wide"], f"{axis}_size") for axis in "xy"),
            node("Concat", ["x_mean", "y_mean", "x_size", "y_size"], "boxes", axis=1),
            node("Mul", ["area", "gain"], "amount"),
            node("Sub", ["amount", "offset"], "logit"),
            node("Sigmoid", ["logit"], "confidence"),
            node("Unsqueeze", ["confidence", "rows"], "confidences"),
            node("Mul", ["confidences", "own"], "labels"),
            node("Concat", ["boxes", "labels"], "head", axis=1),
        ]
    if task == "landmarks":
        shapes["presence"] = ["N", 1]
        constants += [constant("rows", np.array([1], np.int64))]
        nodes += [
            node("Add", ["x_mean", "x_deviation"], "x_edge"),
            node("Add", ["y_mean", "y_deviation"], "y_edge"),
            node("Concat", ["x_mean", "x_edge"], "all_x", axis=2),
            node("Concat", ["y_mean", "y_edge"], "all_y", axis=2),
            node("Concat", ["all_x", "all_y"], "rows_of_points", axis=1),
            node("Transpose", ["rows_of_points"], "points", perm=[0, 2, 1]),
            node("ReduceMax", ["heat", "all_axes"], "strongest", keepdims=0),
            node("Unsqueeze", ["strongest", "first_column"], "presence"),
        ]
        constants += [constant("all_axes", np.array([1, 2, 3], np.int64))]
        constants += [constant("first_column", np.array([1], np.int64))]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    used = {name for each in nodes for name in each.input}
    needed = [each for each in constants if each.name in used]
    graph = helper.make_graph(nodes, task, [picture], outputs, needed)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _moments(axis: str) -> list[onnx.NodeProto]:
    """Compute the mean position and the standard deviation of both colours along an axis, [N, 1, 2] each."""
    return [
        node("Mul", ["heat", axis], f"{axis}_weighted"),
        node("ReduceSum", [f"{axis}_weighted", "pixels"], f"{axis}_total", keepdims=1),
        node("Div", [f"{axis}_total", "mass"], f"{axis}_centre"),
        node("Sub", [axis, f"{axis}_centre"], f"{axis}_offset"),
        node("Mul", [f"{axis}_offset", f"{axis}_offset"], f"{axis}_squared"),
        node("Mul", ["heat", f"{axis}_squared"], f"{axis}_moments"),
        node("ReduceSum", [f"{axis}_moments", "pixels"], f"{axis}_moment", keepdims=1),
        node("Div", [f"{axis}_moment", "mass"], f"{axis}_variance"),
        node("Sqrt", [f"{axis}_variance"], f"{axis}_root"),
        node("Flatten", [f"{axis}_root"], f"{axis}_flat", axis=1),
        node("Flatten", [f"{axis}_centre"], f"{axis}_centres", axis=1),
        node("Unsqueeze", [f"{axis}_flat", "rows"], f"{axis}_deviation"),
        node("Unsqueeze", [f"{axis}_centres", "rows"], f"{axis}_mean"),
    ]


def saved(proto: onnx.ModelProto, path: Path, spec: Spec) -> Model:
    onnx.save(proto, path)
    return Model(path, "onnx", spec)


def draw(folder: Path, count: int, *, both: bool = True) -> list[Path]:
    """Draw pictures of 96 x 80 pixels with a red and a blue rectangle side by side, one of which is sometimes missing
    unless `both`; the same every time."""
    generator = np.random.default_rng(5)
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(count):
        noise = generator.integers(0, 50, (10, 12, 3), np.uint8)
        image = Image.fromarray(noise).resize((96, 80), Image.Resampling.BILINEAR)
        pencil = ImageDraw.Draw(image)
        colours = [(230, 30, 20), (30, 40, 240)][:: 1 if number % 2 else -1]
        for side, colour in enumerate(colours):
            if both or number % 5 or side:
                x, y = 48 * side + generator.integers(3, 12), generator.integers(4, 30)
                width, height = generator.integers(14, 32), generator.integers(14, 44)
                pencil.rectangle((int(x), int(y), int(x + width), int(y + height)), fill=colour)
        path = folder / f"drawn{number:02}.png"
        image.save(path)
        paths.append(path)
    return paths
