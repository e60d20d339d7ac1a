"""`Calibration`: the range of every tensor that is quantized, as a table that people can read, keep and write, also in
the formats of the runtimes' tools; and `observe`, the one pass of pictures through the float network from which every
calibration method makes its table."""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plimsoll import backends
from plimsoll.backends.calibration_tables import CalibrationTable
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.core.wording import explain
from plimsoll.errors import InputError, ModelError
from plimsoll.onnx import dequantize
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx.graph import Graph
from plimsoll.quantize import bias_correction
from plimsoll.quantize.calibrators import DEFAULT_PERCENTILE, TensorStatistics, check_method, range_of
from plimsoll.quantize.parameters import Symmetry
from plimsoll.quantize.placement import placement_of
from plimsoll.quantize.prepare import is_quantized, prepare
from plimsoll.system import files

MAX_BYTES = 64_000_000
"""A larger file is not read as a calibration table."""

OWN = "plimsoll"
"""The name of Plimsoll's own format, which is JSON."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Calibration(BaseModel):
    """Ranges, and where they come from. Only `ranges` is required: your own table may leave the rest out. Frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["calibration"] = "calibration"
    schema_version: Literal[1] = 1
    model: Sha256 | None = None
    """SHA-256 of the network that it was made with; None fits every network that has these tensors."""
    images: Annotated[int, Field(ge=0)] = 0
    """How many pictures it was made with."""
    digest: Sha256 | None = None
    """SHA-256 of the input tensors that it was made with."""
    method: str = "given"
    parameter: float | None = None
    """The percentile, where the method is `percentile`."""
    symmetry: Symmetry = "auto"
    """The symmetry that the method assumed, and that the network gets."""
    ranges: Annotated[dict[str, tuple[float, float]], Field(min_length=1)]
    """Each tensor's lowest and highest value; values outside are clipped."""
    means: dict[str, tuple[float, ...]] = {}
    """The mean of each channel of what convolutions and products read: their biases are corrected with it."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high) in self.ranges.items():
            if low > high:
                raise ValueError(f"the range of '{name}' is [{low:g}, {high:g}]: its low end lies above its high end")
            if not math.isfinite(max(high, 0.0) - min(low, 0.0)) or max(-low, high) > 1e38:
                raise ValueError(f"the range of '{name}' is [{low:g}, {high:g}], which float32 can't hold")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a table from its JSON file; raises InputError that names what is wrong."""
        try:
            return cls.model_validate_json(files.read_bytes(path, MAX_BYTES))
        except OSError as error:
            raise InputError(f"{path}: can't read the calibration table: {error.strerror}") from error
        except ValidationError as error:
            raise InputError(
                f"{path}: not a calibration table that this version reads: {explain(error, 'the table')}",
                'The least is {"ranges": {"tensor": [low, high]}}.',
            ) from error

    def write(self, path: Path) -> None:
        """Write the table as JSON, one line a tensor; raises InputError where that can't be done."""
        facts = self.model_dump(exclude={"ranges", "means"})
        head = "".join(
            f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in facts.items() if value is not None
        )
        means = f',\n  "means": {{\n{_rows(self.means)}\n  }}' if self.means else ""
        try:
            files.write(path, f'{{\n{head}  "ranges": {{\n{_rows(self.ranges)}\n  }}{means}\n}}\n')
        except OSError as error:
            raise InputError(f"{path}: can't write the calibration table: {error.strerror}") from error

    def check_fit(self, model: Model, tensors: Collection[str]) -> None:
        """Raise ModelError where the table was made for another network than this one and those it was made from, or
        lacks one of these tensors."""
        if self.model is not None and self.model not in {ancestor.sha256 for ancestor in _line(model)}:
            raise ModelError(
                f"{model.source}: the calibration table was made with another network (its SHA-256 begins"
                f" {self.model[:12]}, this one's {model.sha256[:12]})",
                "Calibrate again; where you know that its ranges hold for this network too, leave `model` out of the"
                " table.",
            )
        missing = [name for name in tensors if name not in self.ranges]
        if missing:
            shown = ", ".join(f"'{name}'" for name in missing[:3]) + (" …" if len(missing) > 3 else "")
            raise ModelError(
                f"{model.source}: the calibration table has no range for {len(missing)} of the {len(tensors)} tensors"
                f" that are quantized: {shown}",
                "Calibrate again, or add them to the table.",
            )


def _rows(numbers: Mapping[str, Sequence[float]]) -> str:
    return ",\n".join(f"    {json.dumps(name)}: {json.dumps(row)}" for name, row in numbers.items())


def tables() -> dict[str, CalibrationTable]:
    """Return the formats of the runtimes' tools by their names."""
    return {table.name: table for name in backends.names() for table in backends.get(name).calibration_tables}


def table_names() -> tuple[str, ...]:
    """Return the names of all formats, Plimsoll's own first."""
    return (OWN, *tables())


