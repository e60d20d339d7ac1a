"""`Runner`: everything around a session that is the same for every runtime.

It checks names, shapes and dtypes, feeds the further inputs that a Spec gives, splits batches for networks with a fixed
batch size or without an axis for pictures, brings that axis of every output to the front, times each call, and closes.
A session only computes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll import backends
from plimsoll.backends.base import Objective, Options, Session, ThreadPlan
from plimsoll.core.extra_inputs import extra_input, unpack
from plimsoll.core.fit import axis_error, batch_axes, check_fit, outputs_read, picture_input
from plimsoll.core.model import Model, TensorInfo, Tensors
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import InputError, ModelError, RunError, SpecError
from plimsoll.spec import Spec
from plimsoll.spec.inputs import Extra

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
        self._spec: Spec | None = None
        self._extra: dict[str, Extra] = {}
        self._packed: TensorInfo | None = None
        """The tensor of several views of a picture, which the network takes apart."""
        self._axes: dict[str, int | None] | None = None
        self._read: set[str] = set()
        self._untried = True
        """Whether no call has held several pictures yet."""
        self.streams = streams if session.concurrent else 1
        """How many threads may usefully call at once."""
        self.picture_input = session.inputs[0].name if session.inputs else ""
        """The input that takes the picture: the one that the Spec names, or else the first."""
        self.fixed_count: int | None = None
        """How many pictures one call has to hold; None where any number may come, as far as is known."""
        self._counted: frozenset[str] = frozenset()
        """The inputs that hold as many pictures as the call."""
        self._count_by(self.picture_input)
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
            if _is_reference(target):
                session = backend.load(
                    backend.configured(chosen).build(model, target, Path(folder)), target, chosen, plan
                )
            else:
                session = _checked(model, target, chosen, plan, Path(folder))
        try:
            runner = cls.around(session, model, target, plan.streams)
        except SpecError:
            session.close()
            raise
        runner.stream_batch = backend.stream_batch(target)
        return runner

    @classmethod
    def around(cls, session: Session, model: Model, target: Target, streams: int = 1) -> Self:
        """Return the runner of a loaded network; raises SpecError where its Spec doesn't fit."""
        runner = cls(session, f"{model.name} on {target}", streams)
        if model.spec is not None:
            runner._follow(model.spec, model.path.name)
        return runner

    def _follow(self, spec: Spec, network: str) -> None:
        """Take from the Spec which input gets the picture, what the others get, and which axes hold the pictures."""
        inputs, outputs = self._session.inputs, self._session.outputs
        check_fit(spec, inputs, outputs, network)
        picture = picture_input(spec, inputs, network)
        self.picture_input = picture.name
        self._count_by(picture.name)
        self._spec = spec
        self._extra = {extra.tensor: extra for extra in spec.input.extra if extra.tensor in self._inputs}
        self._extra.pop(picture.name, None)
        if spec.input.is_packed and any(further.steps for further in self._extra.values()):
            self._packed = TensorInfo(picture.name, (self.fixed_count, *spec.input.shape), spec.input.dtype)
            self._inputs[picture.name] = self._packed
        self._axes = batch_axes(spec, picture, outputs, network)
        self._read = outputs_read(spec, outputs)
        if not self.batches and (self.fixed_count or 1) > 1:
            without = next(name for name, axis in self._axes.items() if axis is None)
            raise SpecError(
                f"{network} and the Spec '{spec.name}': one call takes {self.fixed_count} pictures, and the output"
                f" {without!r} has no axis for them, so nobody can say whose answer it is",
                "Export the network for one picture a call, or correct `batch_axis` under [output] of the Spec.",
            )

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What callers feed: the network's inputs, without those that the Spec gives."""
        return tuple(tensor for tensor in self._inputs.values() if tensor.name not in self._extra)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What `run` returns, with the axis of the pictures first."""
        if self._axes is None:
            return self._session.outputs
        return tuple(self._batch_first_info(tensor, self._axes[tensor.name]) for tensor in self._session.outputs)

    def _batch_first_info(self, tensor: TensorInfo, axis: int | None) -> TensorInfo:
        if axis is None:
            return replace(tensor, shape=(self.fixed_count, *tensor.shape))
        if axis == 0 or not tensor.shape:
            return tensor
        shape = list(tensor.shape)
        return replace(tensor, shape=(shape.pop(axis), *shape))

    @property
    def batches(self) -> bool:
        """Whether one call of the network takes several pictures; False where an output has no axis for them."""
        return self._axes is None or None not in self._axes.values()

    @property
    def is_plain(self) -> bool:
        """Whether the network alone takes and gives what `run` does: nothing is fed beside, and no axis is moved."""
        return not self._extra and (self._axes is None or all(axis == 0 for axis in self._axes.values()))

    def _count_by(self, name: str) -> None:
        """Let an input say how many pictures a call holds, where it has axes, else the first that has some: others with
        the same first axis hold as many, and the rest is the same for a whole call."""
        inputs = sorted(self._session.inputs, key=lambda tensor: tensor.name != name)
        leading = next((tensor.shape[:1] for tensor in inputs if tensor.shape), ())
        self._counted = frozenset(tensor.name for tensor in inputs if tensor.shape[:1] == leading)
        self.fixed_count = leading[0] if leading else None

    def infer(self, batch: Array) -> Tensors:
        """Run pictures `[N, …]` through the input that takes them; see `run`."""
        return self.run({self.picture_input: batch})

    def run(self, feeds: Mapping[str, Array]) -> Tensors:
        """Run tensors by name, all with the same batch size N along their first axis, N ≥ 1; returns all outputs
        `[N, …]`, whichever axis the network has for its pictures. Without a Spec they stay as the network gives them.

        A network with a fixed batch size gets its batches one after another, the last one filled up with repeats whose
        outputs are cut off again; one without an axis for pictures gets them one by one. Inputs that the Spec gives may
        be left out. Raises InputError for wrong names, shapes or dtypes, ModelError for an output that doesn't hold N
        pictures, and RunError for what the runtime refuses.
        """
        if self._closed:
            raise RunError(f"{self._name}: the runner is closed")
        count = self._check(feeds)
        if self._untried and count > 1 and self.fixed_count is None and self._axes is not None:
            return self._first_batch(feeds, count)
        return self._run(feeds, count)

    def _first_batch(self, feeds: Mapping[str, Array], count: int) -> Tensors:
        """Run a picture alone, since an axis that has the number of pictures by chance would give one the answer of
        another, then all. Many a network says that it takes any number, and has the one picture that it was exported
        with in a Reshape: it gets one a call from now on."""
        with self._turn or _nothing:
            alone = self._session_run(self._cut(feeds, slice(0, 1)))
        self._batch_first(alone, 1)
        try:
            outputs = self._run(feeds, count)
        except RunError:
            self.fixed_count = 1
            outputs = self._run(feeds, count)
        self._untried = False
        return outputs

    def _run(self, feeds: Mapping[str, Array], count: int) -> Tensors:
        size = self.fixed_count if self.batches else 1
        if size is None or size == count:
            return self._call(feeds, count)
        parts = [(self._call(part, size), true) for part, true in self._batches(feeds, count, size)]
        if self._axes is None:
            for part, _ in parts:
                self._require_batch(part, size)
        return {name: self._joined(name, [part[name][:true] for part, true in parts]) for name in self._output_names}

    def _joined(self, name: str, parts: Sequence[Array]) -> Array:
        if len({part.shape[1:] for part in parts}) > 1:
            raise ModelError(
                f"{self._name}: the output '{name}' has another shape for each picture, so a batch can't hold them:"
                f" {', '.join(str(list(part.shape[1:])) for part in parts[:3])} …",
                "Give it one picture at a time.",
            )
        return np.concatenate(parts)

    def _batch_first(self, outputs: Tensors, count: int) -> Tensors:
        """Bring the axis of the pictures to the front; raises ModelError where it holds another number than `count`."""
        if self._axes is None:
            return outputs
        ordered = {}
        for name, value in outputs.items():
            axis = self._axes[name]
            fits = axis is None or (value.ndim > axis and value.shape[axis] == count)
            if not fits and name not in self._read and count == 1:
                axis = self._axes[name] = None  # Nobody reads it: from now on one picture a call is enough.
            elif not fits:
                raise self._misfit(name, value, count, axis or 0)
            if axis is None:
                ordered[name] = np.asarray(value)[np.newaxis]
            else:
                ordered[name] = value if axis == 0 else np.ascontiguousarray(np.moveaxis(value, axis, 0))
        return ordered

    def _require_batch(self, outputs: Tensors, count: int) -> None:
        for name, value in outputs.items():
            if not value.ndim or len(value) != count:
                raise self._misfit(name, value, count, 0)

    def _misfit(self, name: str, value: Array, count: int, axis: int) -> ModelError:
        tensor = TensorInfo(name, value.shape, str(value.dtype))
        if self._spec is not None and self._spec.output.batch_axis is not None:
            return ModelError(
                f"{self._name}: the output '{name}' is {tensor.dtype} {list(value.shape)}; its axis {axis} should hold"
                f" {count} picture{'s' if count > 1 else ''}",
                "Correct `batch_axis` under [output] of the Spec.",
            )
        error = axis_error(self._name, tensor, (count,), len(self._output_names) > 1)
        return ModelError(f"{error.message}. {error.hint}")  # A row of `predict` has room for the message alone.

    def _session_run(self, feeds: Mapping[str, Array]) -> Tensors:
        if self._packed is not None and self._spec is not None:
            names = [self.picture_input, *(further.tensor for further in self._extra.values() if further.steps)]
            feeds = {**feeds, **dict(zip(names, unpack(feeds[self.picture_input], self._spec.input), strict=True))}
        if self._extra:
            picture = feeds[self.picture_input]
            channels_last = self._spec is None or self._spec.input.tensor_spec.layout == "NHWC"
            given = {
                name: picture
                if extra.source == "picture"
                else extra_input(extra, self._inputs[name], picture.shape, channels_last=channels_last)
                for name, extra in self._extra.items()
                if not extra.steps
            }
            feeds = {**feeds, **given}
        return self._session.run(feeds)

    def _call(self, feeds: Mapping[str, Array], count: int) -> Tensors:
        with self._turn or _nothing:
            started = time.perf_counter()
            outputs = self._session_run(feeds)
            took = time.perf_counter() - started
        with self._lock:
            self.timing.calls += 1
            self.timing.items += count
            self.timing.seconds += took
        return self._batch_first(outputs, count)

    def _check(self, feeds: Mapping[str, Array]) -> int:
        """Return the batch size; raise InputError for feeds that don't fit the network."""
        needed = self._inputs.keys() - self._extra.keys()
        if feeds.keys() != needed:
            raise InputError(
                f"{self._name}: fed {_listed(feeds)}, expected {_listed([tensor.name for tensor in self.inputs])}",
                "Inputs beside the picture are given in the Spec, under [[input.extra]]." if len(needed) > 1 else "",
            )
        sizes = set()
        for name, value in feeds.items():
            info = self._inputs[name]
            expected = f"{info.dtype} {_shape(info.shape)}"
            start = 1 if name in self._counted else 0
            fits = len(value.shape) == len(info.shape) and all(
                want in (None, have) for have, want in zip(value.shape[start:], info.shape[start:], strict=False)
            )
            if str(value.dtype) != info.dtype or not fits:
                actual = f"{value.dtype} {_shape(value.shape)}"
                raise InputError(
                    f"{self._name}: input '{name}' is {actual}, expected {expected}",
                    "Check the input steps of the Spec.",
                )
            if start:
                sizes.add(value.shape[0] if value.shape else 1)
        if len(sizes) != 1 or 0 in sizes:
            raise InputError(
                f"{self._name}: the inputs hold {sorted(sizes)} pictures; all need the same number, at least 1"
            )
        return int(sizes.pop())

    def _cut(self, feeds: Mapping[str, Array], part: slice) -> dict[str, Array]:
        return {name: value[part] if name in self._counted else value for name, value in feeds.items()}

    def _batches(self, feeds: Mapping[str, Array], count: int, size: int) -> Iterator[tuple[dict[str, Array], int]]:
        """Cut feeds into batches of exactly `size`, the last filled up with repeats of its last item; yields them with
        their true counts."""
        for start in range(0, count, size):
            part = self._cut(feeds, slice(start, start + size))
            true = min(size, count - start)
            if true < size:
                part = {
                    name: np.concatenate([value, np.repeat(value[-1:], size - true, axis=0)])
                    if name in self._counted
                    else value
                    for name, value in part.items()
                }
            yield part, true

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


def _is_reference(target: Target) -> bool:
    """Tell whether the reference's own runtime computes a file as it is: there is nothing to compare it with."""
    return (target.runtime, target.device) == (REFERENCE_TARGET.runtime, REFERENCE_TARGET.device)


def _checked(model: Model, target: Target, options: Options, plan: ThreadPlan, folder: Path) -> Session:
    """Build a model, load it, and check that it answers as the original does; raises BuildError."""
    from plimsoll.backends import conversion  # most starts load an original
    from plimsoll.backends.comparison import Conversion

    backend = backends.get(target.runtime)
    built = conversion.build_unchecked(model, target, folder, None, options)
    session = backend.load(built, target, options, plan)
    try:
        conversion.check(Conversion(built, target, options, model), session)
    except BaseException:
        session.close()
        raise
    return session


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_nothing = _Nothing()


def _shape(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("N" if size is None else str(size) for size in shape) + "]"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"


__all__ = ["Objective", "Runner", "ThreadPlan", "Timing"]
