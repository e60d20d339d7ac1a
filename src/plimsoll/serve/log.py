"""Log lines: JSON for machines, text for a terminal, written by a thread of their own.

A full pipe behind standard error (a stalled collector, a paused terminal) blocks who writes to it. That must not be the
event loop, so lines are handed to a thread; when it can't keep up, lines are dropped and counted, and the count is
logged.
"""

from __future__ import annotations

import atexit
import json
import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

_GATHER_S = 0.05
"""Lines are written together, so that a busy event loop is not interrupted for each."""
_MOST_LINES = 10_000


PROBES = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/v2/health/live",
    "/v2/health/ready",
    "/grpc.health.v1.Health/Check",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)
"""What is asked every few seconds by whoever watches a service; of gRPC the procedures."""


class LogSettings(BaseModel):
    """What is logged, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: Literal["auto", "json", "text"] = "auto"
    """`auto` is text on a terminal, else JSON lines."""
    requests: bool = True
    """A line for each request."""
    sample: float = Field(1.0, ge=0, le=1)
    """The share of good answers that get a line; errors always do."""
    quiet: tuple[Annotated[str, Field(pattern="^/")], ...] = PROBES
    """Paths that probes ask every few seconds: no line where the answer is good."""
    clients: Literal["address", "network", "nothing"] = "address"
    """What is logged of who asks: the address, its /24 or /48 network, or nothing."""

    def as_json(self) -> bool:
        """Whether lines are JSON here."""
        return self.form == "json" or (self.form == "auto" and not sys.stderr.isatty())


class Writable(Protocol):
    """A text stream."""

    def write(self, text: str, /) -> object:
        """Write."""
        ...

    def flush(self) -> object:
        """Write through."""
        ...


class Lines:
    """Takes lines without ever waiting, and writes them in a thread."""

    def __init__(
        self, render: Callable[[Mapping[str, Any]], str], stream: Writable | None = None, most: int = _MOST_LINES
    ) -> None:
        self._render = render
        self._stream = stream or sys.stderr
        self._most = most
        self._waiting: deque[str] = deque()
        self._lost = 0
        self._something = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="plimsoll-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def put(self, fields: Mapping[str, Any]) -> None:
        """Take a line."""
        if len(self._waiting) >= self._most:
            self._lost += 1
            return
        self._waiting.append(self._render(fields))
        if not self._something.is_set():
            self._something.set()

    def close(self, seconds: float = 2.0) -> None:
        """Write what waits, for at most so many seconds; calling it twice is harmless."""
        self._closing.set()
        self._something.set()
        self._thread.join(seconds)
        atexit.unregister(self.close)

    def _write(self) -> None:
        while not (self._closing.is_set() and not self._waiting):
            self._something.wait()
            self._something.clear()
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            lost, self._lost = self._lost, 0
            if lost:
                lines.append(
                    self._render(
                        {
                            "time": timestamp(),
                            "level": "warning",
                            "message": "lines were lost: they are not taken fast enough",
                            "lost": lost,
                        }
                    )
                )
            try:
                self._stream.write("".join(lines))
                self._stream.flush()
            except (OSError, ValueError):  # standard error was closed; there is nobody to tell
                return
            self._closing.wait(_GATHER_S)


class LineHandler(logging.Handler):
    """Sends the records of Python's logging the same way."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record over."""
        fields = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
        self._lines.put(fields)


def start(settings: LogSettings, stream: Writable | None = None) -> Lines:
    """Send all that this process logs (Plimsoll's loggers and uvicorn's) through Lines, and return them for the access
    log."""
    lines = Lines(as_json if settings.as_json() else as_text, stream)
    for name in ("plimsoll", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [LineHandler(lines)]
        logger.propagate = False
    return lines


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
        f"{fields[name]:.1f} ms" if name == "milliseconds" else plain(fields[name]) for name in _FIRST if name in fields
    ]
    words += [
        f"{plain(name)}={_value(value)}"
        for name, value in fields.items()
        if name not in (*_FIRST, "time", "logger", "exception")
    ]
    exception = fields.get("exception", "")
    indented = "".join(f"\n    {plain(line)}" for line in str(exception).splitlines())
    return " ".join(words) + indented + "\n"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{plain(name)}:{plain(one)}" for name, one in value.items())
    return plain(value)


def plain(value: object) -> str:
    """Return a value's text with everything escaped that is no printable character."""
    text = str(value)
    return (
        text
        if text.isprintable()
        else "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    )
