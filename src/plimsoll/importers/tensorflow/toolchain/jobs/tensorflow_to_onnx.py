"""Any file of TensorFlow or Keras → ONNX, with what TensorFlow answers to a probe.

Whatever the file is, it becomes a frozen graph first: one GraphDef whose weights are constants. That is folded by
TensorFlow's own optimizer and converted by tf2onnx; the answers come from the network as it was loaded, before all
that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from plimsoll_job import RefusedError
from tensorflow.python.tools import optimize_for_inference_lib
from tensorflow_graph import answer, check_inference, fix_placeholders, keep_reachable, node_of
from tensorflow_load import Loaded, load

_OPSET = 17
_CONTRASTS = (1.0, 0.3, 0.1)  # A strong input may saturate a softmax, which then hides every difference.
_FREE_SIDE = 224
_FREE_LENGTH = 16
_PATCHES = 6


def run(request: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    loaded = load(request["kind"], inputs["model"], request)
    graph, shapes = fix_placeholders(loaded.graph, loaded.inputs, request["input_shapes"], request["batch"])
    check_inference(graph)
    feeds = _feeds(loaded, shapes)
    answers = _answers(loaded, feeds)
    np.savez(
        out / "probe.npz",
        **{f"feed {name}": value for name, value in feeds.items()},
        **{f"answer {name}": value for name, value in answers.items()},
    )
    folded = keep_reachable(_fold(graph, loaded), loaded.outputs.values())
    notes = list(loaded.notes)
    if request["keep"]:
        (out / "frozen.pb").write_bytes(folded.SerializeToString())
        notes.append(_check_frozen(folded, loaded, feeds, answers))
    _write(graph, loaded, shapes, out / "model.onnx")
    return {"framework": loaded.framework, "notes": notes}


def _feeds(loaded: Loaded, shapes: dict[str, list[int | None]]) -> dict[str, Any]:
    """Make the tensors of the probe: patches and noise, since noise alone looks the same to a network that averages; -1
    … 1, or the range of a byte."""
    random = np.random.default_rng(20261122)
    feeds = {}
    for name, tensor in loaded.inputs.items():
        dtype = tf.as_dtype(next(node for node in loaded.graph.node if node.name == node_of(tensor)).attr["dtype"].type)
        if not (dtype.is_floating or dtype.is_integer):
            raise RefusedError(
                f"its input '{name}' is {dtype.name}",
                "Networks that take numbers can be imported; name another input with --inputs.",
            )
        shape = [_size(axis, len(shapes[name])) if size is None else size for axis, size in enumerate(shapes[name])]
        values = 0.7 * random.uniform(-1, 1, [min(size, _PATCHES) for size in shape])
        for axis, size in enumerate(shape):
            values = np.repeat(values, -(-size // values.shape[axis]), axis).take(range(size), axis)
        values += 0.3 * random.uniform(-1, 1, shape)
        if shape and shape[0] == len(_CONTRASTS):
            values *= np.reshape(_CONTRASTS, [-1] + [1] * (len(shape) - 1))
        if dtype.is_integer:
            values = (values + 1) / 2 * (255 if dtype == tf.uint8 else 99)
        feeds[name] = values.astype(dtype.as_numpy_dtype)
    return feeds


def _size(axis: int, rank: int) -> int:
    """Choose a size for a free axis: a picture's sides in a tensor of rank 4."""
    return len(_CONTRASTS) if axis == 0 else _FREE_SIDE if rank == 4 else _FREE_LENGTH


def _answers(loaded: Loaded, feeds: dict[str, Any]) -> dict[str, Any]:
    """Let the network answer; where it draws random numbers, twice: one that then answers otherwise is training, or
    means to be random."""
    first = loaded.answer(feeds)
    if not any("Random" in node.op or "Multinomial" in node.op for node in loaded.graph.node):
        return first
    second = loaded.answer(feeds)
    for name, value in first.items():
        if not np.allclose(value, second[name], rtol=1e-4, atol=1e-6, equal_nan=True):
            raise RefusedError(
                f"its answer '{name}' is another one each time: it is in training mode, or random by design",
                "Save it in inference mode.",
            )
    return first


def _fold(graph: Any, loaded: Loaded) -> Any:
    """Fold constants, and batch normalization into the convolution before it."""
    names = [*loaded.inputs.values()], [*loaded.outputs.values()]
    with tf.Graph().as_default():
        tf.import_graph_def(graph, name="")
        folded = tf2onnx.tf_loader.tf_optimize(*names, graph)
    return optimize_for_inference_lib.fold_batch_norms(folded)


def _check_frozen(graph: Any, loaded: Loaded, feeds: dict[str, Any], answers: dict[str, Any]) -> str:
    """Hold the frozen graph that is kept against the network that it was made from, and say how far it lies off."""
    stored = answer(graph, loaded.inputs, loaded.outputs, feeds)
    apart = max(
        float(np.abs(stored[name] - answers[name]).max() / max(float(np.abs(answers[name]).max()), 1e-6))
        for name in answers
    )
    if not apart < 1e-4:
        raise ValueError(f"the folded graph answers otherwise than the network: {apart:.1e} of the largest value")
    return (
        f"kept frozen and folded, {len(graph.node)} nodes; inputs {', '.join(loaded.inputs.values())}, outputs"
        f" {', '.join(loaded.outputs.values())}; it differs from the network by {apart:.1e} of the largest value"
    )


def _write(graph: Any, loaded: Loaded, shapes: dict[str, list[int | None]], file: Path) -> None:
    """Convert the graph and give inputs and outputs their names, and the free batch axis one name."""
    renamed = {tensor: name for names in (loaded.inputs, loaded.outputs) for name, tensor in names.items()}
    proto, _ = tf2onnx.convert.from_graph_def(
        graph,
        name="model",
        input_names=[*loaded.inputs.values()],
        output_names=[*loaded.outputs.values()],
        opset=_OPSET,
        tensors_to_rename=renamed,
    )
    custom = sorted({node.op_type for node in proto.graph.node if node.domain not in ("", "ai.onnx", "ai.onnx.ml")})
    if custom:
        raise RefusedError(f"ONNX has no operator for {', '.join(custom)}", "Name outputs before it with --outputs.")
    free = {name for name, shape in shapes.items() if shape[0] is None}
    for value in (*proto.graph.input, *proto.graph.output):
        axes = value.type.tensor_type.shape.dim
        if axes and not axes[0].HasField("dim_value") and free:
            axes[0].dim_param = "N"
    onnx.save_model(proto, file)
