"""`Table`: the result of a scan, a folder:

```
manifest.json               what it was made with
plan/                       its shards, and the list of what was walked
rows/part-00000017.parquet  the rows of a shard
partial/                    rows of shards that are not finished (here, or in a cache where the table is elsewhere)
```

A part appears whole or not at all, and which parts there are is all that a later run has to know. What a part was made
with, and its counts, are in its own footer, under the key `plimsoll.shard`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from plimsoll.core.foreign import require
from plimsoll.core.version import __version__
from plimsoll.errors import InputError
from plimsoll.inference.predictor import Predictor
from plimsoll.inference.rows import arrow_types, arrow_values, keys
from plimsoll.scan import storage
from plimsoll.scan.models import ScanModel
from plimsoll.scan.plan import PARQUET_INSTALL, Plan, Shard
from plimsoll.system.cache import cache_folder

FORMAT = 1
_PART = re.compile(r"part-(\d{8,})\.parquet")
_FOOTER = b"plimsoll.shard"
_OWN = ("manifest.json", "plan", "rows", "partial")


class Manifest(BaseModel):
    """What a table was made with; its models, sources and options don't change while it lives."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = FORMAT
    plimsoll: str = __version__
    created: datetime
    models: tuple[ScanModel, ...]
    sources: tuple[str, ...]
    plan: Plan
    pdq: bool = False
    since: str | None = None
    """The table whose rows were not made again."""
    column: str = ""


