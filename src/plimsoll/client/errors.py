"""What can go wrong between a client and a service.

```
PlimsollError
└─ ServiceError            the service failed, or the client doesn't understand its reply
   ├─ UnreachableError     no connection, or it broke before the whole answer was there
   ├─ DeadlineError        no answer in time
   ├─ BusyError            429 or 503, at the last attempt
   ├─ RejectedError        the request is invalid or not allowed: any other 4xx
   └─ ItemError            one picture got no answer; the others of its request did
```

None of them says anything about a picture's content: unknown is never "safe".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from plimsoll.errors import PlimsollError

_NOTHING: Mapping[str, float] = MappingProxyType({})


class ServiceError(PlimsollError):
    """A call got no answer.

    `status` is the HTTP status, or None where there was no answer at all; `kind` is the service's word for the sort of
    problem; `request_id` finds the call in the service's log.
    """

    http_status = 502

    of_picture = False
    """Whether it is the only picture of its request that got no answer, not the request."""

    def __init__(
        self, message: str, hint: str = "", *, status: int | None = None, kind: str = "", request_id: str | None = None
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.kind = kind
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.hint), self.__dict__


class UnreachableError(ServiceError):
    """There was no connection, or it broke before the whole answer was there."""


class DeadlineError(ServiceError):
    """There was no answer in time."""

    http_status = 504


class BusyError(ServiceError):
    """The service answered 429 or 503, at the last attempt. `retry_after` are the seconds that it asked to wait, if it
    did."""

    http_status = 503
    retry_after: float | None = None


class RejectedError(ServiceError):
    """The request is invalid or not allowed; sending it again would change nothing."""

    exit_code = 2


class ItemError(ServiceError):
    """One picture got no answer. Among several it is in a `Result`; `predict` of a single picture raises it."""

    name = ""
    """The picture's."""
    milliseconds: Mapping[str, float] = _NOTHING
    """How long what was done for it took."""
