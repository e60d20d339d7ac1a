"""GraphDefs: find what goes in and what comes out, cut, fix shapes, refuse what doesn't belong into a network for
answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf
from plimsoll_job import RefusedError
from tensorflow.python.tools import strip_unused_lib

_REACHES_OUT = frozenset(
    {
        "PyFunc",
        "PyFuncStateless",
        "EagerPyFunc",
        "ReadFile",
        "WriteFile",
        "MatchingFiles",
        "WholeFileReaderV2",
        "PrintV2",
        "Print",
        "Save",
        "DecodeProtoV2",
    }
)
"""Operators that run Python or touch the user's files: a picture network has no use for them."""
_NO_ANSWER = frozenset(
    {
        "NoOp",
        "Const",
        "Assert",
        "Assign",
        "AssignVariableOp",
        "SaveV2",
        "RestoreV2",
        "Placeholder",
        "PlaceholderWithDefault",
    }
)
_NO_ANSWER_PARTS = ("Summary", "Gradient", "Apply", "Queue", "Iterator")
_PLACEHOLDERS = ("Placeholder", "PlaceholderWithDefault", "PlaceholderV2")
_KEEP_PROBABILITY = ("keep_prob", "keep_probability", "dropout_keep_prob")


def node_of(tensor: str) -> str:
    """Return the name of the node that an input of a node, or a tensor's name, means."""
    return tensor.lstrip("^").partition(":")[0]


def full(name: str) -> str:
    """Return a tensor's name with its number, as in `logits:0`."""
    return name if ":" in name else f"{name}:0"


def short(tensor: str) -> str:
    """Return a tensor's name as people write it: without the number if that is 0."""
    return tensor.removesuffix(":0")


def refuse_what_reaches_out(graph: Any, trust: bool) -> None:
    """Refuse a graph that would run Python code or touch files, unless its author is trusted."""
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    reaching = sorted({node.op for node in nodes} & _REACHES_OUT)
    if reaching and not trust:
        raise RefusedError(
            f"it runs code or touches files when it answers ({', '.join(reaching)})",
            "If you trust its author like that of a program: --trust.",
        )


def keep_reachable(graph: Any, outputs: Iterable[str]) -> Any:
    """Return the part of a graph that the outputs need."""
    return tf.compat.v1.graph_util.extract_sub_graph(graph, [node_of(name) for name in outputs])


def choose(graph: Any, inputs: list[str], outputs: list[str]) -> tuple[Any, dict[str, str], dict[str, str], list[str]]:
    """Find the inputs and outputs of a graph, or take those that were asked for; returns the part between them, both by
    name, and notes."""
    nodes = {node.name: node for node in graph.node}
    for name in (*inputs, *outputs):
        if node_of(name) not in nodes:
            raise RefusedError(
                f"it has no tensor '{short(name)}'",
                f"Its placeholders: {_named(_placeholders(graph))}; what nothing else reads: {_named(_leaves(graph))}.",
            )
    chosen = [full(name) for name in outputs] or _the_output(graph)
    cut = keep_reachable(graph, chosen)
    if inputs:
        cut = strip_unused_lib.strip_unused(
            cut, [node_of(name) for name in inputs], [node_of(name) for name in chosen], _types(graph, inputs)
        )
    cut, notes = _fix_switches(cut)
    fed = [full(name) for name in inputs] or [f"{name}:0" for name in _placeholders(cut)]
    if not fed:
        raise RefusedError(
            "it has no placeholder that its output depends on",
            f"Name its input with --inputs. Its first nodes: {_named(list(nodes)[:10])}.",
        )
    if not inputs or not outputs:
        notes.append(f"found inputs {_named(fed)} and outputs {_named(chosen)}")
    return cut, {short(name): name for name in fed}, {short(name): name for name in chosen}, notes


def fix_placeholders(
    graph: Any, inputs: Mapping[str, str], given: Mapping[str, list[int | None]], batch: int | None
) -> tuple[Any, dict[str, list[int | None]]]:
    """Give the inputs the shapes that the user named, and a fixed batch; return the graph and every input's shape."""
    unknown = sorted(set(given) - set(inputs))
    if unknown:
        raise RefusedError(f"it has no input '{unknown[0]}'", f"Its inputs: {_named(list(inputs))}.")
    fixed = tf.compat.v1.GraphDef()
    fixed.CopyFrom(graph)
    shapes: dict[str, list[int | None]] = {}
    names = {node_of(tensor): name for name, tensor in inputs.items()}
    for node in fixed.node:
        node.attr.pop("_output_shapes", None)  # They would contradict a shape that is given.
        if node.name in names:
            name = names[node.name]
            shapes[name] = _shape(node, name, given.get(name), batch)
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(shapes[name]).as_proto())
    return fixed, {name: shapes[name] for name in inputs}


def _shape(node: Any, name: str, given: list[int | None] | None, batch: int | None) -> list[int | None]:
    known = tf.TensorShape(node.attr["shape"].shape) if node.attr["shape"].HasField("shape") else tf.TensorShape(None)
    if given is not None and not known.is_compatible_with(given):
        raise RefusedError(f"its input '{name}' has the shape {_written(known.as_list())}, given was {_written(given)}")
    if given is None and known.rank is None:
        raise RefusedError(
            f"its input '{name}' has no shape in the file", f"Give one, for example --shape {name}=N,224,224,3"
        )
    shape: list[int | None] = list(given) if given is not None else known.as_list()
    if batch is not None and shape:
        shape[0] = batch
    return shape


