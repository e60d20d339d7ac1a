"""Caffe's network description: which layers run at inference, what each reads, and the ONNX graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from plimsoll.errors import ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.caffe import layers, window
from plimsoll.importers.caffe.files import Description, LayerSettings, Settings, Weights
from plimsoll.importers.caffe.layer import ANY, MAX_ELEMENTS, Layer, Value
from plimsoll.onnx.writer import GraphWriter, require_names

CONVERTERS: dict[str, Callable[[Layer], list[Value]]] = {
    "AbsVal": layers.simple("Abs"),
    "BatchNorm": layers.batch_norm,
    "Bias": layers.bias,
    "Concat": layers.concat,
    "Convolution": window.convolution,
    "ConvolutionDepthwise": window.convolution,
    "Crop": layers.crop,
    "Deconvolution": window.deconvolution,
    "DepthwiseConvolution": window.convolution,
    "Dropout": layers.same,
    "ELU": layers.elu,
    "Eltwise": layers.eltwise,
    "Flatten": layers.flatten,
    "InnerProduct": layers.inner_product,
    "LRN": window.lrn,
    "PReLU": layers.prelu,
    "Permute": layers.permute,
    "Pooling": window.pooling,
    "Power": layers.power,
    "ReLU": layers.relu,
    "ReLU6": layers.relu6,
    "Reshape": layers.reshape,
    "Scale": layers.scale,
    "Sigmoid": layers.simple("Sigmoid"),
    "Slice": layers.slices,
    "Softmax": layers.softmax,
    "Split": layers.same,
    "TanH": layers.simple("Tanh"),
}
"""How each type of layer is written in ONNX."""

_LEGACY_KINDS = {name.upper(): name for name in [*CONVERTERS, "Silence"]} | {"INNER_PRODUCT": "InnerProduct"}
"""Before 2015 the kinds were written in capitals."""

_HARMLESS = (
    "param", "propagate_down", "blobs_lr", "weight_decay", "include", "exclude", "phase", "top", "bottom", "name",
    "type", "loss_weight", "blob_share_mode",
)  # fmt: skip


@dataclass(eq=False)
class _Step:
    """A layer in the network: which versions of which blobs it reads and writes."""

    name: str
    kind: str
    settings: LayerSettings
    reads: list[int]
    """Which values it reads, by their numbers."""
    writes: list[int]
    blobs: list[str]
    """The names of the blobs that it writes."""


@dataclass
class Network:
    """A network description in execution order; overwriting a blob makes a new value."""

    where: str
    options: ImportOptions
    inputs: dict[int, Value] = field(default_factory=dict)
    steps: list[_Step] = field(default_factory=list)
    _current: dict[str, int] = field(default_factory=dict)
    _readers: dict[int, list[_Step]] = field(default_factory=dict)
    _count: int = 0

    def fail(self, reason: str, hint: str = "Is it the deploy .prototxt, and complete?") -> NoReturn:
        """Raise ModelError for this network."""
        raise ModelError(f"{self.where}: {reason}", hint)

    @classmethod
    def of(cls, description: Description, where: str, options: ImportOptions) -> Network:
        """Read a description; raises ModelError, naming the layer, for one that can't be run, InputError for options
        that don't fit."""
        network = cls(where, options)
        try:
            network._add_inputs(description.net)
            for settings in description.layers:
                network._add(settings)
        except ValueError as error:
            network.fail(f"not a Caffe network description: {error}")
        if not network.inputs or not network.steps:
            missing = "inputs" if not network.inputs else "layers"
            network.fail(
                f"it has no {missing}",
                "Give the deploy .prototxt: it has an Input layer, the one for training reads a database.",
            )
        unknown = sorted({step.kind for step in network.steps if step.kind not in CONVERTERS})
        if unknown:
            network.fail(
                f"unsupported layers: {', '.join(unknown)}",
                f"Supported: {', '.join(CONVERTERS)}.",
            )
        names = [value.name for value in network.inputs.values()]
        require_names([*options.inputs, *options.input_shapes], names, "input", where)
        require_names(options.outputs, network._current, "blob", where)
        return network

    def outputs(self) -> dict[int, str]:
        """Return the values that no layer reads, or those of the chosen blobs, with their blobs' names."""
        if self.options.outputs:
            return {self._current[blob]: blob for blob in self.options.outputs}
        return {
            number: blob
            for blob, number in self._current.items()
            if number not in self._readers and number not in self.inputs
        }

    def lone_reader(self, step: _Step) -> _Step | None:
        """Return the step that alone reads what this one writes; None if there are several, or the value is an
        output."""
        readers = [reader for number in step.writes for reader in self._readers.get(number, [])]
        return readers[0] if len(readers) == 1 and len(step.writes) == 1 and len(readers[0].reads) == 1 else None

    def is_last(self, number: int, blob: str) -> bool:
        """Tell whether a value is its blob's last."""
        return self._current[blob] == number

    def _add_inputs(self, net: Settings) -> None:
        names = net.texts("input")
        shapes = [shape.integers("dim") for shape in net.messages("input_shape")]
        flat = net.integers("input_dim")
        shapes = shapes or [flat[start : start + 4] for start in range(0, len(flat), 4)]
        if len(names) != len(shapes):
            self.fail(f"{len(names)} inputs, but {len(shapes)} input shapes")
        for name, shape in zip(names, shapes, strict=True):
            self._add_input(name, shape)

    def _add_input(self, name: str, shape: list[int]) -> None:
        sizes = [size or 0 for size in self.options.input_shapes.get(name, shape)[1:]]
        total = 1
        for size in sizes:
            total *= size if 0 < size <= MAX_ELEMENTS else MAX_ELEMENTS + 1
        if not sizes or total > MAX_ELEMENTS:
            self.fail(
                f"its input '{name}' has the shape {shape}",
                "Give every size, the batch first: 1, channels, height, width.",
            )
        self.inputs[self._write(name)] = Value(name, (ANY, *sizes))

    def _add(self, settings: LayerSettings) -> None:
        if not _is_for_test(settings):
            return
        name, kind, tops = settings.text("name"), _kind(settings), settings.texts("top")
        if kind == "Input":
            shapes = [shape.integers("dim") for shape in settings.message("input_param").messages("shape")]
            if not shapes or len(shapes) not in (1, len(tops)):
                self.fail(f"the layer '{name}' (Input) has {len(tops)} tops and {len(shapes)} shapes")
            for index, top in enumerate(tops):
                self._add_input(top, shapes[index if len(shapes) > 1 else 0])
            return
        if kind == "Silence":
            return
        reads = []
        for bottom in settings.texts("bottom"):
            if bottom not in self._current:
                self.fail(f"the layer '{name}' ({kind}) reads the blob '{bottom}', which no layer before it makes")
            reads.append(self._current[bottom])
        if not reads or not tops:
            hint = "Give the deploy .prototxt: it has an Input layer, the one for training reads a database."
            self.fail(
                f"the layer '{name}' ({kind}) reads {len(reads)} blobs and writes {len(tops)}; expected one or more"
                " each",
                hint,
            )
        step = _Step(name, kind, settings, reads, [self._write(top) for top in tops], tops)
        for number in reads:
            self._readers.setdefault(number, []).append(step)
        self.steps.append(step)

    def _write(self, blob: str) -> int:
        self._count += 1
        self._current[blob] = self._count
        return self._count


