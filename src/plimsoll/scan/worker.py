"""The process that answers the pictures of shards, started by `ShardRunner`.

It speaks JSON, a message a line. In: its `WorkerSettings`, then shards to answer. Out: `row` for each picture, in
order; `end` of a shard; `begin` before each picture where they are answered alone; `fatal` with an error that ends it.
One stream goes on across shards, so that no core waits at the end of one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from plimsoll.errors import ImageError, PlimsollError
from plimsoll.inference.pictures import Entry
from plimsoll.inference.predictor import Prediction, Predictor, load
from plimsoll.inference.rows import escaped, row
from plimsoll.scan.earlier import Earlier
from plimsoll.scan.entries import EntrySettings, Item, items_of
from plimsoll.scan.facts import FileFacts, content_hash, facts_of
from plimsoll.scan.plan import Shard
from plimsoll.system import host, subprocesses

REMEMBERED = 10_000
"""So many answers of the last pictures are remembered, to answer equal pictures of other shards without computing."""

Answers = list[dict[str, Any]]
"""For each model, the values of its row, and `error_kind` and `error`."""
Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ModelSettings:
    """How a model is opened: the arguments of `plimsoll.load`."""

    model: str
    spec: str | None = None
    target: str | None = None
    preprocessing: Any = None
    options: dict[str, str] = field(default_factory=dict)
    policy: str | None = None

    def open(self) -> Predictor:
        """Open it; raises what `plimsoll.load` raises."""
        return load(
            self.model,
            spec=self.spec,
            target=self.target,
            preprocessing=self.preprocessing,
            options=self.options,
            policy=self.policy,
        )


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker has to know beside the shards."""

    models: tuple[ModelSettings, ...]
    entries: EntrySettings
    pdq: bool = False
    threshold: float | None = None
    cores: int = 1
    earlier: str = ""
    """The folder with what another table has scored, see `Earlier`."""
    alone: bool = False
    """Whether pictures are answered one at a time, each announced by `begin`."""

    @classmethod
    def of(cls, data: dict[str, Any]) -> WorkerSettings:
        """Return the work that JSON describes."""
        models = tuple(ModelSettings(**model) for model in data.pop("models"))
        entries = data.pop("entries")
        return cls(models, EntrySettings(**{**entries, "formats": tuple(entries["formats"])}), **data)


class _ScannedEntry(Entry):
    """A picture for all models: read and hashed by whichever asks first, and held until all have it."""

    def __init__(self, scanner: Scanner, shard: Shard, item: Item, claimed: set[str], *, last: bool) -> None:
        self._scanner, self._read, self._claimed = scanner, item.read, claimed
        self.name = item.path
        self.shard, self.index, self.last = shard, item.index, last
        self.facts: FileFacts | None = None
        self.answers: Answers | None = None
        """Of an equal picture of an earlier shard."""
        self.equal = False
        """Whether an equal picture of this shard is answered."""
        self._lock = threading.Lock()
        self._left = scanner.count
        self._data: bytes | None = None
        self._error: ImageError | None = None

    def load(self) -> bytes | None:
        with self._lock:
            if self._left == self._scanner.count:
                self._open()
            self._left -= 1
            data = self._data
            if not self._left:
                self._data = None
        if self._error is not None:
            raise ImageError(self._error.message, self._error.hint)
        return data

    def _open(self) -> None:
        try:
            data = self._read()
        except ImageError as error:
            self._error = error
            return
        sha256 = content_hash(data)
        self.facts, self.answers, self.equal = self._scanner.known(data, sha256, self._claimed)
        if self.answers is None and not self.equal:
            self._data = data


class _Branches:
    """A stream of entries for each model, from one iterator; none runs ahead further than its stream holds."""

    def __init__(self, entries: Iterator[_ScannedEntry], count: int) -> None:
        self._entries = entries
        self._queues: list[deque[_ScannedEntry | None]] = [deque() for _ in range(count)]
        self._changed = threading.Condition()
        self._pulling = False

    def branch(self, number: int) -> Iterator[_ScannedEntry]:
        """Yield all entries."""
        own = self._queues[number]
        while True:
            with self._changed:
                # The iterator may wait long for the next shard: no branch must wait with it for what is there.
                self._changed.wait_for(lambda: own or not self._pulling)
                pulls = not own
                self._pulling = self._pulling or pulls
            if pulls:
                self._pull()
            entry = own.popleft()
            if entry is None:
                return
            yield entry

    def _pull(self) -> None:
        entry: _ScannedEntry | None = None
        try:
            entry = next(self._entries, None)
        finally:
            with self._changed:
                for queue in self._queues:
                    queue.append(entry)
                self._pulling = False
                self._changed.notify_all()


