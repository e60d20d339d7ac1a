"""`ShardRunner`: takes shards to their parts, with a worker process that it watches over.

Rows are stored as they come (`Unfinished`), so that a run that is killed loses only what was under way. A worker that
dies is replaced by one that answers the pictures under way alone, each announced: the one that it dies of twice gets a
row with the reason, and everything goes on as before.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plimsoll import errors
from plimsoll.errors import InputError, PlimsollError, RunError
from plimsoll.scan.plan import Shard
from plimsoll.scan.table import PartWriter
from plimsoll.scan.worker import WorkerSettings
from plimsoll.system import subprocesses

AHEAD = 2
"""So many shards a worker has at once: it begins the next while the last pictures of one are answered."""
_DEATHS_ALONE = 2
"""A picture is given up when the worker has died so often with nothing else under way."""
_DEATHS_AT_START = 3

_PROGRAM = "import os; from plimsoll.scan.worker import main; os._exit(main())"


@dataclass(frozen=True)
class Task:
    """A shard to run."""

    shard: Shard
    again: bool = False
    """Whether its part is there, and only the pictures with errors are answered again."""


@dataclass(frozen=True)
class Event:
    """What came of a row, or of a whole shard."""

    shard: int
    error: bool = False
    counts: dict[str, Any] | None = None
    """The counts of the shard, once its part is written."""


@dataclass
class Unfinished:
    """The rows of a shard so far, also in a file: what is whole there is not answered again."""

    task: Task
    file: Path
    stored: dict[int, bytes] = field(default_factory=dict)
    """Item → its row, as JSON."""
    failed: set[int] = field(default_factory=set)
    skip: set[int] = field(default_factory=set)
    only: list[int] | None = None
    before: list[dict[str, Any]] = field(default_factory=list)
    """Rows of an older part that stay."""
    begun: float = field(default_factory=time.monotonic)

    def read(self) -> None:
        """Take up what an earlier run has left; a row that was cut off is removed."""
        end = 0
        with contextlib.suppress(FileNotFoundError), self.file.open("rb") as stream:
            for line in stream:
                try:
                    row: dict[str, Any] = json.loads(line if line.endswith(b"\n") else b"")
                    self.stored[row["item"]] = line
                except (ValueError, TypeError, KeyError):
                    break
                self._note(row)
                end += len(line)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as stream:
            stream.truncate(end)

    def add(self, row: dict[str, Any]) -> bool:
        """Store a row; return whether it has an error. Raises OSError."""
        line = json.dumps(row).encode() + b"\n"
        with self.file.open("ab", buffering=0) as stream:
            stream.write(line)
        self.stored[row["item"]] = line
        return self._note(row)

    def _note(self, row: dict[str, Any]) -> bool:
        failed = any(answer["error"] is not None for answer in row["answers"] or ())
        if failed:
            self.failed.add(row["item"])
        return failed

    def request(self, limit: int | None) -> dict[str, Any]:
        """Return what a worker is asked for."""
        skip = sorted(self.skip | self.stored.keys())
        return {"shard": asdict(self.task.shard), "skip": skip, "only": self.only, "limit": limit}

    def rows(self, count: int) -> list[dict[str, Any]]:
        """Return all rows; those of equal pictures get the answers of the one that was answered."""
        rows = [json.loads(line) for line in self.stored.values()]
        answered = {row["sha256"]: row for row in rows if row["answers"] is not None}
        for row in rows:
            if row["answers"] is None:
                same = answered.get(row["sha256"])
                if same is None:  # Its file changed between two runs.
                    row["answers"] = [failure("ImageError", "the file changed during the scan")] * count
                else:
                    row |= {key: same[key] for key in ("width", "height", "pdq", "answers")}
        return [*self.before, *rows]


def failure(kind: str, message: str) -> dict[str, Any]:
    """Return a model's values for a picture without an answer."""
    return {"error_kind": kind, "error": message}


