"""The keys of a running service. Their file is read anew when it changes, without a restart."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path

from plimsoll.errors import InputError
from plimsoll.serve.access.keys import TOKEN, Key, digest, read

_log = logging.getLogger("plimsoll.serve")
_NOBODY = bytes(32)
_Signature = tuple[int, int, int]


class KeyStore:
    """Finds a key's entry. Opening one reads the file, and raises InputError where that can't be: a service without its
    keys doesn't start.

    A file that is bad later keeps the last good keys and is logged: half a file must neither open the door nor lock
    everybody out.
    """

    def __init__(self, file: Path, *, every: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._every = every
        self._clock = clock
        self._seen = self._signature()
        self._looked = clock()
        self._entries = self._read()

    async def refresh(self) -> None:
        """Look whether the file has changed, at most once in `every` seconds; who finds that it has, waits until it is
        read."""
        now = self._clock()
        if now - self._looked < self._every:
            return
        self._looked = now
        signature = self._signature()
        if signature != self._seen:
            self._seen = signature  # taken before reading: what changes meanwhile is noticed the next time
            await asyncio.to_thread(self._reload)

    def find(self, token: bytes) -> Key | None:
        """Return the entry of a key, or None where it is not one of ours. Whether it has expired is for the caller to
        ask."""
        parts = TOKEN.fullmatch(token)
        if parts is None:
            return None
        # The id is public and finds the entry. The hash is compared in constant time, and against nothing where there
        # is no entry.
        key, expected = self._entries.get(parts[1], (None, _NOBODY))
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
            _log.info("%s: %d keys, read anew", self._file, len(self._entries))

    def _signature(self) -> _Signature | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
