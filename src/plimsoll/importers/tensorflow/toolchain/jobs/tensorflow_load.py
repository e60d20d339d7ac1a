"""Load a file of TensorFlow or Keras: its frozen graph, what goes in and comes out by name, and how it answers as it
was loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import keras_files
import tensorflow as tf
import tf_keras
from google.protobuf.message import DecodeError
from plimsoll_job import RefusedError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow_graph import answer, choose, full, node_of, refuse_what_reaches_out

TENSORFLOW = f"TensorFlow {tf.__version__}"
Answer = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Loaded:
    """A network, loaded."""

    graph: Any
    """The GraphDef with the weights as constants, in inference mode."""
    inputs: dict[str, str]
    """The graph's tensors (`x:0`) by the names that the source gives its inputs."""
    outputs: dict[str, str]
    answer: Answer
    """Computes the outputs as the source was loaded, by name, in NumPy arrays."""
    framework: str = TENSORFLOW
    notes: tuple[str, ...] = ()


def load(kind: str, path: Path, request: dict[str, Any]) -> Loaded:
    """Load a file of a kind: keras, savedmodel, frozen or checkpoint."""
    kinds = {"keras": load_keras, "savedmodel": load_savedmodel, "frozen": load_frozen, "checkpoint": load_checkpoint}
    return kinds[kind](path, request)


def load_keras(path: Path, request: dict[str, Any]) -> Loaded:
    """Load a .keras file, or an .h5 file with the architecture in it, of Keras 3 or 2."""
    keras_files.check(path, request["trust"])
    model, framework = _keras_model(path, request["trust"])
    if not getattr(model, "inputs", None):
        raise RefusedError(
            "it is a subclassed model without fixed inputs", "Export it as a SavedModel: model.export(folder)."
        )
    names, results = keras_files.names(model.inputs), keras_files.names(tf.nest.flatten(model.outputs))

    def call(*tensors: Any) -> list[Any]:
        flat: list[Any] = tf.nest.flatten(model(list(tensors) if len(tensors) > 1 else tensors[0], training=False))
        return flat

    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in zip(names, model.inputs, strict=True)
    ]
    frozen = _freeze(tf.function(call, input_signature=signature).get_concrete_function())
    graph = frozen.graph.as_graph_def()
    refuse_what_reaches_out(graph, request["trust"])
    return _selected(
        Loaded(
            graph,
            {name: tensor.name for name, tensor in zip(names, frozen.inputs, strict=True)},
            {name: tensor.name for name, tensor in zip(results, frozen.outputs, strict=True)},
            lambda feeds: {
                name: tensor.numpy()
                for name, tensor in zip(results, call(*(tf.constant(feeds[name]) for name in names)), strict=True)
            },
            framework,
        ),
        request,
    )


def _keras_model(path: Path, trust: bool) -> tuple[Any, str]:
    """Load with Keras 3; what that no longer reads, with Keras 2."""
    trouble = (TypeError, ValueError, KeyError, AttributeError, ImportError)
    try:
        return keras.models.load_model(
            path, compile=False, safe_mode=not trust
        ), f"{TENSORFLOW} with Keras {keras.__version__}"
    except trouble as error:
        text = " ".join(str(error).split())
    try:
        return tf_keras.models.load_model(
            path, compile=False, safe_mode=not trust
        ), f"{TENSORFLOW} with Keras {tf_keras.__version__}"
    except trouble as error:
        raise RefusedError(
            f"Keras {keras.__version__} can't load it: {text[:400]}",
            "Save it again with Keras 3, or export it as a SavedModel.",
        ) from error


def load_savedmodel(path: Path, request: dict[str, Any]) -> Loaded:
    """Load a SavedModel folder, of TensorFlow 1 or 2, through its serving signature."""
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((path / "saved_model.pb").read_bytes())
    for meta in proto.meta_graphs:
        refuse_what_reaches_out(meta.graph_def, request["trust"])
    model = tf.saved_model.load(str(path))
    signatures = dict(model.signatures)
    if not signatures:
        raise RefusedError(
            "it has no signature to answer with",
            "Export it again with one: model.export(folder), or tf.saved_model.save(…, signatures=…).",
        )
    key = "serving_default" if "serving_default" in signatures else next(iter(signatures))
    if key != "serving_default" and len(signatures) > 1:
        raise RefusedError(
            f"it has {len(signatures)} signatures and none is serving_default: {', '.join(signatures)}",
            "Export it again with that one alone.",
        )
    function = signatures[key]
    frozen = _freeze(function)
    specs, results = function.structured_input_signature[1], sorted(function.structured_outputs)
    names = list(getattr(function, "_arg_keywords", None) or sorted(specs))
    fed = {name: tensor.name for name, tensor in zip(names, frozen.inputs, strict=True)}
    return _selected(
        Loaded(
            frozen.graph.as_graph_def(),
            fed,
            {name: tensor.name for name, tensor in zip(results, frozen.outputs, strict=True)},
            lambda feeds: {
                name: value.numpy()
                for name, value in function(**{key: tf.constant(feed) for key, feed in feeds.items()}).items()
            },
            notes=(f"answers with its signature '{key}'",),
        ),
        request,
    )


