"""The process that owns one model's session: `python -m plimsoll.serve.worker`, started only by
`plimsoll.serve.worker_handle`.

Frames come on standard input and results leave on standard output; pictures and tensors lie in shared memory. The main
thread opens the session and alone uses it; one thread reads frames, and one sends a heartbeat. Beside a device, other
threads decode and preprocess the pictures, so that it doesn't wait for them; on a core of its own, the main thread does
that too, because more threads would only get in its way. When the input ends, the process that started this one is
gone, and it ends too.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import IO, Any

import numpy as np

from plimsoll.errors import PlimsollError
from plimsoll.serve import ipc
from plimsoll.serve.executor import BatchItem, ModelExecutor, PictureItem, PreparedPicture, StageSeconds, TensorItem
from plimsoll.serve.ipc import Arena, BytesRef, TensorRef
from plimsoll.serve.messages import Problem
from plimsoll.system import host

HEARTBEAT_S = 0.25
_SMALL_BATCH = 8
_WARM_UP_EVERY = 16
"""Where there is always a batch waiting, a new batch size is warmed up after so many batches."""


@dataclass
class _Batch:
    number: int
    items: Sequence[dict[str, Any]]
    pictures: Sequence[Callable[[], PreparedPicture]]
    """Return the prepared pictures, waiting for them or preparing them now; none where the items are tensors."""


class Worker:
    """The loops of the process around its `ModelExecutor`."""

    def __init__(self, input_: IO[bytes], output: IO[bytes], config: dict[str, Any]) -> None:
        self._input, self._output = input_, output
        self._config = config
        self._inbound = Arena.attach(config["inbound"])
        self._outbound = Arena.attach(config["outbound"])
        self._blocks = ipc.Blocks(len(self._outbound.view))
        self._lock = threading.Lock()
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._taken = 0
        self._executor: ModelExecutor

    def run(self) -> None:
        """Open the model, report what it is, and compute batches until the stop frame."""
        threading.Thread(target=self._send_heartbeats, daemon=True).start()
        try:
            self._executor = ModelExecutor.open(self._config)
            self._executor.warm_up(1)
        except PlimsollError as error:
            self._send({"failed": {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}})
            return
        self._send({"ready": self._executor.metadata(), "resident": host.resident_bytes(os.getpid()) or 0})
        threading.Thread(target=self._read_frames, daemon=True).start()
        cold_sizes = _warm_up_sizes(self._config["max_batch"])
        while (batch := self._next_batch(cold_sizes)) is not None:
            self._send(self._compute(batch))
        self._executor.close()

    def _next_batch(self, cold_sizes: deque[int]) -> _Batch | None:
        """Return the next batch; warm up batch sizes while none is waiting, and every so often under constant load."""
        self._taken += 1
        if self._taken % _WARM_UP_EVERY == 0:
            self._warm_up_next(cold_sizes)
        while cold_sizes and self._batches.empty():
            self._warm_up_next(cold_sizes)
        return self._batches.get()

    def _warm_up_next(self, cold_sizes: deque[int]) -> None:
        """Warm up the next larger batch; where that fails, no larger one is ever sent here."""
        if not cold_sizes:
            return
        size = cold_sizes.popleft()
        try:
            self._executor.warm_up(size)
        except PlimsollError:
            cold_sizes.clear()
        else:
            self._send({"warm": size})

    def _read_frames(self) -> None:
        decoders = self._config["decoders"]
        with ThreadPoolExecutor(decoders or 1) as threads:
            while (message := ipc.read(self._input)) is not None:
                if "stop" in message:
                    break
                if "free" in message:
                    with self._lock:
                        for offset in message["free"]:
                            self._blocks.free(offset)
                    continue
                prepare = [
                    partial(self._prepare, item["picture"], item["size"])
                    for item in message["items"]
                    if "picture" in item
                ]
                pictures = [threads.submit(call).result for call in prepare] if decoders else prepare
                self._batches.put(_Batch(message["batch"], message["items"], pictures))
            else:
                os._exit(0)  # the process that reads the results is gone
        self._batches.put(None)

    def _prepare(self, picture: BytesRef, size: Sequence[int] | None) -> PreparedPicture:
        return self._executor.prepare(bytes(self._inbound.at(picture)), size)

    def _compute(self, batch: _Batch) -> dict[str, Any]:
        """Return the frame of a batch's results: for each item a row, outputs or a problem; and how many milliseconds
        each stage took."""
        items: Sequence[BatchItem]
        if batch.pictures:
            items, seconds, decode = self._compute_pictures(batch)
        else:
            items, seconds, decode = *self._compute_tensors(batch), 0.0
        started = time.perf_counter()
        results = [self._result(item) for item in items]
        seconds.answer += time.perf_counter() - started
        milliseconds = {"decode": 1e3 * decode, "infer": 1e3 * seconds.infer, "answer": 1e3 * seconds.answer}
        return {"batch": batch.number, "items": results, "milliseconds": milliseconds}

    def _compute_pictures(self, batch: _Batch) -> tuple[Sequence[BatchItem], StageSeconds, float]:
        pictures = [
            PictureItem(
                prepared=prepared(),
                raw=item["raw"],
                top=item["top"],
                threshold=item["threshold"],
                masks=item["masks"],
            )
            for prepared, item in zip(batch.pictures, batch.items, strict=True)
        ]
        seconds = self._executor.run_pictures(pictures)
        return pictures, seconds, sum(picture.prepared.seconds for picture in pictures)

    def _compute_tensors(self, batch: _Batch) -> tuple[Sequence[BatchItem], StageSeconds]:
        tensors = [
            TensorItem(feeds={name: ipc.read_tensor(self._inbound.at(ref), ref) for name, ref in item["feeds"].items()})
            for item in batch.items
        ]
        return tensors, self._executor.run_tensors(tensors)

    def _result(self, item: BatchItem) -> dict[str, Any]:
        if item.problem is not None:
            return {"problem": asdict(item.problem)}
        if item.outputs is None:
            return {"row": item.row}
        refs: dict[str, TensorRef] = {}
        for name, value in item.outputs.items():
            data = np.ascontiguousarray(value)
            with self._lock:
                offset = self._blocks.allocate(data.nbytes)
                if offset is None:
                    for ref in refs.values():
                        self._blocks.free(ref["offset"])
                    return {"problem": asdict(_no_room(data.nbytes))}
            refs[name] = {"offset": offset, "size": data.nbytes, "dtype": data.dtype.name, "shape": data.shape}
            self._outbound.at(refs[name])[:] = ipc.tensor_bytes(data)
        return {"outputs": refs}

    def _send_heartbeats(self) -> None:
        while True:
            time.sleep(HEARTBEAT_S)
            self._send({"resident": host.resident_bytes(os.getpid()) or 0})

    def _send(self, message: dict[str, Any]) -> None:
        frame = ipc.pack(message)
        try:
            with self._lock:
                self._output.write(frame)
        except OSError:
            os._exit(0)  # nobody is there to read it


def _no_room(size: int) -> Problem:
    return Problem(
        "unavailable", f"no shared memory is left for an output of {size:,} bytes", "Send fewer rows at once.", 503
    )


def _warm_up_sizes(largest: int) -> deque[int]:
    """Return the batch sizes above 1 that are warmed up before a batch of that size is needed: a runtime may
    compile for a second at a new size."""
    small = range(2, min(largest, _SMALL_BATCH) + 1)
    powers = (1 << power for power in range(1, largest.bit_length()))
    return deque(sorted({*small, *powers, largest} - {1}))


def main() -> None:
    """Run a worker; what any library prints goes to standard error."""
    input_ = os.fdopen(os.dup(0), "rb")
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    host.keep_memory_level()
    config = ipc.read(input_)
    if config is None:
        return
    try:
        Worker(input_, output, config).run()
    except BaseException:  # noqa: BLE001 - whatever it is, the process ends with it, and other threads must not keep it
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)
    os._exit(0)


if __name__ == "__main__":
    main()
