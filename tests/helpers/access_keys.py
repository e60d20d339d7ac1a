"""What tests of access share: a clock that a test turns, and files of keys."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from plimsoll.serve.access import keys
from plimsoll.serve.access.keys import Key, Terms

T = TypeVar("T")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def write_keys(file: Path, **named: Terms) -> dict[str, str]:
    """Write a file with these keys; return the keys themselves by their names."""
    tokens: dict[str, str] = {}
    entries: list[Key] = []
    for name, terms in named.items():
        tokens[name], entry = keys.issue(name, terms, entries)
        entries.append(entry)
    keys.write(file, entries)
    return tokens
