"""Networks that find a white rectangle on a dark picture, in the output form of each task; and such pictures, made of
real photographs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

from plimsoll.core.model import Model
from plimsoll.spec.files import validate

_node = helper.make_node
Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; the last row and column lie before y1 and x1."""

_WHITE = 0.7
"""Between what a photograph can still be (0.4) and white; where a rectangle's edge lies on a pixel's, antialiasing
leaves both sides of it."""

_FORMS: dict[str, list[tuple[str, list[Any]]]] = {
    "yolov5": [("answer", ["N", 1, 6])],
    "yolov8": [("answer", ["N", 5, 1])],
    "ssd": [("locations", ["N", 1, 4]), ("scores", ["N", 1, 2])],
    "tflite_postprocess": [
        ("boxes", ["N", 1, 4]),
        ("classes", ["N", 1]),
        ("probabilities", ["N", 1]),
        ("count", ["N"]),
    ],
    "landmarks": [("answer", ["N", 4]), ("presence", ["N", 1])],
    "segment": [("answer", ["N", 2, "h", "w"])],
}
ANCHOR = (0.5, 0.4, 0.25, 0.2)
"""The one anchor of the SSD network: centre y and x, height and width, as fractions."""


def network(path: Path, form: str) -> Path:
    """Write a network from `picture` [N, h, w, 3] in 0…1 to the outputs of a form."""
    constants: dict[str, Any] = {
        "white": np.float32(_WHITE),
        "zero": np.float32(0),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "far": np.float32(1e6),
        "start": np.int64(0),
        "step": np.int64(1),
        "channel": np.array([3], np.int64),
        "rows": np.array([1], np.int64),
        "columns": np.array([2], np.int64),
        "last": np.array([1], np.int64),
        "first": np.array([0], np.int64),
    }
    nodes = [
        _node("ReduceMin", ["picture", "channel"], ["darkest"], keepdims=0),
        _node("Greater", ["darkest", "white"], ["found"]),
        _node("Cast", ["found"], ["mask"], to=TensorProto.FLOAT),
        *_edges("x", 2, "rows"),
        *_edges("y", 1, "columns"),
        _node("Add", ["x0", "x1"], ["x_sum"]),
        _node("Add", ["y0", "y1"], ["y_sum"]),
        _node("Mul", ["x_sum", "half"], ["x_centre"]),
        _node("Mul", ["y_sum", "half"], ["y_centre"]),
        _node("Sub", ["x1", "x0"], ["x_size"]),
        _node("Sub", ["y1", "y0"], ["y_size"]),
        _node("ReduceMax", ["mask", "columns"], ["there_x"], keepdims=0),
        _node("ReduceMax", ["there_x", "last"], ["there"], keepdims=1),
        *_answer(form, constants),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in _FORMS[form]]
    graph = helper.make_graph(
        nodes,
        form,
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", "h", "w", 3])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def _edges(name: str, axis: int, across: str) -> list[onnx.NodeProto]:
    """Compute NAME0 and NAME1, both [N, 1]: the first pixel with something white along an axis, and the one after the
    last; NAME_input is the size."""
    return [
        _node("Shape", ["picture"], [f"{name}_shape"], start=axis, end=axis + 1),
        _node("Squeeze", [f"{name}_shape"], [f"{name}_count"]),
        _node("Cast", [f"{name}_shape"], [f"{name}_input"], to=TensorProto.FLOAT),
        _node("Range", ["start", f"{name}_count", "step"], [f"{name}_whole"]),
        _node("Cast", [f"{name}_whole"], [f"{name}_index"], to=TensorProto.FLOAT),
        _node("ReduceMax", ["mask", across], [f"{name}_line"], keepdims=0),
        _node("Cast", [f"{name}_line"], [f"{name}_there"], to=TensorProto.BOOL),
        _node("Where", [f"{name}_there", f"{name}_index", "far"], [f"{name}_from"]),
        _node("ReduceMin", [f"{name}_from", "last"], [f"{name}0"], keepdims=1),
        _node("Add", [f"{name}_index", "one"], [f"{name}_next"]),
        _node("Where", [f"{name}_there", f"{name}_next", "zero"], [f"{name}_to"]),
        _node("ReduceMax", [f"{name}_to", "last"], [f"{name}1"], keepdims=1),
    ]


def _fractions(**values: str) -> list[onnx.NodeProto]:
    """Divide by the input's size, along x or y as the name begins."""
    return [_node("Div", [value, f"{value[0]}_input"], [name]) for name, value in values.items()]


def _answer(form: str, constants: dict[str, Any]) -> list[onnx.NodeProto]:
    together = {
        "yolov5": ["x_centre", "y_centre", "x_size", "y_size", "there", "there"],
        "yolov8": ["x_centre", "y_centre", "x_size", "y_size", "there"],
        "landmarks": ["x0", "y0", "x1", "y1"],
    }
    if form in together:
        nodes = [_node("Concat", together[form], ["flat" if form != "landmarks" else "answer"], axis=1)]
        if form == "landmarks":
            return [*nodes, _node("Identity", ["there"], ["presence"])]
        return [*nodes, _node("Unsqueeze", ["flat", "rows" if form == "yolov5" else "columns"], ["answer"])]
    if form == "segment":
        nodes = [_node("Sub", ["one", "mask"], ["others"])]
        nodes += [_node("Unsqueeze", [plane, "rows"], [f"{plane}_plane"]) for plane in ("others", "mask")]
        return [*nodes, _node("Concat", ["others_plane", "mask_plane"], ["answer"], axis=1)]
    if form == "tflite_postprocess":
        return [
            *_fractions(a="y0", b="x0", c="y1", d="x1"),
            _node("Concat", ["a", "b", "c", "d"], ["corners"], axis=1),
            _node("Unsqueeze", ["corners", "rows"], ["boxes"]),
            _node("Sub", ["there", "there"], ["classes"]),
            _node("Identity", ["there"], ["probabilities"]),
            _node("Squeeze", ["there", "last"], ["count"]),
        ]
    return _ssd(constants)


def _ssd(constants: dict[str, Any]) -> list[onnx.NodeProto]:
    """Compute locations against ANCHOR as TensorFlow's coder writes them, and logits with the background first."""
    for name, value, scale in zip(("y", "x", "h", "w"), ANCHOR, (10, 10, 5, 5), strict=True):
        constants |= {f"anchor_{name}": np.float32(value), f"scale_{name}": np.float32(scale)}
    constants |= {"gain": np.float32(20), "ten": np.float32(10)}
    nodes = _fractions(fy="y_centre", fx="x_centre", fh="y_size", fw="x_size")
    for name, size in (("y", "h"), ("x", "w")):
        nodes += [
            _node("Sub", [f"f{name}", f"anchor_{name}"], [f"off_{name}"]),
            _node("Div", [f"off_{name}", f"anchor_{size}"], [f"relative_{name}"]),
            _node("Mul", [f"relative_{name}", f"scale_{name}"], [f"t{name}"]),
            _node("Div", [f"f{size}", f"anchor_{size}"], [f"relative_{size}"]),
            _node("Log", [f"relative_{size}"], [f"log_{size}"]),
            _node("Mul", [f"log_{size}", f"scale_{size}"], [f"t{size}"]),
        ]
    return [
        *nodes,
        _node("Concat", ["ty", "tx", "th", "tw"], ["t"], axis=1),
        _node("Unsqueeze", ["t", "rows"], ["locations"]),
        _node("Mul", ["there", "gain"], ["high"]),
        _node("Sub", ["high", "ten"], ["logit"]),
        _node("Neg", ["logit"], ["background"]),
        _node("Concat", ["background", "logit"], ["logits"], axis=1),
        _node("Unsqueeze", ["logits", "rows"], ["scores"]),
    ]


OUTPUTS: dict[str, dict[str, Any]] = {
    "yolov5": {"task": "detect", "head": "yolov5", "labels": ["white"]},
    "yolov8": {"task": "detect", "head": "yolov8", "labels": ["white"]},
    "ssd": {
        "task": "detect",
        "head": "ssd",
        "labels": ["white"],
        "tensors": ["locations", "scores"],
        "normalized": True,
        "activation": "sigmoid",
        "anchors": [ANCHOR],
    },
    "tflite_postprocess": {"task": "detect", "head": "tflite_postprocess", "labels": ["white"]},
    "landmarks": {"task": "landmarks", "points": 2, "tensor": "answer", "presence": "presence"},
    "segment": {"task": "segment", "labels": ["dark", "white"]},
}


def model(folder: Path, form: str, steps: list[dict[str, Any]]) -> Model:
    """Write a network of a form, and return it with its Spec; `steps` are the input steps between decoding and
    scaling."""
    decode, *others = steps
    listed = [decode, *others, {"step": "scale", "divisor": 255}]
    spec = validate({"name": form.replace("_", "-"), "input": {"steps": listed}, "output": OUTPUTS[form]})
    return Model(network(folder / f"{form}.onnx", form), "onnx", spec)


def picture(photo: Path, size: tuple[int, int], rectangle: Rectangle) -> Image.Image:
    """Cut a picture out of a photograph, darken it, and draw the white rectangle into it."""
    image = Image.open(photo).convert("RGB").resize(size).point(lambda level: int(level * 0.4))
    x0, y0, x1, y1 = rectangle
    ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill=(255, 255, 255))
    return image


def encoded(image: Image.Image, format_: str = "PNG", orientation: int = 1) -> bytes:
    """Return a picture's file; the EXIF orientation is only told, the pixels stay as they are."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(
        file,
        format_,
        **({"quality": 98, "subsampling": 0} if format_ == "JPEG" else {}),
        **({"exif": exif} if orientation > 1 else {}),
    )
    return file.getvalue()