def _written(shape: list[int | None]) -> str:
    return f"[{', '.join('N' if size is None else str(size) for size in shape)}]"


def check_inference(graph: Any) -> None:
    """Refuse a graph that was saved as it trains, and normalizes by its own batch."""
    training = [node.name for node in graph.node if node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b]
    if training:
        raise RefusedError(
            f"it was saved in training mode: '{training[0]}' normalizes by what is in the batch",
            "Save it in inference mode (is_training=False).",
        )


def answer(
    graph: Any, inputs: Mapping[str, str], outputs: Mapping[str, str], feeds: Mapping[str, Any]
) -> dict[str, Any]:
    """Let TensorFlow compute a frozen graph."""
    with tf.Graph().as_default() as loaded:
        tf.import_graph_def(graph, name="")
        with tf.compat.v1.Session(graph=loaded) as session:
            values = session.run([*outputs.values()], {inputs[name]: value for name, value in feeds.items()})
    return dict(zip(outputs, values, strict=True))


def _the_output(graph: Any) -> list[str]:
    leaves = _leaves(graph)
    if len(leaves) != 1:
        raise RefusedError(
            f"it has {len(leaves)} tensors that could be its answer: {_named(leaves)}", "Say which with --outputs."
        )
    return [f"{leaves[0]}:0"]


def _leaves(graph: Any) -> list[str]:
    """Return the nodes that nothing reads and that depend on a placeholder for numbers: what a network is for."""
    read = {node_of(name) for node in graph.node for name in node.input}
    fed = {
        node.name
        for node in graph.node
        if node.op in _PLACEHOLDERS and node.attr["dtype"].type != tf.string.as_datatype_enum and _switch(node) is None
    }
    for node in _in_order(graph):
        if any(node_of(name) in fed for name in node.input):
            fed.add(node.name)
    return [
        node.name
        for node in graph.node
        if node.name in fed
        and node.name not in read
        and node.op not in _NO_ANSWER
        and not any(part in node.op for part in _NO_ANSWER_PARTS)
    ]


def _in_order(graph: Any) -> list[Any]:
    """Return the nodes, each after those that it reads; nodes of loops come in any order."""
    nodes = {node.name: node for node in graph.node}
    done: dict[str, Any] = {}
    stack = list(reversed(graph.node))
    opened: set[str] = set()
    while stack:
        node = stack[-1]
        missing = (
            []
            if node.name in opened
            else [nodes[node_of(name)] for name in node.input if node_of(name) in nodes and node_of(name) not in done]
        )
        opened.add(node.name)
        if missing:
            stack += [node for node in missing if node.name not in opened]
        else:
            done[stack.pop().name] = node
    return list(done.values())


def _placeholders(graph: Any) -> list[str]:
    return [node.name for node in graph.node if node.op in _PLACEHOLDERS]


def _types(graph: Any, inputs: list[str]) -> dict[str, int] | int:
    """Return the element type of each input, as `strip_unused` wants it."""
    with tf.Graph().as_default() as loaded:
        tf.import_graph_def(graph, name="")
        types = {node_of(name): loaded.get_tensor_by_name(full(name)).dtype.as_datatype_enum for name in inputs}
    return types if len(inputs) > 1 else types[node_of(inputs[0])]


def _fix_switches(graph: Any) -> tuple[Any, list[str]]:
    """Set the switches of training (a single truth value, the share that dropout keeps) to what they are for
    answers."""
    notes, keeps_all, fixed = [], False, tf.compat.v1.GraphDef()
    fixed.CopyFrom(graph)
    for node in fixed.node:
        value = _switch(node) if node.op in _PLACEHOLDERS else None
        if value is not None:
            notes.append(f"the input '{node.name}' is set to {value}")
            keeps_all |= value == 1.0
            _make_constant(node, value, node.attr["dtype"].type)
    for node in fixed.node if keeps_all else ():
        # Dropout that keeps everything compares its draws, 0 … 1, with 0 or adds 1 and rounds down: any draw gives the
        # same, so one number will do.
        if node.op == "RandomUniform":
            _make_constant(node, 0.0, node.attr["dtype"].type)
    return fixed, notes


def _make_constant(node: Any, value: float, dtype: int) -> None:
    node.op = "Const"
    node.ClearField("input")
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype, []))


def _switch(node: Any) -> bool | float | None:
    dtype, rank = tf.as_dtype(node.attr["dtype"].type), tf.TensorShape(node.attr["shape"].shape).rank
    if dtype == tf.bool:
        return False
    if dtype.is_floating and rank in (0, None) and node.name.rpartition("/")[2].lower() in _KEEP_PROBABILITY:
        return 1.0
    return None


def _named(names: list[str]) -> str:
    listed = ", ".join(f"'{short(name)}'" for name in names[:12])
    return f"{listed} and {len(names) - 12} more" if len(names) > 12 else listed or "none"