class Scanner:
    """Answers the pictures of shards with all models."""

    def __init__(self, work: WorkerSettings, predictors: Sequence[Predictor]) -> None:
        self._work = work
        self._predictors = predictors
        self.count = len(predictors)
        self._decode = predictors[0].spec.input.decode
        self._earlier = Earlier.open(Path(work.earlier)) if work.earlier else None
        self._recent: OrderedDict[str, tuple[FileFacts, Answers]] = OrderedDict()
        self._lock = threading.Lock()
        self._pending: deque[_ScannedEntry] = deque()
        self._answered = threading.Semaphore(0)

    def run(self, requests: Iterator[dict[str, Any]], emit: Emit) -> None:
        """Answer the shards of all requests, in order. `emit` is called from two threads."""
        branches = _Branches(self._entries(requests, emit), self.count)
        with ExitStack() as stack:
            streams = []
            for number, predictor in enumerate(self._predictors):
                stream = predictor.predict_many(branches.branch(number), threshold=self._work.threshold)
                stack.callback(stream.close)  # type: ignore[attr-defined]  # a generator
                streams.append(stream)
            for predictions in zip(*streams, strict=True):
                entry = self._pending.popleft()
                emit({"row": self._row(entry, predictions), "shard": entry.shard.number})
                if entry.last:
                    emit({"end": entry.shard.number})
                self._answered.release()

    def known(self, data: bytes, sha256: str, claimed: set[str]) -> tuple[FileFacts, Answers | None, bool]:
        """Return a file's facts, the answers to an equal picture that was answered, and whether one of the same shard
        will be. Thread-safe."""
        with self._lock:
            if sha256 in self._recent:
                self._recent.move_to_end(sha256)
                facts, answers = self._recent[sha256]
                return facts, answers, False
            if sha256 in claimed:
                return FileFacts(sha256, len(data)), None, True
            claimed.add(sha256)
        return facts_of(data, sha256, self._decode, pdq=self._work.pdq), None, False

    def _entries(self, requests: Iterator[dict[str, Any]], emit: Emit) -> Iterator[_ScannedEntry]:
        """Yield the pictures of the requests: those that are asked for, and that no earlier table has."""
        for request in requests:
            shard = Shard(**request["shard"])
            skip, only, left = frozenset(request["skip"]), request["only"], request["limit"]
            claimed: set[str] = set()
            before: Item | None = None
            for item in items_of(shard, self._work.entries):
                if item.index in skip or (only is not None and item.index not in only):
                    continue
                if self._earlier is not None and self._earlier.has(item.path, item.local):
                    continue
                if left is not None and left == 0:
                    break
                left = None if left is None else left - 1
                if before is not None:
                    yield from self._pended(_ScannedEntry(self, shard, before, claimed, last=False), emit)
                before = item
            if before is None:
                emit({"end": shard.number})
            else:
                yield from self._pended(_ScannedEntry(self, shard, before, claimed, last=True), emit)

    def _pended(self, entry: _ScannedEntry, emit: Emit) -> Iterator[_ScannedEntry]:
        self._pending.append(entry)
        if self._work.alone:
            emit({"begin": entry.index, "path": escaped(entry.name), "shard": entry.shard.number})
        yield entry
        if self._work.alone:
            self._answered.acquire()

    def _row(self, entry: _ScannedEntry, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return a picture's row as JSON; an equal picture of the same shard has `equal` in place of answers."""
        answers = entry.answers
        if answers is None and not entry.equal:
            answers = [self._values(*pair) for pair in zip(self._predictors, predictions, strict=True)]
            if entry.facts is not None:
                self._remember(entry.facts, answers)
        facts = entry.facts or FileFacts("", 0)
        return {
            "item": entry.index,
            "path": escaped(entry.name),
            "sha256": facts.sha256 or None,
            "bytes": facts.bytes if facts.sha256 else None,
            "width": facts.width,
            "height": facts.height,
            "pdq": facts.pdq,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "equal": entry.equal or entry.answers is not None,
            "answers": answers,
        }

    def _remember(self, facts: FileFacts, answers: Answers) -> None:
        if any(answer["error_kind"] not in (None, "ImageError") for answer in answers):
            return  # A runtime that failed once may not fail again.
        with self._lock:
            self._recent[facts.sha256] = facts, answers
            if len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)

    @staticmethod
    def _values(predictor: Predictor, prediction: Prediction) -> dict[str, Any]:
        values = row(prediction, predictor.task, None)
        del values["path"], values["error"]
        kind = (prediction.error_kind or "ImageError") if prediction.error is not None else None
        return {**values, "error_kind": kind, "error": prediction.error}


def open_predictors(stack: ExitStack, work: WorkerSettings) -> list[Predictor]:
    """Open all models; the stack closes them."""
    predictors = [stack.enter_context(model.open()) for model in work.models]
    for predictor in predictors:
        for network in (predictor, *predictor.networks):
            network.cores = work.cores
    return predictors


def _requests(lines: TextIO) -> Iterator[dict[str, Any]]:
    for line in lines:
        yield json.loads(line)


def main() -> int:
    """Answer what comes on standard input; return the exit code. A thread may wait for standard input then, which would
    keep the interpreter from ending: end it with `os._exit`."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # What a library prints must not come between the messages.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)  # A terminal sends them to all: the parent decides.
    lock = threading.Lock()

    def emit(message: dict[str, Any]) -> None:
        line = json.dumps(message)
        with lock:
            messages.write(line + "\n")
            messages.flush()

    host.keep_memory_level()
    if hasattr(os, "getppid"):
        threading.Thread(target=subprocesses.leave_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        with ExitStack() as stack:
            work = WorkerSettings.of(json.loads(sys.stdin.readline()))
            Scanner(work, open_predictors(stack, work)).run(_requests(sys.stdin), emit)
    except PlimsollError as error:
        emit({"fatal": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}})
        return error.exit_code
    except BrokenPipeError:
        return 1
    return 0
