"""The log of a service: JSON for machines, text for a terminal, written by a thread of its own.

A full pipe behind standard error (a stalled collector, a paused terminal) blocks its writer. That must not be the
event loop, so lines pass through a bounded queue; when the thread can't keep up, lines are dropped and counted,
and the count is logged.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

_GATHER_S = 0.05
"""Lines are written together, so that a busy event loop is not interrupted for each."""
_QUEUE_LIMIT = 10_000
_PIPE_BYTES = 4096
"""What goes into a pipe whole: PIPE_BUF of Linux. Several web processes share standard error."""


class LogSettings(BaseModel):
    """What is logged, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["auto", "json", "text"] = "auto"
    """`auto` is text on a terminal, else JSON lines."""
    requests: bool = True
    """Whether each request gets a line."""
    sample: float = Field(1.0, ge=0, le=1)
    """The share of successful requests that get a line; failed ones always do."""
    quiet: tuple[Annotated[str, Field(pattern="^/")], ...] | None = None
    """Paths whose successful requests get no line; by default those that monitoring polls every few seconds."""
    clients: Literal["address", "network", "nothing"] = "address"
    """What is logged of a caller: its address, its /24 or /48 network, or nothing."""

    def as_json(self) -> bool:
        """Whether lines are JSON here."""
        return self.format == "json" or (self.format == "auto" and not sys.stderr.isatty())


class Writable(Protocol):
    """A text stream."""

    def write(self, text: str, /) -> object:
        """Write."""
        ...

    def flush(self) -> object:
        """Write through."""
        ...


class LineHandler(QueueHandler):
    """Takes lines without ever waiting, and has a thread write them. Python's logging closes it at exit."""

    def __init__(
        self,
        render: Callable[[Mapping[str, Any]], str],
        stream: Writable | None = None,
        limit: int = _QUEUE_LIMIT,
    ) -> None:
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        super().__init__(lines)
        self._lines, self._render, self._limit = lines, render, limit
        self._dropped = 0
        self._writer = _Writer(lines, stream or sys.stderr, self._take_dropped)
        self._writer.start()

    def put(self, fields: Mapping[str, Any]) -> None:
        """Write a line that is no log record, such as that of a request."""
        self.enqueue(fields)

    def prepare(self, record: logging.LogRecord) -> Mapping[str, Any]:
        """Return the fields of a record's line."""
        fields = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
        return fields

    def enqueue(self, record: Any) -> None:
        """Queue a line's fields, rendered; drop the line where the queue is full."""
        if self._lines.qsize() >= self._limit:
            self._dropped += 1
        else:
            self._lines.put(self._render(record))

    def close(self, seconds: float = 2.0) -> None:
        """Write what is queued, for at most so many seconds; calling it twice is harmless."""
        self._writer.close(seconds)
        super().close()

    def _take_dropped(self) -> str:
        """Return the line that says how many were dropped since the last one; empty where none were."""
        dropped, self._dropped = self._dropped, 0
        if not dropped:
            return ""
        message = "log lines were dropped: they are not read fast enough"
        return self._render({"time": timestamp(), "level": "warning", "message": message, "dropped": dropped})


class _Writer(QueueListener):
    """The thread that writes lines, those that are queued together in one call."""

    def __init__(self, lines: queue.SimpleQueue[str | None], stream: Writable, dropped: Callable[[], str]) -> None:
        super().__init__(lines)
        self._lines, self._stream, self._take_dropped = lines, stream, dropped
        self._closing = threading.Event()
        self._broken = False

    def handle(self, record: Any) -> None:
        """Write a line and those behind it, then wait for more to gather."""
        lines = [record]
        while not self._lines.empty():
            if (line := self._lines.get()) is None:
                self._lines.put(None)  # tells QueueListener to end, after this
                break
            lines.append(line)
        lines.append(self._take_dropped())
        if not self._broken:
            try:
                for part in _parts(lines):
                    self._stream.write(part)
                    self._stream.flush()
            except (OSError, ValueError):  # standard error was closed
                self._broken = True
        self._closing.wait(_GATHER_S)

    def close(self, seconds: float) -> None:
        """Write what is queued, for at most so many seconds: the stream may be stalled for ever."""
        if not self._closing.is_set():
            self._closing.set()
            self.enqueue_sentinel()
        if self._thread is not None:
            self._thread.join(seconds)


def _parts(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines, as many together as a pipe takes at once from one of several writers without tearing them."""
    part = ""
    for line in lines:
        if part and len(part) + len(line) > _PIPE_BYTES:
            yield part
            part = ""
        part += line
    yield part


def start(settings: LogSettings, stream: Writable | None = None) -> LineHandler:
    """Send all that this process logs (Plimsoll's loggers and uvicorn's) through a LineHandler, and return it for the
    lines of requests."""
    handler = LineHandler(as_json if settings.as_json() else as_text, stream)
    for name in ("plimsoll", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    return handler


def timestamp(seconds: float | None = None) -> str:
    """Return a time (default: now) as ISO 8601 in UTC with milliseconds."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


_JSON = json.JSONEncoder(separators=(",", ":"), default=str)


def as_json(fields: Mapping[str, Any]) -> str:
    """Return a line of JSON. It is ASCII: no character that a caller sends can end the line, or turn a terminal's text
    around."""
    return _JSON.encode(fields) + "\n"


_FIRST = ("level", "status", "method", "path", "milliseconds", "message")


def as_text(fields: Mapping[str, Any]) -> str:
    """Return a line for people: the time of day, what happened, and the rest as `name=value`."""
    words = [str(fields.get("time", ""))[11:19]]
    words += [
        f"{fields[name]:.1f} ms" if name == "milliseconds" else _escaped(fields[name])
        for name in _FIRST
        if name in fields
    ]
    words += [
        f"{_escaped(name)}={_value(value)}"
        for name, value in fields.items()
        if name not in (*_FIRST, "time", "logger", "exception")
    ]
    exception = fields.get("exception", "")
    indented = "".join(f"\n    {_escaped(line)}" for line in str(exception).splitlines())
    return " ".join(words) + indented + "\n"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{_escaped(key)}:{_escaped(item)}" for key, item in value.items())
    return _escaped(value)


def _escaped(value: object) -> str:
    """Return a value's text with every character escaped that is not printable."""
    text = str(value)
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    )
