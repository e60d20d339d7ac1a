"""`plimsoll scan MODEL… SOURCE… --out TABLE`."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plimsoll.cli import options

if TYPE_CHECKING:
    from plimsoll.scan.run import ScanResult


def scan(  # noqa: PLR0913 - each parameter is an option of the command
    model: options.Model,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="Folders, patterns, pictures, lists of paths (.txt, .list, .lst, or - for standard input), .tar"
            " archives, Parquet files with pictures, or addresses such as s3://bucket/folder.",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="TABLE", help="The table: a folder, here or in an object store.")
    ],
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="MODEL", help="A further model, in the same pass; may be repeated."),
    ] = None,
    spec: options.Spec = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", min=0.0, max=1.0, help="Give a label from this score on, in place of the Spec's threshold."
        ),
    ] = None,
    policy: options.Policy = None,
    preprocessing: options.Preprocessing = None,
    target: options.ChosenTarget = None,
    set_: options.RuntimeOptions = None,
    pdq: Annotated[
        bool, typer.Option("--pdq", help="Add the perceptual hash PDQ, which stays alike when a picture is resized.")
    ] = False,
    column: Annotated[
        str, typer.Option("--column", metavar="NAME", help="The column of Parquet sources that holds the pictures.")
    ] = "",
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TABLE",
            help="Leave out what this table has scored by the same bundle, unless it changed.",
        ),
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Answer pictures that have an error again.")
    ] = False,
    shard_size: Annotated[
        int | None,
        typer.Option(
            "--shard-size", min=1, max=1_000_000, help="Pictures of a list in one part. Default: up to 10,000."
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, max=256, help="Processes that share the cores. Default: one for 8 cores."),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The paths in lists are separated by NUL characters.")
    ] = False,
    force: options.Force = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any picture failed, not only if all did.")
    ] = False,
) -> None:
    """Score pictures in bulk into a table of Parquet files.

    Run the same command again after a stop, however sudden: it goes on, and every picture has a row, once. Exits with
    code 1 if every picture failed (with --strict: if any did).
    """
    from plimsoll.cli.output import Progress
    from plimsoll.scan.engine import LocalEngine
    from plimsoll.scan.run import ScanOptions, run
    from plimsoll.scan.worker import ModelSettings

    settings = [
        ModelSettings(
            reference,
            None if spec is None else str(spec),
            None if target is None else str(target),
            preprocessing,
            options.settings(set_ or []),
            str(policy) if policy is not None and reference == model else None,
        )
        for reference in (model, *(also or ()))
    ]
    chosen = ScanOptions(
        threshold=threshold,
        pdq=pdq,
        column=column,
        null=null,
        shard_size=shard_size,
        since=since,
        retry_errors=retry_errors,
        force=force,
    )
    started = time.perf_counter()
    progress = Progress(None, ["-"], 0.5)
    stored = 0

    def watch(done: int, total: int | None) -> None:
        nonlocal stored
        progress.advance(done - stored, total)
        stored = done

    try:
        result = run(settings, sources, out, chosen, LocalEngine(processes), watch)
    except KeyboardInterrupt as error:
        progress.close()
        typer.echo(f"interrupted: {stored:,} pictures have a row; run the same command again to go on", err=True)
        raise typer.Exit(getattr(error, "exit_code", 130)) from None
    finally:
        progress.close()
    _end(result, time.perf_counter() - started)
    if result.failed and (strict or result.failed == result.pictures):
        raise typer.Exit(1)


def _end(result: ScanResult, seconds: float) -> None:
    failed = f", {result.failed:,} failed" if result.failed else ""
    before = f", {_count(result.skipped_shards, 'part')} written before" if result.skipped_shards else ""
    logging.getLogger("plimsoll").info(
        "%s in %s after %.1f s%s%s, %s written",
        _count(result.pictures, "picture"),
        Path(result.table).name or result.table,
        seconds,
        failed,
        before,
        _count(result.shards, "part"),
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
