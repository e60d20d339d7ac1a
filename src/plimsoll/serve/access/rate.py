"""Token buckets: a rate that holds in the long run, with a burst on top."""

from __future__ import annotations

import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BeforeValidator

_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*/\s*(s|m|h|d)", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Rate:
    """So many in so many seconds, written `10/s`, `600/m`, `5000/h` or `50000/d`."""

    count: float
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a rate; raises ValueError."""
        match = _RATE.fullmatch(text.strip())
        if match is None or float(match[1]) <= 0:
            raise ValueError(f"{text[:40]!r} is not a rate; expected for example 10/s, 600/m, 5000/h or 50000/d")
        return cls(float(match[1]), _SECONDS[match[2]])

    @property
    def per_second(self) -> float:
        """How many a second, in the long run."""
        return self.count / self.seconds

    def __str__(self) -> str:
        unit = next(unit for unit, seconds in _SECONDS.items() if seconds == self.seconds)
        return f"{self.count:g}/{unit}"


def _parsed(value: Any) -> Any:
    return Rate.parse(value) if isinstance(value, str) else value


RateText = Annotated[Rate, BeforeValidator(_parsed)]
"""A Rate in settings and files, written as a text."""


@dataclass(frozen=True)
class Limit:
    """A rate, and how many may come at once after a quiet time."""

    rate: Rate
    burst: float

    @classmethod
    def of(cls, rate: Rate, burst: int | None) -> Self:
        """Return the limit; without a burst, as many as come in a second, and at least one."""
        return cls(rate, float(burst) if burst is not None else max(1.0, math.ceil(rate.per_second)))


class TokenBucket:
    """What one caller has left."""

    def __init__(self, limit: Limit, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._left = limit.burst
        self._since = clock()

    @property
    def limit(self) -> Limit:
        """What it may hold, and how fast it fills."""
        return self._limit

    def change(self, limit: Limit) -> None:
        """Set another limit; what was used stays used."""
        self._fill()
        self._limit = limit
        self._left = min(self._left, limit.burst)

    def take(self) -> float:
        """Take one and return 0.0, or take none and return the seconds until there is one."""
        self._fill()
        if self._left < 1.0:
            return (1.0 - self._left) / self._limit.rate.per_second
        self._left -= 1.0
        return 0.0

    def owe(self, count: float) -> None:
        """Take what is known only afterwards; what isn't there is owed, and later callers wait for it."""
        self._left -= count

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(self._limit.burst, self._left + (now - self._since) * self._limit.rate.per_second)
        self._since = now


class TokenBuckets:
    """A bucket for each caller; of at most `limit` callers, the least recent are forgotten."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def of(self, caller: Hashable, limit: Limit) -> TokenBucket:
        """Return a caller's bucket, full where it is new; a changed limit holds at once."""
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = TokenBucket(limit, self._clock)
            if len(self._buckets) > self._limit:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(caller)
        if bucket.limit is not limit and bucket.limit != limit:
            bucket.change(limit)
        return bucket

    def __len__(self) -> int:
        return len(self._buckets)
