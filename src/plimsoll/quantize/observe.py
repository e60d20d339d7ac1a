"""`collect`: one pass of calibration pictures through the float network, which serves every calibration method."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
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
from plimsoll.quantize.histogram import TensorStatistics
from plimsoll.quantize.parameters import Symmetry
from plimsoll.quantize.placement import place
from plimsoll.quantize.prepare import prepare
from plimsoll.quantize.ranges import DEFAULT_PERCENTILE, check_method, range_of

Array = NDArray[Any]

"""Where the float network runs."""


@dataclass(frozen=True)
class Statistics:
    """What was seen of every tensor that may be quantized: 64 KB a tensor, however many pictures."""

    model: str
    """SHA-256 of the network, as it was given."""
    images: int
    digest: str
    """SHA-256 of the input tensors, in their order; see `digest_of`."""
    tensors: dict[str, TensorStatistics]

    def ranges(
        self, method: str, parameter: float | None = None, *, symmetry: Symmetry = "auto"
    ) -> dict[str, tuple[float, float]]:
        """Return each tensor's range by a method; see `ranges.range_of`. Raises InputError."""
        return {name: range_of(seen, method, parameter, symmetry) for name, seen in self.tensors.items()}

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


def collect(model: Model, batches: Iterable[Array], *, cores: int | None = None) -> Statistics:
    """Run batches `[N, …]` of the network's input through it in float32 and return what its tensors hold.

    A batch is cut into single pictures; as many are under way as there are cores, and of each only its statistics are
    kept, so memory depends on neither the batches' size nor their number. The result depends on neither either.

    Raises InputError where there is no picture or one doesn't fit, ModelError where a tensor becomes NaN or infinite or
    the network has several inputs, and what `Runner` and `prepare` raise.
    """
    with TemporaryDirectory(prefix="plimsoll-calibrate-") as place_:
        folder = Path(place_)
        prepared = prepare(model, folder)
        graph = Graph(onnx_graph.load(prepared))
        if (count := len(graph.inputs)) != 1:
            raise ModelError(
                f"{model.name}: it has {count} inputs; only networks with one can be calibrated",
                "Give a table of ranges of your own.",
            )
        names = place(graph, float_heads=False).grids()
        if not names:
            raise ModelError(
                f"{model.name}: there is nothing in it to quantize",
                "Convolutions and matrix products with stored float32 weights are.",
            )
        exposed = onnx_graph.expose(
            prepared, [name for name in names if name not in graph.inputs], folder / "exposed.onnx"
        )
        with Runner.open(exposed, REFERENCE_TARGET, objective="throughput", cores=cores) as runner:
            return _collect(model, _Collector(runner, graph.inputs[0], names), batches)


def calibrate(
    model: Model, batches: Iterable[Array], method: str, *, parameter: float | None = None, cores: int | None = None
) -> Calibration:
    """Return the ranges of the network's tensors by one method of METHODS; for several methods, `collect` once. Raises
    what `collect` raises."""
    check_method(method, parameter)
    return collect(model, batches, cores=cores).calibration(method, parameter)


def cached_calibration(
    folder: Path, model: Model, batches: Sequence[Array], method: str, *, parameter: float | None = None
) -> Calibration:
    """Return the calibration kept in `folder`, or make and keep it.

    It is known by the network's SHA-256, the pictures' digest and the method; a kept file that is damaged is made anew.
    `batches` is read twice, hence no iterator. Raises what `calibrate` raises, and InputError where the folder can't be
    written.
    """
    check_method(method, parameter)
    if iter(batches) is batches:  # type: ignore[comparison-overlap]  # what callers give all the same
        raise InputError(
            "the batches are an iterator, which can be read once only",
            "Give a list or a tuple, or another iterable that starts anew each time.",
        )
    if method == "percentile" and parameter is None:
        parameter = DEFAULT_PERCENTILE
    digest = digest_of(batches)
    named = method if parameter is None else f"{method}-{parameter:g}"
    file = folder / f"{model.sha256[:16]}-{digest[:16]}-{named}.json"
    if file.exists():
        try:
            kept = Calibration.read(file)
        except InputError:
            kept = None
        if kept is not None and (kept.model, kept.digest, kept.method, kept.parameter) == (
            model.sha256,
            digest,
            method,
            parameter,
        ):
            return kept
    made = collect(model, batches).calibration(method, parameter)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't make the folder for calibration tables: {error.strerror}") from error
    made.write(file)
    return made


def _collect(model: Model, collector: _Collector, batches: Iterable[Array]) -> Statistics:
    digest = Digest()
    total = {name: TensorStatistics() for name in collector.names}
    images = 0
    for seen in collector.run(digest.watch(batches)):
        for name, one in seen.items():
            if not (math.isfinite(one.low) and math.isfinite(one.high)):
                raise ModelError(
                    f"{model.name}: on calibration picture {images + 1} the tensor '{name}' becomes NaN or infinite",
                    "Check the input steps, and whether the float network answers this picture.",
                )
            total[name].add(one)
        images += 1
    if not images:
        raise InputError(
            "no calibration picture was given", "A hundred of the kind that the network will meet are enough."
        )
    return Statistics(model.sha256, images, digest.hexdigest(), total)


class _Collector:
    """Runs pictures on all streams and yields what each showed, in their order."""

    def __init__(self, runner: Runner, source: str, names: list[str]) -> None:
        self._runner = runner
        self._source = source
        self.names = names

    def run(self, batches: Iterable[Array]) -> Iterator[dict[str, TensorStatistics]]:
        under_way: deque[Future[dict[str, TensorStatistics]]] = deque()
        with ThreadPoolExecutor(self._runner.streams, "plimsoll-calibrate") as pool:
            try:
                for batch in batches:
                    for place_ in range(len(batch)):
                        under_way.append(pool.submit(self._see, batch[place_ : place_ + 1]))
                        if len(under_way) > self._runner.streams:
                            yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                for future in under_way:
                    future.cancel()

    def _see(self, picture: Array) -> dict[str, TensorStatistics]:
        values = self._runner.run({self._source: picture})
        values[self._source] = picture
        return {name: TensorStatistics.of(values[name]) for name in self.names}


class Digest:
    """SHA-256 over pictures' tensors: dtype, shape and bytes of each, one after another, however they are batched."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def watch(self, batches: Iterable[Array]) -> Iterator[Array]:
        """Yield the batches and take them in; raises InputError for what is no batch of pictures."""
        for batch in batches:
            if not isinstance(batch, np.ndarray) or batch.ndim < 2:  # type: ignore[redundant-expr]  # what callers give all the same
                raise InputError(f"a calibration batch is {_described(batch)}, expected a NumPy array [N, …]")
            for picture in batch:
                self._hash.update(f"{picture.dtype.str}{picture.shape}".encode())
                self._hash.update(np.ascontiguousarray(picture).data)
            yield batch

    def hexdigest(self) -> str:
        """Return the digest of what was seen so far."""
        return self._hash.hexdigest()


def digest_of(batches: Iterable[Array]) -> str:
    """Return the digest by which calibration tables know their pictures; raises InputError for what is no batch."""
    digest = Digest()
    for _ in digest.watch(batches):
        pass
    return digest.hexdigest()


def _described(value: object) -> str:
    return f"an array of {value.ndim} axes" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
