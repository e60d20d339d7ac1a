"""`scan`: from models and sources to a table; or on with a table that a scan has begun."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plimsoll.core.target import Target
from plimsoll.core.wording import printable
from plimsoll.errors import InputError
from plimsoll.inference.walk import LeftOut
from plimsoll.scan import storage
from plimsoll.scan.earlier import Earlier
from plimsoll.scan.engine import Engine, LocalEngine
from plimsoll.scan.entries import EntrySettings
from plimsoll.scan.facts import PDQ_INSTALL
from plimsoll.scan.models import ScanModel
from plimsoll.scan.plan import make_plan
from plimsoll.scan.shard_run import Event, Task
from plimsoll.scan.table import Manifest, PartWriter, Table, new_manifest
from plimsoll.scan.worker import ModelSettings, WorkerSettings, open_predictors

Watch = Callable[[int, int | None], None]
"""Called with how many pictures have rows, and how many there are, where that is known."""


@dataclass
class ScanResult:
    """What a scan has done."""

    table: str
    pictures: int = 0
    """With a row of this run, or of an earlier one that it went on with."""
    failed: int = 0
    """Of these, with an error."""
    shards: int = 0
    """Whose parts this run has written."""
    skipped_shards: int = 0
    """Whose parts were there."""


@dataclass(frozen=True)
class ScanOptions:
    """How to scan; `plimsoll.scan` says what each is."""

    threshold: float | None = None
    pdq: bool = False
    column: str = ""
    null: bool = False
    shard_size: int | None = None
    since: str | None = None
    retry_errors: bool = False
    force: bool = False


def scan(  # noqa: PLR0913 - the options of a command
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    spec: str | os.PathLike[str] | None = None,
    target: Target | str | None = None,
    preprocessing: Any = None,
    options: Mapping[str, str] | None = None,
    threshold: float | None = None,
    policy: str | os.PathLike[str] | None = None,
    pdq: bool = False,
    column: str = "",
    shard_size: int | None = None,
    since: str | os.PathLike[str] | None = None,
    retry_errors: bool = False,
    processes: int | None = None,
    force: bool = False,
) -> ScanResult:
    """Score the pictures of `sources` with one or several models, into the table `out`; go on where an earlier scan
    with the same models and sources has ended.

    Sources are folders, patterns, picture files, lists of paths (`.txt`, `.list`, `.lst`), `.tar` archives, Parquet
    files with pictures in a column (`column`, where it isn't the only one that may hold them), and addresses that
    fsspec knows (`s3://…`). `spec`, `target`, `preprocessing` and `options` are those of `plimsoll.load`, for all
    models; `policy` is too, for the first alone. `pdq` adds the perceptual hash PDQ. `since` leaves out what that table
    has rows of, by the same bundle; `retry_errors` answers pictures with errors again. `processes` share the cores;
    `force` begins anew.

    Every picture gets a row, with an error where it can't be answered. Raises InputError where the table is another
    scan's, or can't be written, and what `plimsoll.load` raises.
    """
    chosen = ScanOptions(
        threshold=threshold,
        pdq=pdq,
        column=column,
        shard_size=shard_size,
        since=None if since is None else os.fspath(since),
        retry_errors=retry_errors,
        force=force,
    )
    settings = tuple(
        ModelSettings(
            model,
            None if spec is None else os.fspath(spec),
            None if target is None else str(target),
            preprocessing,
            dict(options or {}),
            os.fspath(policy) if policy is not None and number == 0 else None,
        )
        for number, model in enumerate(_all(models))
    )
    return run(settings, _all(sources), os.fspath(out), chosen, LocalEngine(processes))


def _all(given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(given, (str, os.PathLike)):
        return (os.fspath(given),)
    return tuple(os.fspath(each) for each in given)


def run(
    settings: Sequence[ModelSettings],
    sources: Sequence[str],
    out: str,
    options: ScanOptions,
    engine: Engine,
    watch: Watch | None = None,
) -> ScanResult:
    """Scan as `scan` says, on an engine."""
    if options.pdq:
        from plimsoll.core.foreign import require

        require("pdqhash", PDQ_INSTALL)
    table = Table(storage.folder(out))
    with ExitStack() as stack:
        work = WorkerSettings(tuple(settings), EntrySettings(column=options.column), options.pdq, options.threshold)
        predictors = open_predictors(stack, work)
        models = [ScanModel.of(predictor, options.threshold) for predictor in predictors]
        _require_different(models)
        writer = PartWriter(table, models, predictors, pdq=options.pdq)
        table.manifest()  # Nothing is written into a folder of something else.
        stack.enter_context(table.locked())
        if options.force:
            table.clear()
        formats = tuple(sorted({each for predictor in predictors for each in predictor.spec.input.decode.formats}))
        manifest = table.manifest()
        if manifest is None:
            manifest = _begin(table, models, sources, formats, options)
        else:
            _check_same(out, manifest, models, sources, options)
        entries = EntrySettings(manifest.plan.base, manifest.plan.separator, options.column, formats)
        earlier = _earlier(stack, options, models)
        work = WorkerSettings(work.models, entries, options.pdq, options.threshold, earlier=earlier)
        return _run(engine, table, manifest, work, writer, options, watch)


def _begin(
    table: Table, models: Sequence[ScanModel], sources: Sequence[str], formats: Sequence[Any], options: ScanOptions
) -> Manifest:
    left_out = LeftOut()
    try:
        plan = make_plan(table.folder, sources, formats, left_out, null=options.null, shard_size=options.shard_size)
        since = options.since
        manifest = new_manifest(models, sources, plan, pdq=options.pdq, since=since, column=options.column)
        table.begin(manifest)
    except OSError as error:
        raise InputError(f"can't write {table.folder.address}: {error.strerror or error}") from error
    left_out.log()
    return manifest


def _run(  # noqa: PLR0913 - private
    engine: Engine,
    table: Table,
    manifest: Manifest,
    work: WorkerSettings,
    writer: PartWriter,
    options: ScanOptions,
    watch: Watch | None,
) -> ScanResult:
    result = ScanResult(table.folder.address)
    finished = table.finished()
    tasks = _tasks(table, manifest, writer, finished, options, result)
    with closing(engine.run(tasks, work, writer, table)) as events:  # type: ignore[type-var]  # a generator
        for event in events:
            _count(result, event)
            if watch is not None:
                watch(result.pictures, manifest.plan.pictures)
    return result


def _count(result: ScanResult, event: Event) -> None:
    if event.counts is not None:
        result.shards += 1
    else:
        result.pictures += 1
        result.failed += event.error


def _tasks(
    table: Table,
    manifest: Manifest,
    writer: PartWriter,
    finished: set[int],
    options: ScanOptions,
    result: ScanResult,
) -> Iterator[Task]:
    for shard in manifest.plan.read(table.folder):
        if shard.number not in finished:
            yield Task(shard)
            continue
        counts = writer.counts(shard) if options.retry_errors or shard.count is None else {}
        errors = counts.get("errors", 0) if options.retry_errors else 0
        result.pictures += counts.get("pictures", shard.count or 0) - errors
        if errors:
            yield Task(shard, again=True)
        else:
            result.skipped_shards += 1


def _earlier(stack: ExitStack, options: ScanOptions, models: Sequence[ScanModel]) -> str:
    """Write what the table of `since` has scored into a folder, for the workers; return the folder."""
    if options.since is None:
        return ""
    table = Table(storage.folder(options.since))
    if table.manifest() is None:
        raise InputError(f"--since: {printable(options.since)} is no table of `plimsoll scan`")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="plimsoll-since-"))
    bundles = {model.bundle_sha256 for model in models}
    count = Earlier.write(Path(folder), table.folder, bundles, retry_errors=options.retry_errors)
    logging.getLogger("plimsoll").info("%s pictures have an answer in %s", f"{count:,}", options.since)
    return folder


def _require_different(models: Sequence[ScanModel]) -> None:
    hashes = [model.bundle_sha256 for model in models]
    if len(set(hashes)) < len(hashes):
        raise InputError("the same model is given twice", "Name each model once.")


def _check_same(
    out: str, manifest: Manifest, models: Sequence[ScanModel], sources: Sequence[str], options: ScanOptions
) -> None:
    """Raise InputError where a table was begun with something else."""
    advice = f"Scan into a new folder, with --since {out} to leave out what it has; or begin anew with --force."
    before, now = [[model.bundle_sha256 for model in each] for each in (manifest.models, models)]
    if before != now:
        names = ", ".join(model.name for model in manifest.models)
        same_names = names == ", ".join(model.name for model in models)
        what = "another version of it, or other options" if same_names else "other models"
        raise InputError(f"{out} was scored by {names}: this is {what}", advice)
    if list(manifest.sources) != list(sources):
        raise InputError(f"{out} was made from other sources: {', '.join(manifest.sources)[:200]}", advice)
    same = (manifest.pdq, manifest.since, manifest.column) == (options.pdq, options.since, options.column)
    if not same:
        raise InputError(f"{out} was made with other options (--pdq, --since, --column)", advice)