def _freeze(function: Any) -> Any:
    return convert_variables_to_constants_v2(function, lower_control_flow=False)


def _selected(loaded: Loaded, request: dict[str, Any]) -> Loaded:
    """Keep the outputs that were asked for; all inputs of such a network have to be fed."""
    wanted_inputs, wanted_outputs = request["inputs"], request["outputs"]
    for what, names, there in (("input", wanted_inputs, loaded.inputs), ("output", wanted_outputs, loaded.outputs)):
        for name in names:
            if name not in there:
                raise RefusedError(f"it has no {what} '{name}'", f"Its {what}s: {', '.join(there)}.")
    if wanted_inputs and set(wanted_inputs) != set(loaded.inputs):
        raise RefusedError(
            f"all its inputs have to be fed: {', '.join(loaded.inputs)}",
            "Leave --inputs out; to cut it inside, freeze it first with --keep.",
        )
    outputs = {name: loaded.outputs[name] for name in wanted_outputs or loaded.outputs}
    return replace(
        loaded,
        outputs=outputs,
        answer=lambda feeds: {name: value for name, value in loaded.answer(feeds).items() if name in outputs},
    )


def load_frozen(path: Path, request: dict[str, Any]) -> Loaded:
    """Load a frozen graph."""
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise RefusedError(
            "it is no frozen TensorFlow graph", "Expected a binary GraphDef. Of a SavedModel, give the folder."
        ) from error
    if not graph.node:
        raise RefusedError("it is an empty graph, or no TensorFlow graph")
    variables = [node.name for node in graph.node if node.op in {"Variable", "VariableV2", "VarHandleOp"}]
    if variables:
        raise RefusedError(
            f"it is not frozen: '{variables[0]}' is a variable", "Give the checkpoint (.meta) that its weights are in."
        )
    return _between(graph, lambda cut, fed, results: lambda feeds: answer(cut, fed, results, feeds), request)


def _between(
    graph: Any, answering: Callable[[Any, dict[str, str], dict[str, str]], Answer], request: dict[str, Any]
) -> Loaded:
    cut, fed, results, notes = choose(graph, request["inputs"], request["outputs"])
    refuse_what_reaches_out(cut, request["trust"])
    return Loaded(cut, fed, results, answering(cut, fed, results), notes=tuple(notes))


def load_checkpoint(path: Path, request: dict[str, Any]) -> Loaded:
    """Load a TensorFlow 1 checkpoint by its .meta file: the graph from there, the weights from beside it."""
    prefix = str(path.with_suffix(""))
    meta = tf.compat.v1.MetaGraphDef()
    meta.ParseFromString(path.read_bytes())
    refuse_what_reaches_out(meta.graph_def, request["trust"])
    inputs, outputs = _signature(meta, request)
    with tf.Graph().as_default() as graph:
        saver = tf.compat.v1.train.import_meta_graph(meta, clear_devices=True)
        if saver is None:
            raise RefusedError(
                "its graph says nothing of how its weights were saved", "Save it again with tf.compat.v1.train.Saver()."
            )
        chosen, fed, results, notes = choose(graph.as_graph_def(), inputs, outputs)
        with tf.compat.v1.Session(graph=graph) as session:
            saver.restore(session, prefix)
            frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), [node_of(tensor) for tensor in results.values()]
            )
    switches = {f"{node.name}:0": node for node in chosen.node if node.op == "Const"}
    cut, fed, results, _ = choose(frozen, [*fed.values()], [*results.values()])

    def restored(feeds: dict[str, Any]) -> dict[str, Any]:
        """Answer with the graph and its variables as they were saved."""
        with tf.Graph().as_default() as graph:
            again = tf.compat.v1.train.import_meta_graph(meta, clear_devices=True)
            placeholders = [f"{node.name}:0" for node in graph.as_graph_def().node if node.op.startswith("Placeholder")]
            fixed = {
                name: tf.make_ndarray(switches[name].attr["value"].tensor) for name in placeholders if name in switches
            }
            with tf.compat.v1.Session(graph=graph) as session:
                again.restore(session, prefix)
                values = session.run([*results.values()], fixed | {fed[name]: value for name, value in feeds.items()})
        return dict(zip(results, values, strict=True))

    return Loaded(cut, fed, results, restored, notes=tuple(notes))


def _signature(meta: Any, request: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the inputs and outputs that were asked for, else those of the graph's own signature, else nothing: then
    they are found."""
    inputs, outputs = [full(name) for name in request["inputs"]], [full(name) for name in request["outputs"]]
    if "serving_default" not in meta.signature_def:
        return inputs, outputs
    own = meta.signature_def["serving_default"]
    return inputs or [tensor.name for tensor in own.inputs.values()], outputs or [
        tensor.name for tensor in own.outputs.values()
    ]