class _Worker:
    """A worker process, and the messages between."""

    def __init__(self, work: WorkerSettings, log: Path) -> None:
        self.alone = work.alone
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
            )
        self.send(asdict(work))

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; what goes to a dead process is noticed when it is read from."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self) -> dict[str, Any] | None:
        """Return the next message; None once it has ended."""
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        line = self._process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def death(self) -> str:
        """Wait for its end, and say what it was."""
        code = self._process.wait()
        said = subprocesses.last_lines(self._log, 1)
        return subprocesses.death(code) + (f": {said}" if code > 0 and said else "")

    def kill(self) -> None:
        """End it; whoever reads from it notices. From any thread."""
        self._process.kill()

    def end(self) -> None:
        """End it, and wait until it is gone."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class ShardRunner:
    """Runs shards one after another."""

    def __init__(self, work: WorkerSettings, writer: PartWriter, partial: Path) -> None:
        self._work, self._writer, self._partial = work, writer, partial
        self._worker: _Worker | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._active: dict[int, Unfinished] = {}
        self._suspects: list[int] = []
        """Shards whose next pictures are answered alone, the current one first."""
        self._begun: tuple[int, int, str] | None = None
        """Shard, item and path of the picture that is answered alone."""
        self._deaths: Counter[tuple[int, int]] = Counter()
        self._deaths_at_start = 0
        self._window = 260 + 18 * work.cores
        """At least as many pictures as a worker has under way."""

    def run(self, tasks: Iterator[Task]) -> Iterator[Event]:
        """Run shards; raises InputError where the table can't be written, and what the models raise."""
        try:
            while not self._stopped.is_set():
                yield from self._fill(tasks)
                if not self._active:
                    return
                message = self._running().receive()
                if message is None:
                    yield from self._died()
                else:
                    yield from self._take(message)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            self._end_worker()

    def stop(self) -> None:
        """End `run` soon; what is stored stays. From any thread."""
        self._stopped.set()
        with self._lock:
            if self._worker is not None:
                self._worker.kill()

    def _fill(self, tasks: Iterator[Task]) -> Iterator[Event]:
        while len(self._active) < AHEAD and not self._suspects and (task := next(tasks, None)) is not None:
            shard = task.shard
            unfinished = Unfinished(task, self._partial / f"{shard.name}{'-again' * task.again}.jsonl")
            unfinished.read()
            if task.again:
                rows = self._writer.rows(shard)
                unfinished.only = [row["item"] for row in rows if _has_error(row)]
                unfinished.before = [row for row in rows if not _has_error(row)]
                unfinished.stored = {
                    item: unfinished.stored[item] for item in unfinished.only if item in unfinished.stored
                }
            for item in unfinished.stored:
                yield Event(shard.number, item in unfinished.failed)
            self._active[shard.number] = unfinished
            if self._worker is not None:
                self._worker.send(unfinished.request(None))

    def _running(self) -> _Worker:
        """Return the worker; a new one is given what is to be done."""
        if self._worker is None:
            self._partial.mkdir(parents=True, exist_ok=True)
            work = replace(self._work, alone=bool(self._suspects))
            with self._lock:
                if self._stopped.is_set():
                    raise OSError("stopped")
                self._worker = _Worker(work, self._partial / f"worker-{id(self)}.log")
            self._begun = None
            if self._suspects:
                self._worker.send(self._active[self._suspects[0]].request(self._window))
            else:
                for unfinished in self._active.values():
                    self._worker.send(unfinished.request(None))
        return self._worker

    def _take(self, message: dict[str, Any]) -> Iterator[Event]:
        if "row" in message:
            unfinished = self._active[message["shard"]]
            self._deaths_at_start, self._begun = 0, None
            yield Event(message["shard"], unfinished.add(message["row"]))
        elif "begin" in message:
            self._begun = message["shard"], message["begin"], message["path"]
        elif "end" in message and self._suspects:
            self._suspects.pop(0)
            if self._suspects:
                self._running().send(self._active[self._suspects[0]].request(self._window))
            else:
                self._end_worker()
        elif "end" in message:
            yield self._finish(message["end"])
        elif "fatal" in message:
            fatal = message["fatal"]
            raise getattr(errors, fatal["kind"], PlimsollError)(fatal["message"], fatal["hint"])

    def _finish(self, number: int) -> Event:
        unfinished = self._active.pop(number)
        rows = unfinished.rows(len(self._work.models))
        seconds = time.monotonic() - unfinished.begun
        counts = self._writer.write(unfinished.task.shard, rows, seconds)
        unfinished.file.unlink(missing_ok=True)
        return Event(number, counts=counts)

    def _died(self) -> Iterator[Event]:
        """The worker has ended by itself: look at the pictures that it had under way, one by one."""
        worker = self._worker
        assert worker is not None  # noqa: S101 - it was read from
        reason = worker.death()
        self._end_worker()
        if self._stopped.is_set():
            return
        culprit = self._begun
        if worker.alone and culprit is not None:
            self._deaths[culprit[:2]] += 1
            if self._deaths[culprit[:2]] >= _DEATHS_ALONE:
                yield self._give_up(*culprit, reason)
            return
        self._deaths_at_start += 1
        if self._deaths_at_start >= _DEATHS_AT_START:
            raise RunError(
                f"the process that answers pictures was {reason}, {_DEATHS_AT_START} times before it answered any",
                "Check the model with `plimsoll predict` and `plimsoll verify`.",
            )
        self._suspects = list(self._active)

    def _give_up(self, shard: int, item: int, path: str, reason: str) -> Event:
        message = f"this picture ends the process that answers it, which was {reason}"
        row = {
            **dict.fromkeys(("sha256", "bytes", "width", "height", "pdq")),
            "item": item,
            "path": path,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "equal": False,
            "answers": [failure("Crash", message)] * len(self._work.models),
        }
        return Event(shard, self._active[shard].add(row))

    def _end_worker(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"can't write the table: {error.strerror or error}; the rows so far are kept",
            "Make room, and run the same command again: it goes on where this one ended.",
        )


def _has_error(row: dict[str, Any]) -> bool:
    return any(answer["error"] is not None for answer in row["answers"])
