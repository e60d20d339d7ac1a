"""One call until it is answered: what to send, when to retry, when to give up. No I/O and no clock of its own, so that
each rule can be tested by itself.

A call is retried where that can help and can't harm:

- 429 and 503: after the seconds of the service's `Retry-After` (at most a minute), else after a pause that doubles;
- no connection: nothing was sent, so nothing was done;
- a connection that closed without a byte of a reply: once. The other side may close an idle connection at the moment of
  its next use (RFC 9112, 9.3.1), and no request of this client changes anything, so sending it twice is safe
  (RFC 9110, 9.2.2).

Never after another 4xx, and never past the deadline. Pauses are randomized, so that many clients don't come back at
once.
"""

from __future__ import annotations

import email.utils
import json
import math
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from plimsoll.client.errors import BusyError, DeadlineError, RejectedError, ServiceError, UnreachableError
from plimsoll.core.wording import printable

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_LONGEST_HINT_S = 60.0
_SPREAD = 0.25
"""Added to the service's hint at random, as a share of it."""
_QUOTED = 200


class PredictOptions(TypedDict, total=False):
    """What a caller may set for a prediction."""

    model: str | None
    """A model's name; only a service with a single model needs none."""
    top: int | None
    """Only so many labels, the best ones."""
    threshold: float | None
    """Replaces the Spec's."""
    priority: Literal[-1, 0, 1]
    """1 goes before 0, 0 before -1."""
    timeout: float | None
    """Seconds for each request with all its attempts; replaces the client's. The service drops requests whose client
    has given up."""


class ClipOptions(PredictOptions, total=False):
    """What a caller may set for a clip."""

    track: bool
    """Number the objects: boxes get a `track`."""
    smooth: bool
    """Take the tremble out of points."""
    clip_score: str | None
    """`worst`, `nth=N` or `share=5%`: one result, with the clip's score and segments."""
    early_exit: bool
    """With `clip_score`: read no more of a clip that is flagged."""


@dataclass(frozen=True)
class Call:
    """An HTTP request, ready to be sent as often as it takes."""

    method: Literal["GET", "POST"]
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        """Return the parsed body; raises ServiceError where it is not JSON."""
        try:
            return json.loads(self.body, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise ServiceError(
                f"the service's reply is not JSON: {quoted(self.body)}",
                "Is this the address of `plimsoll serve`?",
                status=self.status,
            ) from error


class AttemptError(Exception):
    """An attempt that brought no reply; `Exchange` decides what follows, so no caller sees it."""

    def __init__(self, reason: str, stage: Literal["unsent", "dropped", "late", "broken"]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.stage = stage
        """`unsent`: no connection; `dropped`: closed without a byte of a reply; `late`: out of time; `broken`:
        anything else."""


class Exchange:
    """The state of one call: how often it was attempted, and how much of its time is left."""

    def __init__(
        self,
        call: Call,
        retries: int,
        timeout: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.call = call
        self.request_id = secrets.token_hex(8)
        """The same for all attempts: the service's log shows them together."""
        self._retries = retries
        self._failures = 0
        self._dropped = False
        self._timeout = timeout
        self._clock = clock
        self._chance = chance
        self._deadline = clock() + timeout

    def remaining(self) -> float:
        """Return the seconds that are left; raises DeadlineError where there are none."""
        left = self._deadline - self._clock()
        if left <= 0:
            raise self._late("")
        return left

    def after_reply(self, reply: Reply) -> float | None:
        """Return the seconds until the next attempt, or None where `reply` is the answer; raises ServiceError where no
        further attempt helps."""
        if 200 <= reply.status < 300:
            return None
        error = error_of(reply, self.request_id)
        if not isinstance(error, BusyError):
            raise error
        hint = min(error.retry_after or 0.0, _LONGEST_HINT_S)
        return self._retry_after(max(self._pause(), hint * (1 + _SPREAD * self._chance())), error)

    def after_failure(self, failure: AttemptError) -> float:
        """Return the seconds until the next attempt; raises UnreachableError or DeadlineError where none helps."""
        if failure.stage == "late":
            raise self._late(failure.reason) from failure
        error = UnreachableError(
            f"no answer from the service: {failure.reason}",
            "Is the service running, and is this its address?",
            request_id=self.request_id,
        )
        first_drop = failure.stage == "dropped" and not self._dropped
        self._dropped |= failure.stage == "dropped"
        if failure.stage == "unsent" or first_drop:
            return self._retry_after(self._pause(), error)
        raise error from failure

    def _retry_after(self, pause: float, error: ServiceError) -> float:
        self._failures += 1
        if self._failures > self._retries or pause >= self._deadline - self._clock():
            raise error
        return pause

    def _pause(self) -> float:
        return min(_FIRST_PAUSE_S * 2.0**self._failures, _LONGEST_PAUSE_S) * (0.5 + 0.5 * self._chance())

    def _late(self, reason: str) -> DeadlineError:
        return DeadlineError(
            f"no answer within {self._timeout:g} s{f': {reason}' if reason else ''}",
            "Give it a longer timeout.",
            request_id=self.request_id,
        )


def error_of(reply: Reply, request_id: str | None = None) -> ServiceError:
    """Return the error that an unsuccessful reply stands for."""
    words = _error_fields(reply)
    kind = ServiceError
    if reply.status in (429, 503):
        kind = BusyError
    elif reply.status in (408, 504):
        kind = DeadlineError
    elif 400 <= reply.status < 500:
        kind = RejectedError
    elif 300 <= reply.status < 400:
        words["message"] = f"the service redirects to {_one_line(reply.headers.get('location', ''))}"
        words["hint"] = "Give the client that address; it follows no redirects, so that a key goes nowhere else."
    error = kind(
        words["message"],
        words["hint"] or _HINTS.get(reply.status, ""),
        status=reply.status,
        kind=words["kind"],
        request_id=reply.headers.get("x-request-id", request_id),
    )
    error.of_picture = words["of"] == "picture"
    if isinstance(error, BusyError):
        error.retry_after = retry_after(reply.headers.get("retry-after"))
    return error


_HINTS = {
    401: "Give the client a key: Client(url, key=…).",
    403: "The key's role does not allow this.",
    404: "Client.models() lists the served models.",
}


def _error_fields(reply: Reply) -> dict[str, str]:
    """Read `{"error": {"kind", "message", "hint"}}`, the same of a request's only picture, or `{"error": text}`;
    anything else is quoted."""
    try:
        body = reply.json()
    except ServiceError:
        body = None  # a proxy's page, for example
    items = body.get("results") if isinstance(body, dict) else None
    lone = items[0] if isinstance(items, list) and len(items) == 1 else None
    error = lone.get("error") if isinstance(lone, dict) else body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict) or not error.get("message"):
        error = {"message": f"HTTP {reply.status}{': ' if reply.body else ''}{quoted(reply.body)}"}
    return {
        "of": "picture" if lone else "request",
        **{name: _one_line(str(error.get(name) or "")) for name in ("kind", "message", "hint")},
    }


def retry_after(text: str | None, now: Callable[[], float] = time.time) -> float | None:
    """Read a `Retry-After` header (RFC 9110, 10.2.3): seconds, or a date. None where it says nothing of use."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - now()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def quoted(body: bytes) -> str:
    """Return the beginning of a body, fit to be shown."""
    text = _one_line(body[: 4 * _QUOTED].decode("utf-8", "replace"))
    return text if len(text) <= _QUOTED else text[:_QUOTED] + " …"


def _one_line(text: str) -> str:
    return " ".join(printable(text, replacement=" ").split())


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
