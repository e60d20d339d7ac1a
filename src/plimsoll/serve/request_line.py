"""What the log's lines of requests have in common, whichever protocol they came by: who asks, how it is called, and
whether it is told at all."""

from __future__ import annotations

import ipaddress
import os
import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from plimsoll.serve.log import LogSettings

LONGEST_PATH = 200
_SANE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TOLD = ("model", "pictures", "key", "trace_id")


def sane(given: bytes) -> bool:
    """Whether a caller's id for a request may stand in the log and go back in an answer."""
    return _SANE.fullmatch(given) is not None


def new_id() -> bytes:
    """Return an id for a request: 128 random bits."""
    return os.urandom(16).hex().encode()


def worth_a_line(settings: LogSettings, path: str, *, good: bool) -> bool:
    """Whether a request gets a line: bad ones always do; good ones do by the sample, and not on quiet paths."""
    return not good or (path not in settings.quiet and (settings.sample >= 1 or random.random() < settings.sample))


def told(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that whoever answered a request left in its state: model, pictures, key and trace, and
    `milliseconds` as the stages."""
    fields = {name: state[name] for name in _TOLD if state.get(name)}
    if stages := longest(state.get("milliseconds") or ()):
        fields["stages"] = stages
    return fields


def longest(pictures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return how long each stage took for the picture for which it took longest."""
    stages: dict[str, float] = {}
    for one in pictures:
        for stage, milliseconds in one.items():
            if milliseconds > stages.get(stage, -1.0):
                stages[stage] = milliseconds
    return {stage: round(milliseconds, 2) for stage, milliseconds in stages.items()}


def client(address: str, settings: LogSettings) -> dict[str, str]:
    """Return the field that says who asks, as far as that may be logged."""
    if settings.clients == "nothing":
        return {}
    return {"client": address if settings.clients == "address" else masked(address)}


@lru_cache(65_536)
def masked(address: str) -> str:
    """Return an address without the bits that tell households apart: its /24 (IPv4) or /48 (IPv6) network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return str(ipaddress.ip_network((address, 24 if parsed.version == 4 else 48), strict=False))
