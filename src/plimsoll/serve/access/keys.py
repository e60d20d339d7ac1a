"""API keys, the TOML file that holds them, the keys of a running service, and their rates: token buckets, which allow a
burst on top of a rate that holds in the long run.

A key is `plm_`, eight hexadecimal digits that name it (they may be shown), `_`, and 256 random bits. The file holds its
SHA-256 alone, so reading the file gives nobody a usable key. A slow, salted hash (scrypt, argon2) is for passwords,
which people choose and which can be guessed; 256 random bits can't be, however fast the hash is (NIST SP 800-63B,
5.1.2.2: salt and stretching are for look-up secrets of less than 112 bits), and a slow hash would let anyone keep the
service busy with wrong keys. That holds only for random keys, so keys are made here and never chosen.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import re
import secrets
import time
import tomllib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from plimsoll.core.wording import explain
from plimsoll.errors import InputError
from plimsoll.system import files

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


Role = Literal["predict", "metrics", "admin"]
"""`predict` asks models and reads what they are; `metrics` reads /metrics alone; `admin` does both and loads and
unloads models."""

TOKEN = re.compile(rb"plm_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
MAX_FILE_BYTES = 4 * 1024 * 1024

_HEADER = (
    "# API keys of `plimsoll serve`, hashed. Written by `plimsoll keys`; a running service takes changes within a"
    " second.\n\n"
)
_NO_DIGEST = bytes(32)
_log = logging.getLogger("plimsoll.serve")
_RateField = Annotated[RateText, PlainSerializer(str)]


class Key(BaseModel):
    """One key, as the file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,63}$")
    """Who uses it; it stands in logs."""
    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    """The beginning of the key."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the whole key."""
    role: Role = "predict"
    rate: _RateField | None = None
    """For example `10/s`; unlimited where it isn't given."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many may come at once after a quiet time."""
    counts: Literal["requests", "pictures"] = "requests"
    """What the rate counts."""
    created: AwareDatetime | None = None
    expires: AwareDatetime | None = None

    @cached_property
    def limit(self) -> Limit | None:
        """Return its rate limit, if it has one."""
        return Limit.of(self.rate, self.burst) if self.rate is not None else None

    def expired(self, now: float) -> bool:
        """Whether it is past its end, at `now` in seconds since 1970."""
        return self.expires is not None and now >= self.expires.timestamp()


class KeyFile(BaseModel):
    """All keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _keys_are_unique(self) -> Self:
        for what in ("name", "id"):
            values = [getattr(key, what) for key in self.key]
            if len(set(values)) < len(values):
                duplicates = sorted({value for value in values if values.count(value) > 1})
                raise ValueError(f"duplicate {what}: {', '.join(duplicates)}")
        return self


@dataclass(frozen=True)
class Terms:
    """What a new key may do."""

    role: Role = "predict"
    rate: Rate | None = None
    burst: int | None = None
    counts: Literal["requests", "pictures"] = "requests"
    expires: datetime | None = None


def digest(token: bytes) -> bytes:
    """Return the SHA-256 of a key."""
    return hashlib.sha256(token).digest()


def issue(name: str, terms: Terms, taken: Iterable[Key] = ()) -> tuple[str, Key]:
    """Make a key: return it as its user gets it, once, and as the file keeps it; raises InputError."""
    keys = list(taken)
    if any(key.name == name for key in keys):
        raise InputError(
            f"duplicate key name '{name}'",
            "Remove it first, or give the new one another name, so that both work until everybody has changed.",
        )
    ids = {key.id for key in keys}
    while (key_id := secrets.token_hex(4)) in ids:
        pass
    token = f"plm_{key_id}_{secrets.token_urlsafe(32)}"
    now = datetime.now(UTC).replace(microsecond=0)
    fields = {"name": name, "id": key_id, "sha256": digest(token.encode()).hex(), "created": now, **vars(terms)}
    try:
        return token, Key.model_validate(fields)
    except ValidationError as error:
        raise InputError(explain(error, "the key")) from error


def read(file: Path) -> tuple[Key, ...]:
    """Return the keys of a file; raises InputError that names what is wrong in it, without values: somebody may have
    pasted a key into the file."""
    try:
        return KeyFile.model_validate(tomllib.loads(files.read_text(file, MAX_FILE_BYTES, regular=True))).key
    except OSError as error:
        raise InputError(
            f"{file}: can't read the keys: {error.strerror}",
            "`plimsoll keys add NAME --file FILE` makes a key and the file.",
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{file}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise InputError(f"{file}: {explain(error)}") from error


def write(file: Path, keys: Iterable[Key]) -> None:
    """Replace a file of keys at once, so that no reader sees half of it; a new one can be read by its owner alone."""
    import tomli_w

    rows: list[dict[str, Any]] = [key.model_dump(exclude_none=True, exclude_defaults=True) for key in keys]
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    try:
        files.write(file, _HEADER + tomli_w.dumps({"key": rows}), mode=mode)
    except OSError as error:
        raise InputError(f"{file}: can't write the keys: {error.strerror}") from error


class KeyStore:
    """The keys of a running service, whose file is read anew when it changes, without a restart.

    Opening one reads the file, and raises InputError where that fails: a service without its keys doesn't start. A file
    that is bad later keeps the last good keys and is logged: half a file must neither let everybody in nor lock
    everybody out.
    """

    def __init__(self, file: Path, *, interval: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._interval = interval
        self._clock = clock
        self._signature = self._current_signature()
        self._checked = clock()
        self._entries = self._read()

    async def refresh(self) -> None:
        """Check whether the file has changed, at most once in `interval` seconds; the request that finds a change waits
        until it is read."""
        now = self._clock()
        if now - self._checked < self._interval:
            return
        self._checked = now
        signature = self._current_signature()
        if signature != self._signature:
            self._signature = signature  # before reading: what changes meanwhile is noticed the next time
            await asyncio.to_thread(self._reload)

    def find(self, token: bytes) -> Key | None:
        """Return the entry of a key, or None where it is not one of ours. Whether it has expired is for the caller to
        check."""
        parts = TOKEN.fullmatch(token)
        if parts is None:
            return None
        # The id is public and finds the entry. The hash is compared in constant time, and with zeros where there is no
        # entry.
        key, expected = self._entries.get(parts[1], (None, _NO_DIGEST))
        return key if hmac.compare_digest(digest(token), expected) else None

    def __len__(self) -> int:
        return len(self._entries)

    def _read(self) -> dict[bytes, tuple[Key | None, bytes]]:
        entries: dict[bytes, tuple[Key | None, bytes]] = {
            key.id.encode(): (key, bytes.fromhex(key.sha256)) for key in read(self._file)
        }
        if not entries:
            _log.warning("%s holds no key: nobody is let in", self._file)
        return entries

    def _reload(self) -> None:
        try:
            self._entries = self._read()
        except InputError as error:
            _log.error("the keys stay as they were: %s", error.message)
        else:
            _log.info("%s: read again, %d keys", self._file, len(self._entries))

    def _current_signature(self) -> tuple[int, int, int] | None:
        try:
            stat = self._file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