def _kind(settings: LayerSettings) -> str:
    """Return a layer's kind by today's name; before 2015 it was a number."""
    if not settings.is_legacy:
        return settings.text("type")
    kind = settings.choice("type")
    return _LEGACY_KINDS.get(kind, kind)


def _is_for_test(settings: LayerSettings) -> bool:
    """Tell whether a layer runs at inference, by its `include` and `exclude` rules; only phases are supported."""

    def for_test(name: str) -> list[bool]:
        return [not rule.has("phase") or rule.choice("phase") == "TEST" for rule in settings.messages(name)]

    included = for_test("include")
    return (any(included) or not included) and not any(for_test("exclude"))


def write(network: Network, weights: Weights) -> tuple[GraphWriter, list[str]]:
    """Return the network as a graph, and the layers in the weights file that it doesn't have; raises ModelError."""
    graph = GraphWriter(network.where, network.options.batch)
    values = dict(network.inputs)
    for value in network.inputs.values():
        graph.input(value.name, value.shown(graph))
    joined: set[_Step] = set()
    for step in network.steps:
        if step not in joined and (done := _convert(network, step, graph, values, weights)) is not None:
            joined.add(done)
    for number, blob in network.outputs().items():
        graph.output(values[number].name, blob, values[number].shown(graph))
    used = {step.name for step in network.steps}
    return graph, [name for name in weights.names() if name not in used]


def _convert(
    network: Network, step: _Step, graph: GraphWriter, values: dict[int, Value], weights: Weights
) -> _Step | None:
    """Write a layer; a BatchNorm together with the Scale behind it, which is then returned."""
    layer = _layer(network, step, graph, values, weights)
    follower = network.lone_reader(step) if step.kind == "BatchNorm" else None
    scale = (
        _layer(network, follower, graph, values, weights) if follower is not None and follower.kind == "Scale" else None
    )
    try:
        if scale is not None and follower is not None and layers.can_join(scale):
            outputs = layers.normalized(layer, scale)
            _check_settings(scale)
            values[follower.writes[0]] = outputs[0]
        else:
            outputs, follower = CONVERTERS[step.kind](layer), None
    except ValueError as error:
        layer.fail(str(error))
    _check_settings(layer)
    if len(outputs) != len(step.writes):
        layer.fail(f"it writes {len(step.writes)} blobs, expected {len(outputs)}")
    values.update(zip(step.writes, outputs, strict=True))
    return follower


def _layer(network: Network, step: _Step, graph: GraphWriter, values: dict[int, Value], weights: Weights) -> Layer:
    bottoms = [values[number] for number in step.reads if number in values]
    tops = [
        blob if network.is_last(number, blob) else f"{blob}:{step.name}"
        for number, blob in zip(step.writes, step.blobs, strict=True)
    ]
    return Layer(step.name, step.kind, step.settings, bottoms, tops, weights.blobs(step.name), graph)


def _check_settings(layer: Layer) -> None:
    layer.settings.ignore(*_HARMLESS)
    if unknown := layer.settings.unknown():
        layer.fail(
            f"unknown setting: {unknown}",
            "Remove it if it makes no difference; otherwise this layer can't be converted.",
        )
    if unread := layer.settings.unread():
        layer.fail(
            f"unsupported settings: {', '.join(unread)}",
            "Remove them if they make no difference; otherwise this layer can't be converted.",
        )
