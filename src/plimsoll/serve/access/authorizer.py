"""Admits a caller, or says why not: by its key and the key's role, and by how often it asks."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork

from plimsoll.serve.access.keys import Key, KeyStore, Limit, RateText, Role, TokenBucket, TokenBuckets
from plimsoll.serve.access.origins import OWN_SITE, names_this_machine
from plimsoll.serve.messages import Problem, RequestError, whole_seconds

Right = Literal["predict", "report", "metrics", "control"]
"""What a request may need. `report` reads the reports in bundles, `control` loads and unloads models."""

_RIGHTS: dict[Role, frozenset[Right]] = {
    "predict": frozenset({"predict", "report"}),
    "metrics": frozenset({"metrics"}),
    "admin": frozenset({"predict", "report", "metrics", "control"}),
}
_MAX_CALLERS = 65_536
_MAX_KEY_BYTES = 256
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via", b"origin"})
"""A proxy adds these headers, or a browser sends them: then the caller may not be a program on
this machine."""


class AccessSettings(BaseModel):
    """Keys, and limits for callers without one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: Path | None = None
    """The file of API keys (`plimsoll keys`). Without it, anyone who reaches the port may send requests."""
    control: Literal["local", "anybody", "nobody"] = "local"
    """Who may load, unload and reload models where there are no keys: by default programs on this machine (not web
    pages, not what a proxy passes on). With keys, those of the role `admin` may, and no one else."""
    open_metrics: bool = False
    """Whether /metrics needs no key."""
    open_paths: tuple[Annotated[str, Field(pattern="^/")], ...] = ()
    """Further paths that need no key, whatever the method; one that ends in `/*` means all below it."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    """Addresses and networks of proxies whose `X-Forwarded-For` says who asks; from anybody else it says nothing. What
    comes over a Unix socket comes from a proxy that is trusted."""
    address_rate: RateText | None = None
    """The rate of requests from one address without a key, for example `5/s`. An IPv6 address counts by its /64
    network, since a household has one."""
    address_burst: int | None = Field(None, ge=1, le=1_000_000)
    """How many requests of an address may come at once after a quiet time; by default as many as in a second."""

    @property
    def address_limit(self) -> Limit | None:
        """Return the limit of an address, if there is one."""
        return Limit.of(self.address_rate, self.address_burst) if self.address_rate is not None else None


@dataclass(frozen=True)
class Caller:
    """Who asks, as far as a request says."""

    tokens: frozenset[bytes]
    """The keys that it has; more than one is a mistake."""
    address: str
    local: bool
    """Whether it is certainly a program on this machine."""


def caller_of(headers: Iterable[tuple[bytes, bytes]], address: str) -> Caller:
    """Read from a request's headers, or a gRPC call's metadata, who asks; `address` is empty for a Unix socket."""
    tokens = set()
    forwarded = False
    foreign = False
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                tokens.add(token.strip()[:_MAX_KEY_BYTES])
        elif name == b"x-api-key":
            tokens.add(value.strip()[:_MAX_KEY_BYTES])
        elif name in _FORWARDED:
            forwarded = True
        elif name == b"host":
            foreign = foreign or not names_this_machine(value)
        elif name == b"sec-fetch-site":
            foreign = foreign or value.strip().lower() not in OWN_SITE
    near = not address or loopback(address)
    return Caller(frozenset(tokens), address, near and not forwarded and not foreign)


@dataclass(frozen=True)
class Admission:
    """A caller that was admitted: its key, and what is left of its rate; neither if no key is needed."""

    key: Key | None = None
    bucket: TokenBucket | None = None

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
        self.settings = settings
        self._keys = KeyStore(settings.keys, clock=clock) if settings.keys is not None else None
        self._limit = settings.address_limit
        self._buckets = TokenBuckets(_MAX_CALLERS, clock)
        self._now = now

    async def admit(self, caller: Caller, right: Right) -> Admission:
        """Let a caller in; raises RequestError: 401 without a good key, 403 where the key may not do this, 429 with the
        seconds to wait."""
        if self._keys is None:
            return self._by_address(caller, right)
        await self._keys.refresh()
        key = self._known(self._keys, caller)
        if right not in _RIGHTS[key.role]:
            raise RequestError(
                Problem(
                    "input",
                    f"the key '{key.name}' has the role {key.role}, which may not do this",
                    f"{_ROLES[right]} may.",
                    403,
                )
            )
        limit = key.limit
        return (
            Admission(key)
            if limit is None
            else Admission(key, self._charged(self._buckets.of(key.id, limit), f"the key '{key.name}'"))
        )

    def _known(self, keys: KeyStore, caller: Caller) -> Key:
        if not caller.tokens:
            raise RequestError(
                Problem("input", "this needs an API key", "Send it as `Authorization: Bearer KEY`.", 401)
            )
        if len(caller.tokens) > 1:
            raise RequestError(
                Problem("input", "the request has several API keys", "Send one, as `Authorization: Bearer KEY`.", 401)
            )
        key = keys.find(next(iter(caller.tokens)))
        if key is None:
            raise RequestError(Problem("input", "unknown API key", "Was it removed, or is it another service's?", 401))
        if key.expired(self._now()):
            raise RequestError(Problem("input", f"the API key '{key.name}' has expired", "Ask for a new one.", 401))
        return key

    def _by_address(self, caller: Caller, right: Right) -> Admission:
        allowed = self.settings.control == "anybody" or (self.settings.control == "local" and caller.local)
        if right == "control" and not allowed:
            raise RequestError(
                Problem(
                    "input",
                    "this caller may not load or unload models without a key",
                    "Start the service with a file of keys; see `plimsoll keys`.",
                    403,
                )
            )
        if right == "report" and not caller.local:
            raise RequestError(
                Problem(
                    "input",
                    "reports are shown to callers with a key, and on the machine of the service",
                    "Start the service with a file of keys; see `plimsoll keys`.",
                    403,
                )
            )
        if self._limit is not None:
            self._charged(self._buckets.of(network(caller.address), self._limit), "this address")
        return Admission()

    def _charged(self, bucket: TokenBucket, whose: str) -> TokenBucket:
        wait = bucket.take()
        if wait > 0:
            limit = bucket.limit
            message = f"{whose} may ask {limit.rate}, and {limit.burst:g} at once"
            raise RequestError(Problem("overloaded", message, f"Try again in {whole_seconds(wait)} s.", 429, wait))
        return bucket


_ROLES = {
    "predict": "Keys of the role predict or admin",
    "report": "Keys of the role predict or admin",
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
