"""The process that owns one model's session: `python -m plimsoll.serve.worker`, started by
`plimsoll.serve.worker_handle` alone.

Frames come on standard input, answers leave on standard output, pictures and tensors lie in shared memory. The main
thread opens the session and alone uses it; one thread reads frames, one says regularly that the process is alive.
Beside a device other threads prepare the pictures, so that it doesn't wait for them; on a core of its own the main
thread does that too, for more threads only got in its way. When the input ends, whoever started the process is gone,
and it ends too.
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
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import numpy as np

from plimsoll.errors import PlimsollError
from plimsoll.serve import frames
from plimsoll.serve.arena import Arena, Blocks
from plimsoll.serve.executor import ModelExecutor, Prepared, Result, Seconds, Wanted
from plimsoll.serve.messages import Problem
from plimsoll.system import host

BEAT_S = 0.25
_SMALL = 8
_EVERY = 16
"""Where there is always something to do, a batch size is tried after so many batches."""


@dataclass
class _Batch:
    number: int
    items: Sequence[dict[str, Any]]
    prepared: Sequence[Callable[[], Prepared]]
    """Give the tensors of pictures, waiting for them or reading them now; none where the items are tensors."""


class Worker:
    """The loops of the process around its `ModelExecutor`."""

    def __init__(self, input_: IO[bytes], output: IO[bytes], config: dict[str, Any]) -> None:
        self._input, self._output = input_, output
        self._config = config
        self._inbound = Arena.attach(config["inbound"])
        self._outbound = Arena.attach(config["outbound"])
        self._blocks = Blocks(len(self._outbound.view))
        self._lock = threading.Lock()
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._taken = 0
        self._work: ModelExecutor

    def run(self) -> None:
        """Open the model, say what it is, and answer until told to stop."""
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            self._work = ModelExecutor.open(self._config)
            self._work.warm_up(1)
        except PlimsollError as error:
            self._send({"failed": {"message": error.message, "hint": error.hint}})
            return
        self._send({"ready": self._work.metadata(), "resident": host.resident_bytes(os.getpid()) or 0})
        threading.Thread(target=self._read, daemon=True).start()
        sizes = _sizes(self._config["max_batch"])
        while (batch := self._next(sizes)) is not None:
            self._send(self._answer(batch))
        self._work.close()

    def _next(self, sizes: deque[int]) -> _Batch | None:
        """Return the next batch; while there is none, and now and then where there always is one, try a batch size that
        hasn't been tried."""
        self._taken += 1
        if self._taken % _EVERY == 0:
            self._try_one(sizes)
        while sizes and self._batches.empty():
            self._try_one(sizes)
        return self._batches.get()

    def _try_one(self, sizes: deque[int]) -> None:
        """Try the next larger batch; where that fails, no larger one is ever sent here."""
        if not sizes:
            return
        size = sizes.popleft()
        try:
            self._work.warm_up(size)
        except PlimsollError:
            sizes.clear()
        else:
            self._send({"warm": size})

    def _read(self) -> None:
        decoders = self._config["decoders"]
        with ThreadPoolExecutor(decoders or 1) as readers:
            while (message := frames.read(self._input)) is not None:
                if "stop" in message:
                    break
                if "free" in message:
                    with self._lock:
                        for offset in message["free"]:
                            self._blocks.free(offset)
                    continue
                pictures = [partial(self._prepare, one) for one in message["items"] if "at" in one]
                prepared = [readers.submit(picture).result for picture in pictures] if decoders else pictures
                self._batches.put(_Batch(message["batch"], message["items"], prepared))
            else:
                os._exit(0)  # nobody is there to answer
        self._batches.put(None)

    def _prepare(self, item: dict[str, Any]) -> Prepared:
        return self._work.prepare(bytes(self._inbound.view[item["at"] : item["at"] + item["size"]]))

    def _answer(self, batch: _Batch) -> dict[str, Any]:
        """Return what goes back for a batch: for each item a row, outputs or a problem; and how many milliseconds it
        took."""
        if batch.prepared:
            wanted = [
                Wanted(
                    prepared(), item.get("raw", False), item.get("top"), item.get("threshold"), item.get("masks", "rle")
                )
                for prepared, item in zip(batch.prepared, batch.items, strict=True)
            ]
            took = self._work.pictures(wanted)
            results = [one.result for one in wanted]
            decode = sum(one.prepared.seconds for one in wanted)
        else:
            results, took = self._tensors(batch.items)
            decode = 0.0
        started = time.perf_counter()
        answers = [self._packed(result) for result in results]
        took.answer += time.perf_counter() - started
        milliseconds = {"decode": 1e3 * decode, "infer": 1e3 * took.infer, "answer": 1e3 * took.answer}
        return {"batch": batch.number, "items": answers, "milliseconds": milliseconds}

    def _tensors(self, items: Sequence[dict[str, Any]]) -> tuple[list[Result], Seconds]:
        feeds = [
            {
                name: np.frombuffer(self._inbound.view[one["at"] : one["at"] + one["size"]], one["dtype"]).reshape(
                    one["shape"]
                )
                for name, one in item["feeds"].items()
            }
            for item in items
        ]
        return self._work.tensors(feeds)

    def _packed(self, result: Result) -> dict[str, Any]:
        if result.problem is not None:
            problem = result.problem
            return {
                "problem": {
                    "kind": problem.kind,
                    "message": problem.message,
                    "hint": problem.hint,
                    "status": problem.status,
                }
            }
        if result.outputs is None:
            return {"row": result.row}
        placed: dict[str, Any] = {}
        for name, value in result.outputs.items():
            data = np.ascontiguousarray(value)
            with self._lock:
                at = self._blocks.allocate(data.nbytes)
                if at is None:
                    for one in placed.values():
                        self._blocks.free(one["at"])
                    return {"problem": _no_room(data.nbytes)}
            self._outbound.view[at : at + data.nbytes] = data.reshape(-1).view(np.uint8).data
            placed[name] = {"at": at, "size": data.nbytes, "dtype": data.dtype.name, "shape": data.shape}
        return {"outputs": placed}

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_S)
            self._send({"resident": host.resident_bytes(os.getpid()) or 0})

    def _send(self, message: dict[str, Any]) -> None:
        frame = frames.pack(message)
        try:
            with self._lock:
                self._output.write(frame)
        except OSError:
            os._exit(0)  # nobody is there to read it


def _no_room(size: int) -> dict[str, Any]:
    problem = Problem(
        "unavailable", f"there is no room for an output of {size:,} bytes now", "Ask for fewer rows at once.", 503
    )
    return {"kind": problem.kind, "message": problem.message, "hint": problem.hint, "status": problem.status}


def _sizes(largest: int) -> deque[int]:
    """Return the batch sizes, but 1, that are tried before anybody gets them: OpenVINO compiles for a second when it
    meets a new one."""
    return deque(
        sorted(
            {*range(2, min(largest, _SMALL) + 1), *(1 << power for power in range(1, largest.bit_length())), largest}
            - {1}
        )
    )


def main() -> None:
    """Run a worker; what any library prints goes to standard error."""
    input_ = os.fdopen(os.dup(0), "rb")
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    host.keep_memory_level()
    config = frames.read(input_)
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