def read_table(path: Path, model: Model) -> Calibration:
    """Read a table in whichever format it is, for a network that has these tensors; raises InputError, and BuildError
    for the table of another network's layers."""
    data = _read(path)
    if _is_own(data):
        return Calibration.read(path)
    for table in tables().values():
        if table.recognises(data):
            return Calibration(method=f"from {table.name}", ranges=table.read(data, str(path), model))
    raise InputError(f"{path}: not a calibration table", f"The formats are: {', '.join(table_names())}.")


def write_table(
    calibration: Calibration, path: Path, name: str, model: Model, picture: NDArray[Any] | None = None
) -> None:
    """Write a table in one of `table_names()`; raises InputError.

    A table of layers needs the network; `picture` `[1, …]`, what the network reads, helps to tell its tensors apart.
    """
    if name == OWN:
        calibration.write(path)
        return
    known = tables()
    if name not in known:
        raise InputError(f"unknown calibration table format '{name}'", f"Choose from: {', '.join(table_names())}.")
    data = known[name].write(calibration.ranges, model, picture)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"{path}: can't write the calibration table: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        data = files.read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise InputError(f"{path}: can't read the calibration table: {error.strerror}") from error
    if not data:
        raise InputError(f"{path}: the calibration table is empty")
    return data


def _is_own(data: bytes) -> bool:
    """Tell whether a file is to be read as Plimsoll's own: its reader says best what is wrong with any odd JSON."""
    if data.lstrip()[:1] != b"{":
        return False
    try:
        keys = json.loads(data).keys()
    except (ValueError, AttributeError, RecursionError):
        return True
    return "ranges" in keys or "kind" in keys


def _line(model: Model) -> Iterator[Model]:
    """Yield the model and those it was made from."""
    ancestor: Model | None = model
    while ancestor is not None:
        yield ancestor
        ancestor = ancestor.parent


Array = NDArray[Any]


@dataclass(frozen=True)
class Statistics:
    """What every tensor that may be quantized held: 64 KB a tensor, however many pictures."""

    model: str
    """SHA-256 of the network, as it was given."""
    images: int
    digest: str
    """SHA-256 of the input tensors, in their order: dtype, shape and bytes of each."""
    tensors: dict[str, TensorStatistics]
    means: dict[str, bias_correction.Floats]
    """The mean of each channel of what convolutions and products read."""
    own_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    """The ranges that the network itself has for tensors, since it was trained or quantized with them."""

    def ranges(
        self, method: str, parameter: float | None = None, *, symmetry: Symmetry = "auto"
    ) -> dict[str, tuple[float, float]]:
        """Return each tensor's range: the network's own where it has one, else by a method; see `calibrators.range_of`.
        Raises InputError."""
        observed = {
            name: range_of(statistics, method, parameter, symmetry)
            for name, statistics in self.tensors.items()
            if name not in self.own_ranges
        }
        return observed | self.own_ranges

    def calibration(self, method: str, parameter: float | None = None, *, symmetry: Symmetry = "auto") -> Calibration:
        """Return the table of ranges by a method, ready to be written or used."""
        if method == "percentile" and parameter is None:
            parameter = DEFAULT_PERCENTILE
        ranges = self.ranges(method, parameter, symmetry=symmetry)
        return Calibration(
            model=self.model,
            images=self.images,
            digest=self.digest,
            method=method,
            parameter=parameter,
            symmetry=symmetry,
            ranges=ranges,
            means={name: tuple(float(f"{mean:.6g}") for mean in means) for name, means in self.means.items()},
        )


def observe(model: Model, batches: Iterable[Array], *, cores: int | None = None) -> Statistics:
    """Run batches `[N, …]` of the network's input through it in float32 and return what its tensors hold.

    A batch is cut into single pictures; as many are under way as there are cores, and of each only its statistics are
    kept, so memory depends on neither the batches' size nor their number. The result depends on neither either. Where
    the network has Q/DQ pairs, their ranges are kept: it was trained to answer within them.

    Raises InputError where there is no picture or one doesn't fit, ModelError where a tensor becomes NaN or infinite or
    the network has several inputs, and what `Runner` and `prepare` raise.
    """
    with TemporaryDirectory(prefix="plimsoll-calibrate-") as temporary:
        folder = Path(temporary)
        prepared = prepare(model, folder)
        graph = Graph(onnx_graph.load(prepared))
        if (count := len(graph.inputs)) != 1:
            raise ModelError(
                f"{model.name}: it has {count} inputs; only networks with one input can be calibrated",
                "Supply your own table of ranges.",
            )
        placements = [placement_of(graph, float_heads=False, fuses_pointwise=fuses) for fuses in (False, True)]
        names = sorted({name for placement in placements for name in placement.calibrated_tensors()})
        if not names:
            raise ModelError(
                f"{model.name}: nothing in it to quantize",
                "Convolutions and matrix products with stored float32 weights can be quantized.",
            )
        read = bias_correction.tensors_read(graph) - _padded_with_infinity(graph)
        inner = sorted({*names, *read} - {*graph.inputs})
        exposed = onnx_graph.expose(prepared, inner, folder / "exposed.onnx")
        own = dequantize.limits_of(graph, names) if is_quantized(model) else {}
        with Runner.open(exposed, REFERENCE_TARGET, objective="throughput", cores=cores) as runner:
            return replace(_observe(model, _Observer(runner, graph, names, read), batches), own_ranges=own)


