"""TFLite files, read without a runtime and without trust.

A TFLite file is a FlatBuffer (https://github.com/google-ai-edge/LiteRT, `schema.fbs`), perhaps with a zip of labels
behind it. Only its outline is read: what goes in and out, which operators, which numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from plimsoll.core.fit import check_fit
from plimsoll.core.model import Model, Reader, TensorInfo
from plimsoll.errors import ModelError
from plimsoll.spec import Spec
from plimsoll.system.flatbuffer import FlatBuffer, FlatBufferError, Table

INSTALL = "pip install 'plimsoll-line[litert]'"
"""The command that installs LiteRT."""

IDENTIFIER = b"TFL3"
MAX_BYTES = 2**31 - 1
"""FlatBuffers' own limit."""

Precision = Literal["float32", "float16", "dynamic", "int8", "int16x8"]

_PRECISIONS: tuple[Precision, ...] = get_args(Precision)
MARK = "PLIMSOLL_"
"""How the metadata begins that says which precision Plimsoll made a file for."""

_DTYPES = (
    "float32", "float16", "int32", "uint8", "int64", "object", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
)  # fmt: skip
"""By `TensorType`; text is `object`, and what NumPy doesn't know has the schema's name."""
_CUSTOM = 32
_DEQUANTIZE = 6
_CALL_ONCE = 129
_UNSTEADY = {
    144: "ASSIGN_VARIABLE",
    146: "RANDOM_STANDARD_NORMAL",
    148: "RANDOM_UNIFORM",
    149: "MULTINOMIAL",
    204: "STABLEHLO_RNG_BIT_GENERATOR",
}
"""What assigns to a resource, or draws from a generator, both of which live as long as the interpreter."""
_SELECT = "Flex"
"""How the names of TensorFlow's own ("Select") operators begin."""
_DAMAGED = "Was it copied completely? Convert or download it again."


@dataclass(frozen=True)
class TfliteTensor:
    """A tensor of the main graph, as the file describes it."""

    name: str
    shape: tuple[int | None, ...]
    """None for a free size."""
    dtype: str
    scales: tuple[float, ...] = ()
    """The real value of a step, one for all or one a channel; none where the numbers mean themselves."""
    zero_points: tuple[int, ...] = ()
    stored: bool = False
    """Whether its values lie in the file."""

    @property
    def quantized(self) -> bool:
        """Whether its integers stand for real values."""
        return bool(self.scales) and self.dtype in {"int8", "uint8", "int16", "int4"}


@dataclass(frozen=True)
class TfliteFile:
    """The outline of a TFLite file."""

    path: Path
    tensors: tuple[TfliteTensor, ...]
    inputs: tuple[TfliteTensor, ...]
    outputs: tuple[TfliteTensor, ...]
    operators: int
    """How many the main graph has."""
    custom: tuple[str, ...]
    """The custom operators that it calls, sorted."""
    read_stored: frozenset[str]
    """Names of the stored tensors that operators other than DEQUANTIZE read."""
    stateful: bool = False
    """Whether operators keep values from call to call (an LSTM its state), which the runtime can reset."""
    shared_state: bool = False
    """Whether an operator reads the state that another one keeps: the order in which they run matters then."""
    unsteady: tuple[str, ...] = ()
    """The operators that make an answer depend on more than its picture, and that nothing resets, sorted."""
    metadata: tuple[str, ...] = ()
    """The names of the metadata in it, for example TFLITE_METADATA."""

    @property
    def select(self) -> tuple[str, ...]:
        """The operators among the custom ones that are TensorFlow's own ("Select", "Flex"), without that prefix."""
        return tuple(name.removeprefix(_SELECT) for name in self.custom if name.startswith(_SELECT))

    @cached_property
    def precision(self) -> Precision:
        """What it computes in. Weights that are only stored as int8, and dequantized before anything reads them, count
        as float32.

        A file that Plimsoll made says it: one that has next to no weights looks the same in float32, float16 and
        dynamic.
        """
        for precision in _PRECISIONS:
            if f"{MARK}{precision}" in self.metadata:
                return precision
        computed = [tensor for tensor in self.tensors if not tensor.stored and tensor.quantized]
        if any(tensor.dtype == "int16" for tensor in computed):
            return "int16x8"
        if computed:
            return "int8"
        stored = [tensor for tensor in self.tensors if tensor.stored]
        if any(tensor.quantized and tensor.name in self.read_stored for tensor in stored):
            return "dynamic"
        return "float16" if any(tensor.dtype == "float16" for tensor in stored) else "float32"

    @property
    def quantized(self) -> bool:
        """Whether any of its integers stand for real values, if only in stored weights."""
        return any(tensor.quantized for tensor in self.tensors)

    def describe_custom(self) -> str:
        """Say which operators LiteRT itself has not, or nothing."""
        own = [name for name in self.custom if not name.startswith(_SELECT)]
        parts = [f"the custom operators {', '.join(own)}"] if own else []
        parts += [f"TensorFlow's own (Select) operators {', '.join(self.select)}"] if self.select else []
        return " and ".join(parts)


