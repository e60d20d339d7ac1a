"""What every request goes through, whichever protocol it comes by.

```
recorded        its line in the log and its counts, whatever came of it
└─ handled
   ├─ authorize    a key, and its right          plimsoll.serve.access
   ├─ limit        how often the caller may ask
   ├─ trace        a span                        plimsoll.serve.tracing
   └─ handle       the interface's own code, which reads the request within a `ReceiveLimit`
```

`plimsoll.serve.http.app` and `plimsoll.serve.grpc.handler` adapt it to their protocols: they make a `RequestContext`,
and write an error as their callers read it.
"""

from __future__ import annotations

import ipaddress
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from plimsoll.errors import PlimsollError
from plimsoll.serve.access.authorizer import Admission, Authorizer
from plimsoll.serve.access.proxies import TrustedProxies
from plimsoll.serve.log import LineHandler, LogSettings, timestamp
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.request import RequestContext
from plimsoll.serve.tracing import Tracing

MAX_PATH = 200
"""Characters of a path in the log and in traces."""
_log = logging.getLogger("plimsoll.serve")
_T = TypeVar("_T")


class Pipeline:
    """What all requests go through. Without an authorizer everybody may ask, without lines nothing is logged, without
    tracing there are no spans."""

    def __init__(
        self,
        metrics: Metrics,
        log: LogSettings,
        authorizer: Authorizer | None = None,
        lines: LineHandler | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.authorizer = authorizer
        self.proxies = TrustedProxies(authorizer.settings.trusted_proxies if authorizer is not None else ())
        self._metrics = metrics
        self._settings = log
        self._lines = lines if log.requests else None
        self._tracing = tracing

    @contextmanager
    def recorded(self, context: RequestContext) -> Iterator[None]:
        """Log and measure what a block does for a request, whatever comes of it."""
        try:
            yield
        except Exception as error:
            context.failure = error
            raise
        finally:
            self._record(context)

    async def handled(
        self,
        context: RequestContext,
        handle: Callable[[], Awaitable[_T]],
        fail: Callable[[PlimsollError], Awaitable[_T]],
        admission: Admission | None = None,
    ) -> _T:
        """Return what `handle` returns where the caller is admitted; `fail` answers with an error.

        `admission`: where the caller has been admitted already.
        """
        try:
            admission = admission or await self.authorize(context)
        except RequestError as refused:
            return await fail(refused)
        with self._traced(context):
            try:
                return await handle()
            except Exception as error:
                if context.answered_ns is not None:
                    raise  # it is too late for another answer: the connection is cut
                if isinstance(error, PlimsollError):
                    return await fail(error)
                _log.exception("a bug at %s", context.path)
                context.failure = error
                return await fail(RequestError(BUG))
            finally:
                admission.settle(context.pictures or 1)

    async def authorize(self, context: RequestContext) -> Admission:
        """Admit a caller; raises RequestError: 401, 403, or 429 where it asks too often."""
        if self.authorizer is None or context.right is None:
            return Admission()
        admission = await self.authorizer.admit(context.caller(), context.right)
        if admission.key is not None:
            context.key = admission.key.name
        return admission

    @contextmanager
    def _traced(self, context: RequestContext) -> Iterator[None]:
        if self._tracing is None or context.operation.probe:
            yield
            return
        span = self._tracing.begin(context)
        try:
            yield
        except Exception as error:
            context.failure, context.server_fault = error, True
            raise
        finally:
            self._tracing.end(span, context)

    def _record(self, context: RequestContext) -> None:
        interface, seconds = context.operation.interface, time.perf_counter() - context.started
        self._metrics.requests.labels(context.model, interface, str(context.status or 0)).inc()
        self._metrics.request_seconds.labels(context.model, interface).observe(seconds)
        if self._lines is not None and self._is_logged(context):
            self._lines.put(line_fields(context, seconds, self._settings))

    def _is_logged(self, context: RequestContext) -> bool:
        """Whether a request gets a line: failures always do; the others by the sample, and not on quiet paths."""
        if not context.succeeded:
            return True
        quiet = self._settings.quiet
        if context.operation.probe if quiet is None else context.path in quiet:
            return False
        return self._settings.sample >= 1 or random.random() < self._settings.sample


class TooMuchReceivedError(RequestError):
    """More is being received than the service may hold."""


class ReceiveLimit:
    """How many bytes are held while they are being received. One for a service, used from its event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.bytes = 0

    @contextmanager
    def counted(self) -> Iterator[ReceivedShare]:
        """Count what one request receives until its block ends."""
        share = ReceivedShare(self)
        try:
            yield share
        finally:
            self.bytes -= share.bytes

    def add(self, count: int) -> None:
        """Count more; raises TooMuchReceivedError (503) where that is too much."""
        if self.bytes + count > self._limit:
            raise TooMuchReceivedError(
                Problem("overloaded", "too much is being received at once", "Try again later.", 503, 1.0)
            )
        self.bytes += count


@dataclass
class ReceivedShare:
    """What one request holds of the limit."""

    whole: ReceiveLimit
    bytes: int = 0

    def add(self, count: int) -> None:
        """Count more; raises TooMuchReceivedError."""
        self.whole.add(count)
        self.bytes += count


def too_slow(what: str, seconds: float) -> RequestError:
    """Return the refusal (408) of a request that doesn't arrive in time."""
    return RequestError(Problem("input", f"the {what} had not arrived after {seconds:g} s", "Send it faster.", 408))


BUG = Problem("failed", "this is a bug in Plimsoll", "Its log says more; please report it.", 500)


def problem_of(error: PlimsollError) -> Problem:
    """Return what an error means for the caller."""
    return error.problem if isinstance(error, RequestError) else Problem.of(error)


def line_fields(context: RequestContext, seconds: float, settings: LogSettings) -> dict[str, Any]:
    """Return the log line of a request that is over.

    It never has a picture, a file name, a key, or a value of the query other than the numbers that this service knows.
    """
    fields: dict[str, Any] = {
        "time": timestamp(),
        "status": context.status,
        "method": context.method,
        "path": context.path[:MAX_PATH],
        "milliseconds": round(1e3 * seconds, 2),
        "request_id": context.request_id,
        "bytes_in": context.bytes_in,
        "bytes_out": context.bytes_out,
    }
    known = {
        "model": context.model,
        "pictures": context.pictures,
        "key": context.key,
        "trace_id": context.trace_id,
        "stages": longest(context.milliseconds),
        "options": context.options,
    }
    fields |= {name: value for name, value in known.items() if value}
    if settings.clients != "nothing" and context.address:
        fields["client"] = context.address if settings.clients == "address" else masked(context.address)
    if context.gone:
        fields["gone"] = True
    if context.failure is not None:
        fields["error"] = type(context.failure).__name__
    return fields


def longest(pictures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return how long each stage took for the picture for which it took longest."""
    stages: dict[str, float] = {}
    for picture in pictures:
        for stage, milliseconds in picture.items():
            if milliseconds > stages.get(stage, -1.0):
                stages[stage] = milliseconds
    return {stage: round(milliseconds, 2) for stage, milliseconds in stages.items()}


@lru_cache(65_536)
def masked(address: str) -> str:
    """Return an address without the bits that tell households apart: its /24 (IPv4) or /48 (IPv6) network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return str(ipaddress.ip_network((address, 24 if parsed.version == 4 else 48), strict=False))