def calibrate(
    model: Model, batches: Iterable[Array], method: str, *, parameter: float | None = None, cores: int | None = None
) -> Calibration:
    """Return the ranges of the network's tensors by one method of METHODS; for several methods, `observe` once. Raises
    what `observe` raises."""
    check_method(method, parameter)
    return observe(model, batches, cores=cores).calibration(method, parameter)


def _observe(model: Model, observer: _Observer, batches: Iterable[Array]) -> Statistics:
    digest = _Digest()
    total = {name: TensorStatistics() for name in observer.names}
    sums: dict[str, bias_correction.Floats] = {}
    images = 0
    for tensors, means in observer.run(digest.read(batches)):
        for name, statistics in tensors.items():
            if not (math.isfinite(statistics.low) and math.isfinite(statistics.high)):
                raise ModelError(
                    f"{model.name}: on calibration picture {images + 1} the tensor '{name}' becomes NaN or infinite",
                    "Check the input steps, and whether the float network answers this picture.",
                )
            total[name].add(statistics)
        for name, values in means.items():
            sums[name] = values + sums.get(name, 0.0)
        images += 1
    if not images:
        raise InputError("no calibration picture was given", "A hundred pictures like those in use are enough.")
    average = {name: values / images for name, values in sums.items()}
    return Statistics(model.sha256, images, digest.hexdigest(), total, average)


def _padded_with_infinity(graph: Graph) -> set[str]:
    """Return the values that were padded with infinity, for a maximum that leaves the padding out; of them, the finite
    part has the range."""
    pads = [node for node in graph.nodes if graph.kind(node) == "Pad" and len(node.input) > 2]
    return {
        str(node.output[0])
        for node in pads
        if graph.is_constant(node.input[2]) and not np.isfinite(graph.constant(node.input[2])).all()
    }


_Observed = tuple[dict[str, TensorStatistics], dict[str, bias_correction.Floats]]
"""Of one picture: what its tensors hold, and the mean of each channel of some."""


class _Observer:
    """Runs pictures on all streams and yields the statistics of each, in their order."""

    def __init__(self, runner: Runner, graph: Graph, names: list[str], read: set[str]) -> None:
        self._runner = runner
        self._source = graph.inputs[0]
        self._padded = _padded_with_infinity(graph)
        self._read = read
        self.names = names

    def run(self, batches: Iterable[Array]) -> Iterator[_Observed]:
        under_way: deque[Future[_Observed]] = deque()
        with ThreadPoolExecutor(self._runner.streams, "plimsoll-calibrate") as pool:
            try:
                for batch in batches:
                    for index in range(len(batch)):
                        under_way.append(pool.submit(self._observe, batch[index : index + 1]))
                        if len(under_way) > self._runner.streams:
                            yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                for future in under_way:
                    future.cancel()

    def _observe(self, picture: Array) -> _Observed:
        # A network for four pictures a call gets four times the same: inner values may have no axis to cut them from.
        values = self._runner.run({self._source: np.repeat(picture, self._runner.inputs[0].shape[0] or 1, axis=0)})
        values[self._source] = picture
        for name in self._padded & values.keys():
            values[name] = values[name][np.isfinite(values[name])]
        statistics = {name: TensorStatistics.of(values[name]) for name in self.names}
        return statistics, {name: bias_correction.channel_means(values[name]) for name in self._read}


class _Digest:
    """SHA-256 over pictures' tensors: dtype, shape and bytes of each, one after another, however they are batched."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def read(self, batches: Iterable[Array]) -> Iterator[Array]:
        """Yield the batches after hashing them; raises InputError for anything but batches of pictures."""
        for batch in batches:
            if not isinstance(batch, np.ndarray) or batch.ndim < 2:  # type: ignore[redundant-expr]  # what callers give all the same
                raise InputError(f"a calibration batch is {_described(batch)}, expected a NumPy array [N, …]")
            for picture in batch:
                self._hash.update(f"{picture.dtype.str}{picture.shape}".encode())
                self._hash.update(np.ascontiguousarray(picture).data)
            yield batch

    def hexdigest(self) -> str:
        """Return the digest of what was read so far."""
        return self._hash.hexdigest()


def _described(value: object) -> str:
    return f"an array of {value.ndim} axes" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