def read_file(path: Path) -> TfliteFile:
    """Read the outline of a TFLite file; raises ModelError."""
    try:
        size = path.stat().st_size
        if not path.is_file() or not 8 <= size <= MAX_BYTES:
            raise ModelError(f"{path}: not a TFLite file: it has {size:,} bytes", _DAMAGED)
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: can't read the file: {error.strerror or error}", "Check the path.") from error
    if data[4:8] != IDENTIFIER:
        raise ModelError(
            f"{path}: not a TFLite file: it begins with {data[:8]!r}, expected {IDENTIFIER!r} at the fifth byte",
            "Is this the right file?",
        )
    try:
        return _outline(path, FlatBuffer(data).root())
    except (FlatBufferError, ValueError, IndexError) as error:
        raise ModelError(f"{path}: a damaged TFLite file: {error}", _DAMAGED) from error


def _outline(path: Path, model: Table) -> TfliteFile:
    subgraphs = list(model.tables(2))
    if not subgraphs:
        raise ValueError("it holds no graph")
    codes = [(_operator(code), code.text(1)) for code in model.tables(1)]
    buffers = [bool(buffer.length(0) or buffer.number(1, "uint64")) for buffer in model.tables(4)]
    tensors = tuple(_tensor(table, buffers) for table in subgraphs[0].tables(0))
    custom, read_stored = set(), set()
    for graph in subgraphs:
        for operator in graph.tables(3):
            code, name = codes[operator.number(0, "uint32")]
            if code == _CUSTOM:
                custom.add(name or "without a name")
            if graph is subgraphs[0] and code != _DEQUANTIZE:
                read_stored |= {
                    tensors[index].name for index in operator.numbers(1) if index >= 0 and tensors[index].stored
                }
    inputs, outputs = (tuple(tensors[_checked_index(index)] for index in subgraphs[0].numbers(slot)) for slot in (1, 2))
    metadata = tuple(table.text(0) for table in model.tables(6))
    readers = [count for graph in subgraphs for count in _state_readers(graph)]
    return TfliteFile(
        path,
        tensors,
        inputs,
        outputs,
        subgraphs[0].length(3),
        tuple(sorted(custom)),
        frozenset(read_stored),
        bool(readers),
        max(readers, default=0) > 1,
        tuple(sorted(_unsteady(subgraphs, [code for code, _ in codes]))),
        metadata,
    )


def _state_readers(graph: Table) -> list[int]:
    """Return for each variable tensor of a graph how many of its operators read it."""
    readers = {index: 0 for index, table in enumerate(graph.tables(0)) if table.number(5, "uint8")}
    for operator in graph.tables(3) if readers else ():
        for index in set(operator.numbers(1)) & readers.keys():
            readers[index] += 1
    return list(readers.values())


def _unsteady(subgraphs: list[Table], codes: list[int]) -> set[str]:
    """Return what assigns to resources or draws numbers on every call: what CALL_ONCE runs is done once, before."""
    named = {_UNSTEADY[code]: code for code in codes if code in _UNSTEADY}
    if not named:
        return set()
    operators = [[(codes[entry.number(0, "uint32")], entry) for entry in graph.tables(3)] for graph in subgraphs]
    once = {
        options.number(0)
        for entries in operators
        for code, entry in entries
        if code == _CALL_ONCE and (options := entry.table(4)) is not None
    }
    called = {code for index, entries in enumerate(operators) if index not in once for code, _ in entries}
    return {name for name, code in named.items() if code in called}


def _checked_index(index: int) -> int:
    if index < 0:
        raise ValueError(f"a graph's input or output is tensor {index}")
    return index


def _operator(code: Table) -> int:
    """Return the operator's number: newer files write it as int32, since the byte of older ones has run out."""
    return int(max(code.number(0, "int8"), code.number(3)))


def _tensor(table: Table, buffers: list[bool]) -> TfliteTensor:
    kind = table.number(1, "int8")
    if not 0 <= kind < len(_DTYPES):
        raise ValueError(f"a tensor has the unknown type {kind}")
    free = table.numbers(7) or table.numbers(0)
    quantization = table.table(4)
    return TfliteTensor(
        table.text(3),
        tuple(None if size < 0 else size for size in free),
        _DTYPES[kind],
        quantization.numbers(2, "float32") if quantization else (),
        quantization.numbers(3, "int64") if quantization else (),
        buffers[table.number(2, "uint32")],
    )


class Tflite(Reader):
    """A TFLite file as it is."""

    name = "tflite"
    suffixes = (".tflite", ".lite")

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check the file's outline and whether the Spec fits, and return the Model; raises ModelError or SpecError."""
        file = read_file(path)
        if spec is not None:
            inputs, outputs = ([_presented(tensor) for tensor in side] for side in (file.inputs, file.outputs))
            check_fit(spec, inputs, outputs, path.name)
        return Model(path, self.name, spec)


def _presented(tensor: TfliteTensor) -> TensorInfo:
    """Return a tensor as the session presents it: quantized ones as the float32 that they stand for."""
    return TensorInfo(tensor.name, tensor.shape, "float32" if tensor.quantized else tensor.dtype)
