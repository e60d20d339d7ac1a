"""`observe`: one pass of calibration pictures through the float network, which serves every calibration method."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import InputError, ModelError
from plimsoll.onnx import graph as onnx_graph
from plimsoll.onnx.graph import Graph
from plimsoll.quantize.calibration import Calibration
from plimsoll.quantize.calibrators import DEFAULT_PERCENTILE, TensorStatistics, check_method, range_of
from plimsoll.quantize.parameters import Symmetry
from plimsoll.quantize.placement import placement_of
from plimsoll.quantize.prepare import prepare

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

    def ranges(
        self, method: str, parameter: float | None = None, *, symmetry: Symmetry = "auto"
    ) -> dict[str, tuple[float, float]]:
        """Return each tensor's range by a method; see `calibrators.range_of`. Raises InputError."""
        return {name: range_of(statistics, method, parameter, symmetry) for name, statistics in self.tensors.items()}

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
        )


def observe(model: Model, batches: Iterable[Array], *, cores: int | None = None) -> Statistics:
    """Run batches `[N, …]` of the network's input through it in float32 and return what its tensors hold.

    A batch is cut into single pictures; as many are under way as there are cores, and of each only its statistics are
    kept, so memory depends on neither the batches' size nor their number. The result depends on neither either.

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
        names = placement_of(graph, float_heads=False).calibrated_tensors()
        if not names:
            raise ModelError(
                f"{model.name}: nothing in it to quantize",
                "Convolutions and matrix products with stored float32 weights can be quantized.",
            )
        exposed = onnx_graph.expose(
            prepared, [name for name in names if name not in graph.inputs], folder / "exposed.onnx"
        )
        with Runner.open(exposed, REFERENCE_TARGET, objective="throughput", cores=cores) as runner:
            return _observe(model, _Observer(runner, graph.inputs[0], names), batches)


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
    images = 0
    for tensors in observer.run(digest.read(batches)):
        for name, statistics in tensors.items():
            if not (math.isfinite(statistics.low) and math.isfinite(statistics.high)):
                raise ModelError(
                    f"{model.name}: on calibration picture {images + 1} the tensor '{name}' becomes NaN or infinite",
                    "Check the input steps, and whether the float network answers this picture.",
                )
            total[name].add(statistics)
        images += 1
    if not images:
        raise InputError("no calibration picture was given", "A hundred pictures like those in use are enough.")
    return Statistics(model.sha256, images, digest.hexdigest(), total)


class _Observer:
    """Runs pictures on all streams and yields the statistics of each, in their order."""

    def __init__(self, runner: Runner, source: str, names: list[str]) -> None:
        self._runner = runner
        self._source = source
        self.names = names

    def run(self, batches: Iterable[Array]) -> Iterator[dict[str, TensorStatistics]]:
        under_way: deque[Future[dict[str, TensorStatistics]]] = deque()
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

    def _observe(self, picture: Array) -> dict[str, TensorStatistics]:
        values = self._runner.run({self._source: picture})
        values[self._source] = picture
        return {name: TensorStatistics.of(values[name]) for name in self.names}


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