class Table:
    """The table of a scan. Use `open`; what fails to be written raises InputError."""

    def __init__(self, folder: storage.Folder) -> None:
        self.folder = folder
        local = isinstance(folder, storage.LocalFolder)
        self.partial = Path(folder.address, "partial") if local else _cache(folder.address)
        """Where rows of unfinished shards are kept: on this machine, as they are appended to."""

    def manifest(self) -> Manifest | None:
        """Return the manifest, None where nothing was scanned into it; raises InputError for a folder of something
        else."""
        content = self.folder.read("manifest.json")
        if content is None:
            others = [] if self.folder.read(Plan.FILE) is not None else sorted(self.folder.names(""))
            if any(name not in (*_OWN, ".lock") for name in others):
                raise InputError(
                    f"{self.folder.address} is not empty, and no table of `plimsoll scan`", "Name a new folder."
                )
            return None
        try:
            manifest = Manifest.model_validate_json(content)
        except ValidationError as error:
            raise InputError(f"{self.folder.inner('manifest.json')} is no manifest of `plimsoll scan`") from error
        if manifest.format != FORMAT:
            raise InputError(
                f"{self.folder.address} has the format {manifest.format}; this version of Plimsoll writes {FORMAT}",
                "Scan into a new folder.",
            )
        return manifest

    def begin(self, manifest: Manifest) -> None:
        """Write the manifest: from here on it is a table."""
        self.folder.write("manifest.json", manifest.model_dump_json(indent=2).encode() + b"\n")

    def clear(self) -> None:
        """Remove what scans have written, and nothing else."""
        for name in _OWN:
            self.folder.remove(name)
        if self.partial.is_dir():
            storage.LocalFolder(self.partial.parent).remove(self.partial.name)

    def finished(self) -> set[int]:
        """Return the numbers of the shards whose parts are there."""
        names = self.folder.names("rows")
        for name in names:
            if name.endswith(".part"):  # of a run that was killed while it wrote
                self.folder.remove(f"rows/{name}")
        return {int(match[1]) for name in names if (match := _PART.fullmatch(name)) is not None}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other scans of this machine from the table; raises InputError where one has it. An object store has no
        locks: there, two scans write the same parts, one over the other."""
        import filelock

        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.partial.parent / ".lock", timeout=0)
            lock.acquire()
        except filelock.Timeout:
            raise InputError(
                f"another scan is writing to {self.folder.address}", "Wait for its end, or name another folder."
            ) from None
        except OSError as error:
            raise InputError(f"can't write {self.folder.address}: {error.strerror or error}") from error
        try:
            yield
        finally:
            for log in self.partial.glob("*.log"):
                log.unlink()
            with suppress(OSError):  # rows of unfinished shards are in it
                self.partial.rmdir()
            lock.release()


class PartWriter:
    """Writes and reads the parts of a table; makes the schema of their rows."""

    def __init__(
        self, table: Table, models: Sequence[ScanModel], predictors: Sequence[Predictor], *, pdq: bool
    ) -> None:
        self._arrow = require("pyarrow", PARQUET_INSTALL)
        self._table, self._models = table, tuple(models)
        columns, self._nested = _task_columns(self._arrow, predictors)
        self.schema = _schema(self._arrow, columns, pdq=pdq)

    def write(self, shard: Shard, rows: Iterable[dict[str, Any]], seconds: float) -> dict[str, Any]:
        """Write the rows of a shard, as workers give them, and return its counts; raises OSError."""
        from pyarrow import parquet

        pictures = errors = equal = 0
        lines: list[dict[str, Any]] = []
        for row in sorted(rows, key=lambda row: (row["path"], row["item"])):
            pictures += 1
            errors += any(answer["error"] is not None for answer in row["answers"])
            equal += row["equal"]
            lines += self._lines(row)
        counts = {"pictures": pictures, "errors": errors, "equal": equal, "seconds": round(seconds, 3)}
        footer = {
            **asdict(shard),
            **counts,
            "models": [model.model_dump() for model in self._models],
            "plimsoll": __version__,
        }
        table = self._arrow.Table.from_pylist(lines, schema=self.schema)
        table = table.replace_schema_metadata({_FOOTER: json.dumps(footer).encode()})
        buffer = io.BytesIO()
        parquet.write_table(table, buffer, compression="zstd", row_group_size=max(1, len(lines)))
        self._table.folder.write(f"rows/{shard.name}.parquet", buffer.getvalue())
        return counts

    def counts(self, shard: Shard) -> dict[str, Any]:
        """Return the counts of a finished shard, from its footer; raises OSError."""
        from pyarrow import parquet

        with storage.open_file(self._table.folder.inner(f"rows/{shard.name}.parquet")) as stream:
            metadata = parquet.read_metadata(stream).metadata or {}
        counts: dict[str, Any] = json.loads(metadata.get(_FOOTER, b"{}"))
        return counts

    def rows(self, shard: Shard) -> list[dict[str, Any]]:
        """Return the rows of a finished shard as workers give them; raises OSError."""
        from pyarrow import parquet

        with storage.open_file(self._table.folder.inner(f"rows/{shard.name}.parquet")) as stream:
            lines = parquet.read_table(stream).to_pylist()
        pictures: dict[int, dict[str, Any]] = {}
        order = {model.bundle_sha256: number for number, model in enumerate(self._models)}
        for line in sorted(lines, key=lambda line: order[line["bundle_sha256"]]):
            own = {key: line.pop(key, None) for key in ("item", "path", "sha256", "bytes", "width", "height", "pdq")}
            time = line.pop("time").isoformat(timespec="milliseconds")
            picture = pictures.setdefault(own["item"], {**own, "time": time, "equal": False, "answers": []})
            picture["answers"].append(self._plain(line))
        return list(pictures.values())

    def _plain(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return a model's values as they were before `arrow_values`."""
        for key, value in values.items():
            if key in self._nested and value is not None:
                values[key] = json.loads(value)
        if values.get("scores") is not None:
            values["scores"] = dict(values["scores"])
        if values.get("mask") is not None and "mask" not in self._nested:
            values["mask"] = {**values["mask"], "rle": dict(values["mask"]["rle"])}
        return values

    def _lines(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        own = {key: row[key] for key in ("path", "item", "sha256", "bytes", "width", "height", "pdq")}
        own["time"] = datetime.fromisoformat(row["time"])
        for model, answer in zip(self._models, row["answers"], strict=True):
            names = {
                "model": model.name,
                "model_sha256": model.model_sha256,
                "bundle_sha256": model.bundle_sha256,
            }
            yield {**own, **arrow_values(answer, self._nested), **names}


def _task_columns(arrow: Any, predictors: Sequence[Predictor]) -> tuple[dict[str, Any], set[str]]:
    """Return the type of each column that the tasks have, and those that are JSON: what has no type, or another one for
    each model."""
    columns: dict[str, Any] = {}
    nested: set[str] = set()
    for predictor in predictors:
        types = arrow_types(arrow, predictor.task)
        for key in keys(predictor.task):
            if key in ("path", "error"):
                continue
            kind = types.get(key)
            if kind is None or (key in columns and columns[key] != kind):
                nested.add(key)
            columns.setdefault(key, kind if kind is not None else arrow.string())
    return {key: arrow.string() if key in nested else kind for key, kind in columns.items()}, nested


def _schema(arrow: Any, columns: dict[str, Any], *, pdq: bool) -> Any:
    text, whole = arrow.string(), arrow.int32()
    return arrow.schema(
        [
            arrow.field("path", text, nullable=False),
            arrow.field("item", whole, nullable=False),
            ("sha256", text),
            ("bytes", arrow.int64()),
            ("width", whole),
            ("height", whole),
            arrow.field("model", text, nullable=False),
            arrow.field("model_sha256", text, nullable=False),
            arrow.field("bundle_sha256", text, nullable=False),
            *columns.items(),
            ("error_kind", text),
            ("error", text),
            *([("pdq", text)] if pdq else []),
            arrow.field("time", arrow.timestamp("ms", "UTC"), nullable=False),
        ]
    )


def new_manifest(
    models: Sequence[ScanModel], sources: Sequence[str], plan: Plan, *, pdq: bool, since: str | None, column: str
) -> Manifest:
    """Return the manifest of a new table."""
    return Manifest(
        created=datetime.now(UTC),
        models=tuple(models),
        sources=tuple(sources),
        plan=plan,
        pdq=pdq,
        since=since,
        column=column,
    )


def _cache(address: str) -> Path:
    return cache_folder() / "scan" / hashlib.sha256(address.encode()).hexdigest()[:16] / "partial"
