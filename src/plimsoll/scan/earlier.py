"""What another table has scored already, by the same models: for `--since`."""

from __future__ import annotations

import json
import os
import secrets
from array import array
from collections.abc import Collection
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.foreign import require
from plimsoll.errors import InputError
from plimsoll.inference.rows import escaped
from plimsoll.scan import storage
from plimsoll.scan.plan import PARQUET_INSTALL

_BATCH = 65_536


class Earlier:
    """The pictures of a table that need no new answer: 12 bytes each, mapped from files that workers share.

    A path is known by a hash of 8 bytes, with a key drawn for each run: nobody can choose two paths that collide.
    """

    def __init__(self, key: bytes, hashes: NDArray[np.uint64], seconds: NDArray[np.uint32]) -> None:
        self._key, self._hashes, self._seconds = key, hashes, seconds

    @classmethod
    def write(cls, folder: Path, table: storage.Folder, bundles: Collection[str], *, retry_errors: bool) -> int:
        """Write what a table holds of all these bundles into a folder, and return how many pictures that are.

        Raises InputError where the table can't be read.
        """
        require("pyarrow", PARQUET_INSTALL)
        key = secrets.token_bytes(16)
        hashes, seconds = array("Q"), array("I")
        for name in sorted(table.names("rows")):
            if name.endswith(".parquet"):
                _read_part(table, name, key, bundles, retry_errors, hashes, seconds)
        values, times = np.frombuffer(hashes, np.uint64), np.frombuffer(seconds, np.uint32)
        order = np.argsort(values, kind="stable")
        values, times = values[order], times[order]
        unique, first, counts = np.unique(values, return_index=True, return_counts=True)
        # A picture is known once each model has a row of it.
        complete = counts >= len(bundles)
        np.save(folder / "hashes.npy", unique[complete])
        earliest = np.minimum.reduceat(times, first) if len(times) else times
        np.save(folder / "seconds.npy", earliest[complete])
        (folder / "key.json").write_text(json.dumps(key.hex()), encoding="utf-8")
        return int(complete.sum())

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map what `write` has written."""
        key = bytes.fromhex(json.loads((folder / "key.json").read_text(encoding="utf-8")))
        return cls(key, np.load(folder / "hashes.npy", mmap_mode="r"), np.load(folder / "seconds.npy", mmap_mode="r"))

    def has(self, path: str, local: str) -> bool:
        """Tell whether a picture needs no new answer: it has one, and its file, where it is one of this machine, was
        not changed after that."""
        value = path_hash(escaped(path), self._key)
        index = int(np.searchsorted(self._hashes, np.uint64(value)))
        if index >= len(self._hashes) or int(self._hashes[index]) != value:
            return False
        if not local:
            return True
        try:
            return os.stat(local).st_mtime < int(self._seconds[index])  # noqa: PTH116 - once a picture
        except (OSError, ValueError):
            return False


def path_hash(path: str, key: bytes) -> int:
    """Return 64 bits of a path's keyed hash."""
    return int.from_bytes(blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8, key=key).digest())


def _read_part(  # noqa: PLR0913 - private
    table: storage.Folder,
    name: str,
    key: bytes,
    bundles: Collection[str],
    retry_errors: bool,
    hashes: array[int],
    seconds: array[int],
) -> None:
    from pyarrow import ArrowException, parquet

    columns = ["path", "bundle_sha256", "error_kind", "time"]
    try:
        with storage.open_file(table.inner(f"rows/{name}")) as stream:
            for batch in parquet.ParquetFile(stream).iter_batches(_BATCH, columns=columns):
                values: list[dict[str, Any]] = batch.to_pylist()
                for value in values:
                    if value["bundle_sha256"] in bundles and not (retry_errors and value["error_kind"]):
                        hashes.append(path_hash(value["path"], key))
                        seconds.append(int(value["time"].timestamp()))
    except (OSError, ArrowException, KeyError) as error:
        raise InputError(f"--since: can't read {table.inner(f'rows/{name}')}: {error}") from error
