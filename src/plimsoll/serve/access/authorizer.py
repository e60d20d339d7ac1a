"""Admits a caller, or says why not."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from plimsoll.serve.access.keys import Key, Role
from plimsoll.serve.access.keystore import KeyStore
from plimsoll.serve.access.rate import Bucket, Buckets
from plimsoll.serve.access.settings import AccessSettings
from plimsoll.serve.messages import Problem, RequestError

Need = Literal["predict", "metrics", "control"]
"""What a request needs the right to do."""

_RIGHTS: dict[Role, frozenset[Need]] = {
    "predict": frozenset({"predict"}),
    "metrics": frozenset({"metrics"}),
    "admin": frozenset({"predict", "metrics", "control"}),
}
_MAX_CALLERS = 65_536
FORWARDED = frozenset({"forwarded", "x-forwarded-for", "x-real-ip", "via", "origin"})
"""A proxy passes these headers on, or a browser sends them: then the program that asks isn't certainly one of this
machine."""


@dataclass(frozen=True)
class Caller:
    """Who asks, as far as a request tells."""

    tokens: frozenset[bytes]
    """The keys that it shows; more than one is a mistake."""
    address: str
    local: bool
    """Whether it is certainly a program on this machine."""


@dataclass(frozen=True)
class Admission:
    """An admission."""

    key: Key | None = None
    bucket: Bucket | None = None

    def settle(self, pictures: int) -> None:
        """Charge the pictures of a request beyond the first, where pictures count: how many there are is known only
        once it was read."""
        if self.bucket is not None and self.key is not None and self.key.counts == "pictures" and pictures > 1:
            self.bucket.owe(pictures - 1)


class Authorizer:
    """Checks keys and rates. One for a service, used from its event loop."""

    def __init__(
        self,
        settings: AccessSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._ring = KeyStore(settings.keys, clock=clock) if settings.keys is not None else None
        self._limit = settings.address_limit
        self._buckets = Buckets(_MAX_CALLERS, clock)
        self._now = now

    async def admit(self, caller: Caller, need: Need) -> Admission:
        """Let a caller in; raises RequestError: 401 without a good key, 403 where the key may not do this, 429 with the
        seconds to wait."""
        if self._ring is None:
            return self._by_address(caller, need)
        await self._ring.refresh()
        key = self._known(self._ring, caller)
        if need not in _RIGHTS[key.role]:
            raise RequestError(
                Problem(
                    "input",
                    f"the key '{key.name}' has the role {key.role}, which may not do this",
                    f"{_WHO[need]} may.",
                    403,
                )
            )
        limit = key.limit
        return (
            Admission(key)
            if limit is None
            else Admission(key, self._taken(self._buckets.of(key.id, limit), f"the key '{key.name}'"))
        )

    def _known(self, ring: KeyStore, caller: Caller) -> Key:
        if not caller.tokens:
            raise RequestError(
                Problem("input", "this needs an API key", "Send it as `Authorization: Bearer KEY`.", 401)
            )
        if len(caller.tokens) > 1:
            raise RequestError(
                Problem("input", "the request shows several API keys", "Send one, as `Authorization: Bearer KEY`.", 401)
            )
        key = ring.find(next(iter(caller.tokens)))
        if key is None:
            raise RequestError(
                Problem("input", "the API key is not known here", "Was it removed, or is it another service's?", 401)
            )
        if key.expired(self._now()):
            raise RequestError(Problem("input", f"the API key '{key.name}' has expired", "Ask for a new one.", 401))
        return key

    def _by_address(self, caller: Caller, need: Need) -> Admission:
        allowed = self._settings.control == "anybody" or (self._settings.control == "local" and caller.local)
        if need == "control" and not allowed:
            raise RequestError(
                Problem(
                    "input",
                    "models are not loaded or unloaded from there without a key",
                    "Start the service with a file of keys; see `plimsoll keys`.",
                    403,
                )
            )
        if self._limit is not None:
            self._taken(self._buckets.of(network(caller.address), self._limit), "this address")
        return Admission()

    def _taken(self, bucket: Bucket, whose: str) -> Bucket:
        wait = bucket.take()
        if wait > 0:
            limit = bucket.limit
            words = f"{whose} may ask {limit.rate}, and {limit.burst:g} at once"
            raise RequestError(Problem("overloaded", words, f"Try again in {wait:.1f} s.", 429, wait))
        return bucket


_WHO = {
    "predict": "Keys of the role predict or admin",
    "metrics": "Keys of the role metrics or admin",
    "control": "Keys of the role admin",
}


@lru_cache(_MAX_CALLERS)
def network(address: str) -> str:
    """Return what counts as one caller: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address  # a Unix socket has none
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


@lru_cache(_MAX_CALLERS)
def loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback
