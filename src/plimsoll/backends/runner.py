"""`Runner`: everything around a session that is the same for every runtime.

It checks names, shapes and dtypes, splits batches for networks with a fixed batch size, times each call, and closes. A
session only computes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll import backends
from plimsoll.backends.base import Objective, Session, ThreadPlan
from plimsoll.core.fit import check_fit, picture_input
from plimsoll.core.model import Model, TensorInfo, Tensors
from plimsoll.core.target import Target
from plimsoll.errors import InputError, RunError, SpecError

Array = NDArray[Any]


@dataclass
class Timing:
    """The calls of a runner, added up; seconds are wall time inside the runtime."""

    calls: int = 0
    items: int = 0
    seconds: float = 0.0


class Runner:
    """A model loaded for a target. Open it with `Runner.open`, close it or use it in a `with` block.

    >>> with Runner.open(model, Target("onnxruntime")) as runner:  # doctest: +SKIP
    ...     scores = runner.infer(batch)["outputs"]
    """

    def __init__(self, session: Session, name: str, streams: int = 1) -> None:
        self._session = session
        self._name = name
        self._inputs = {tensor.name: tensor for tensor in session.inputs}
        self._output_names = [tensor.name for tensor in session.outputs]
        self._turn = threading.Semaphore(1) if not session.concurrent else None
        self._lock = threading.Lock()
        self._closed = False
        self.streams = streams if session.concurrent else 1
        """How many threads may usefully call at once."""
        self.picture_input = session.inputs[0].name if session.inputs else ""
        """The input that takes the picture: the one that the Spec names, or else the first."""
        self.stream_batch = 1
        """How many pictures one call of one of several streams should hold."""
        self.timing = Timing()

    @classmethod
    def open(
        cls,
        model: Model,
        target: Target,
        *,
        objective: Objective = "latency",
        options: Mapping[str, str] | None = None,
        cores: int | None = None,
        plan: ThreadPlan | None = None,
    ) -> Self:
        """Build the model for the target if need be, and load it.

        The objective shares out `cores` (default: this machine's) between streams and threads; `plan` says it outright.
        Raises TargetError, BackendMissingError or BuildError; SpecError where the Spec doesn't fit the network.
        """
        backend = backends.for_target(target)
        plan = plan or ThreadPlan.of(objective, cores)
        chosen = backend.read_options(options or {})
        with TemporaryDirectory(prefix="plimsoll-build-") as folder:
            built = backend.configured(chosen).build(model, target, Path(folder))
            session = backend.load(built, target, chosen, plan)
        runner = cls(session, f"{model.name} on {target}", plan.streams)
        runner.stream_batch = backend.stream_batch(target)
        if model.spec is not None:
            try:
                check_fit(model.spec, runner.inputs, runner.outputs, model.path.name)
            except SpecError:
                runner.close()
                raise
            runner.picture_input = picture_input(model.spec, runner.inputs, model.path.name).name
        return runner

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What the network takes."""
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What the network gives."""
        return self._session.outputs

    def infer(self, batch: Array) -> Tensors:
        """Run pictures `[N, …]` through the input that takes them; see `run`."""
        return self.run({self.picture_input: batch})

    def run(self, feeds: Mapping[str, Array]) -> Tensors:
        """Run tensors by name, all with the same batch size N along their first axis, N ≥ 1; returns all outputs.

        A network with a fixed batch size gets its batches one after another, the last one filled up with repeats whose
        outputs are cut off again. Raises InputError for wrong names, shapes or dtypes and RunError for what the runtime
        refuses.
        """
        if self._closed:
            raise RunError(f"{self._name}: the runner is closed")
        count = self._check(feeds)
        fixed = next((tensor.shape[0] for tensor in self.inputs if tensor.shape and tensor.shape[0] is not None), None)
        if fixed is None or fixed == count:
            return self._call(feeds, count)
        parts = [(self._call(part, size), size) for part, size in _batches(feeds, count, fixed)]
        return {name: np.concatenate([part[name][:size] for part, size in parts]) for name in self._output_names}

    def _call(self, feeds: Mapping[str, Array], count: int) -> Tensors:
        with self._turn or _nothing:
            started = time.perf_counter()
            outputs = self._session.run(feeds)
            took = time.perf_counter() - started
        with self._lock:
            self.timing.calls += 1
            self.timing.items += count
            self.timing.seconds += took
        return outputs

    def _check(self, feeds: Mapping[str, Array]) -> int:
        """Return the batch size; raise InputError for feeds that don't fit the network."""
        if feeds.keys() != self._inputs.keys():
            raise InputError(f"{self._name}: fed {_listed(feeds)}, expected {_listed(self._inputs)}")
        sizes = set()
        for name, value in feeds.items():
            info = self._inputs[name]
            expected = f"{info.dtype} {_shape(info.shape)}"
            fits = len(value.shape) == len(info.shape) and all(
                want in (None, have) for have, want in zip(value.shape[1:], info.shape[1:], strict=False)
            )
            if str(value.dtype) != info.dtype or not fits:
                actual = f"{value.dtype} {_shape(value.shape)}"
                raise InputError(
                    f"{self._name}: input '{name}' is {actual}, expected {expected}",
                    "Check the input steps of the Spec.",
                )
            sizes.add(value.shape[0] if value.shape else 1)
        if len(sizes) != 1 or 0 in sizes:
            raise InputError(
                f"{self._name}: the inputs hold {sorted(sizes)} pictures; all need the same number, at least 1"
            )
        return int(sizes.pop())

    def close(self) -> None:
        """Release the session; calling it twice is harmless."""
        self._closed = True
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_nothing = _Nothing()


def _batches(feeds: Mapping[str, Array], count: int, size: int) -> Iterator[tuple[dict[str, Array], int]]:
    """Cut feeds into batches of exactly `size`, the last filled up with repeats of its last item; yields them with
    their true counts."""
    for start in range(0, count, size):
        part = {name: value[start : start + size] for name, value in feeds.items()}
        true = min(size, count - start)
        if true < size:
            part = {
                name: np.concatenate([value, np.repeat(value[-1:], size - true, axis=0)])
                for name, value in part.items()
            }
        yield part, true


def _shape(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("N" if size is None else str(size) for size in shape) + "]"


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"


__all__ = ["Objective", "Runner", "ThreadPlan", "Timing"]
