"""Run an engine: several contexts over one engine, each with its own memory, stream and thread.

CUDA's context belongs to a thread: what one thread makes, another must not use unprepared. So each context has a thread
that makes all it has, computes with it and gives it back; callers hand over tensors and wait.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll.backends.tensorrt import runtime
from plimsoll.backends.tensorrt.context import ExecutionContext
from plimsoll.backends.tensorrt.options import TensorRtOptions
from plimsoll.core.foreign import translate
from plimsoll.core.model import TensorInfo, Tensors
from plimsoll.errors import BackendError, BuildError, RunError
from plimsoll.system.gpu import Device

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


@dataclass
class _Owner:
    """A thread and the context that it owns."""

    thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="plimsoll-tensorrt")
    )
    context: ExecutionContext | None = None


class TensorRtSession:
    """A loaded engine. It takes any batch within the engine's profile at once, and larger ones piece by piece."""

    concurrent = True

    def __init__(self, engine: _Engine, owners: list[_Owner]) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._engine = engine
        self._least, self._most = engine.batches
        self._owners = owners
        self._free: queue.SimpleQueue[_Owner] = queue.SimpleQueue()
        for owner in owners:
            self._free.put(owner)
        self._closed = False

    @classmethod
    def open(cls, name: str, content: bytes, options: TensorRtOptions, contexts: int) -> Self:
        """Load an engine for so many calls at once; raises BuildError."""
        owners = [_Owner() for _ in range(contexts)]
        engine = _Engine(options.device)
        try:
            with translate(BuildError, f"TensorRT can't load {name}"):
                owners[0].thread.submit(engine.read, name, content, options).result()
                for owner in owners:
                    owner.context = owner.thread.submit(
                        ExecutionContext, engine.engine, engine.log, options.device
                    ).result()
        except BackendError:
            _give_back(owners, engine)
            raise
        return cls(engine, owners)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        if self._most is None:
            return self._call(feeds)
        count = len(next(iter(feeds.values())))
        if self._least <= count <= self._most:
            return self._call(feeds)
        if any(info.shape[:1] != (None,) for info in self.outputs):
            raise RunError(
                f"a batch of {count}; the engine takes {self._least} to {self._most} at once, and an output can't be"
                " cut by pictures"
            )
        parts = [
            {key: value[:true] for key, value in self._call(part).items()}
            for part, true in _pieces(feeds, count, self._least, self._most)
        ]
        return {info.name: np.concatenate([part[info.name] for part in parts]) for info in self.outputs}

    def _call(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        owner = self._free.get()
        try:
            if owner.context is None:
                raise RunError("the session is closed")
            with translate(RunError, "TensorRT failed"):
                return owner.thread.submit(owner.context.run, feeds, self.inputs, self.outputs).result()
        finally:
            self._free.put(owner)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for _ in self._owners:  # until each has ended its call
                self._free.get()
            _give_back(self._owners, self._engine)
            for owner in self._owners:  # so that later calls fail instead of waiting
                self._free.put(owner)


def _give_back(owners: list[_Owner], engine: _Engine) -> None:
    """Close the streams, each in its own thread, then the engine; what fails on the way out is not the caller's
    business any more."""
    for owner in owners:
        context, owner.context = owner.context, None
        if context is not None:
            with contextlib.suppress(RunError):
                owner.thread.submit(context.close).result()
    with contextlib.suppress(RunError):
        owners[0].thread.submit(engine.close).result()
    for owner in owners:
        owner.thread.shutdown()


def _pieces(
    feeds: Mapping[str, NDArray[Any]], count: int, least: int, most: int
) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
    """Cut a batch into what the engine takes, filled up with repeats where that is too few; yields each with its true
    count."""
    for start in range(0, count, most):
        part = {name: value[start : start + most] for name, value in feeds.items()}
        true = min(most, count - start)
        if true < least:
            part = {
                name: np.concatenate([value, np.repeat(value[-1:], least - true, axis=0)])
                for name, value in part.items()
            }
        yield part, true


class _Engine:
    """An engine in memory, with its inputs and outputs. It belongs to one thread too; others create contexts of it."""

    def __init__(self, device_index: int) -> None:
        self.inputs: tuple[TensorInfo, ...] = ()
        self.outputs: tuple[TensorInfo, ...] = ()
        self.batches: tuple[int, int | None] = (1, None)
        """The least and the most pictures of one call; None where the batch is fixed."""
        self.engine: Any = None
        self.log: Any = None
        self._place = device_index
        self._device: Device | None = None
        self._runtime: Any = None

    def read(self, name: str, content: bytes, options: TensorRtOptions) -> None:
        """Deserialize an engine; raises BuildError with TensorRT's errors."""
        tensorrt = runtime.load()
        self.log = runtime.logger()
        self._device = Device(self._place)
        runtime.load_plugins(self.log, options.libraries)
        self._runtime = tensorrt.Runtime(self.log)
        self.engine = self._runtime.deserialize_cuda_engine(content)
        if self.engine is None:
            messages = runtime.recent_errors(self.log)
            raise BuildError(
                f"TensorRT {tensorrt.__version__} can't load {name}{messages}",
                "An engine fits one GPU and one version: build it here.",
            )
        infos: dict[bool, list[TensorInfo]] = {True: [], False: []}
        for index in range(self.engine.num_io_tensors):
            tensor = self.engine.get_tensor_name(index)
            infos[self.engine.get_tensor_mode(tensor) == tensorrt.TensorIOMode.INPUT].append(
                _info(tensorrt, self.engine, tensor)
            )
        self.inputs, self.outputs = tuple(infos[True]), tuple(infos[False])
        self.batches = _batches(self.engine, infos[True])

    def close(self) -> None:
        """Release it, in the thread that read it."""
        if self._device is not None:
            self._device.activate()
            self.engine = self._runtime = None
            self._device.close()
            self._device = None


def _info(tensorrt: Any, engine: Any, tensor: str) -> TensorInfo:
    """Return what an input or output is; raises BuildError for what this session doesn't hand over."""
    kind = engine.get_tensor_dtype(tensor).name
    if kind not in _DTYPES or engine.get_tensor_location(tensor) != tensorrt.TensorLocation.DEVICE:
        raise BuildError(
            f"the engine's '{tensor}' is a {kind} that lies with the {engine.get_tensor_location(tensor).name};"
            " expected numbers on the GPU"
        )
    shape = tuple(size if size >= 0 else None for size in engine.get_tensor_shape(tensor))
    return TensorInfo(tensor, shape, _DTYPES[kind])


def _batches(engine: Any, inputs: list[TensorInfo]) -> tuple[int, int | None]:
    free = [info.name for info in inputs if info.shape[:1] == (None,)]
    if not free:
        return 1, None
    least, _, most = engine.get_tensor_profile_shape(free[0], 0)
    return int(least[0]), int(most[0])
