"""`plimsoll predict MODEL PATH…`."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from plimsoll.cli import options
from plimsoll.errors import InputError

if TYPE_CHECKING:
    from plimsoll.cli.output import Writer
    from plimsoll.tasks.base import Task

FORMATS = ("table", "jsonl", "csv", "parquet")
_SHOW_AFTER_S = 0.5
"""A progress bar appears only if the work takes longer than this."""


@dataclass
class _Tally:
    done: int = 0
    failed: int = 0


def predict(  # noqa: PLR0913 - each parameter is an option of the command
    model: options.Model,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH…",
            help="Pictures, folders (searched recursively), patterns like 'photos/*.jpg', or - to read a list from"
            " standard input.",
        ),
    ],
    spec: options.Spec = None,
    format_: Annotated[
        str | None,
        options.choice(
            "--format",
            FORMATS,
            "Default: by --out's ending; without --out, a table on a terminal, else jsonl.",
            short="-f",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to this file instead of standard output.")
    ] = None,
    top: Annotated[int | None, typer.Option("--top", min=1, help="Keep only this many of the best labels.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", min=0.0, max=1.0, help="Give a label from this score on, in place of the Spec's threshold."
        ),
    ] = None,
    preprocessing: options.Preprocessing = None,
    target: options.ChosenTarget = None,
    set_: options.RuntimeOptions = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, max=1024, help="Pictures in one call of the runtime. Default: what suits it."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any picture failed, not only if all did.")
    ] = False,
) -> None:
    """Run a model on pictures.

    A picture that can't be read becomes a row with its error, and the run goes on. Exits with code 1 if every picture
    failed (with --strict: if any did).
    """
    from plimsoll.inference.images import find_images
    from plimsoll.inference.predictor import load
    from plimsoll.system import host

    host.keep_memory_level()
    chosen = _format(format_, out)
    with ExitStack() as stack:
        predictor = stack.enter_context(
            load(model, spec=spec, target=target, preprocessing=preprocessing, options=options.settings(set_ or []))
        )
        writer = _writer(stack, chosen, out, predictor.task, top, paths)
        predictions = predictor.predict_many(find_images(paths), threshold=threshold, batch=batch)
        tally = _write_all(predictions, writer, paths)
    if tally.failed and (strict or tally.failed == tally.done):
        raise typer.Exit(1)


def _write_all(predictions: Any, writer: Writer, paths: list[str]) -> _Tally:
    """Write every row; after Ctrl-C keep the rows so far, say how many they are, and exit with 130."""
    from plimsoll.cli.output import Progress
    from plimsoll.inference.images import no_pictures

    tally = _Tally()
    started = time.perf_counter()
    progress = Progress(getattr(writer, "console", None), paths, _SHOW_AFTER_S)
    try:
        for prediction in predictions:
            writer.write(prediction)
            tally.done += 1
            tally.failed += prediction.error is not None
            progress.advance()
    except KeyboardInterrupt:
        predictions.close()
        progress.close()
        typer.echo(f"interrupted: the predictions of {tally.done:,} pictures were kept", err=True)
        raise typer.Exit(130) from None
    finally:
        progress.close()
    if not tally.done:
        raise no_pictures(paths)
    _sum_up(tally, time.perf_counter() - started)
    return tally


def _sum_up(tally: _Tally, seconds: float) -> None:
    failed = f", {tally.failed:,} failed" if tally.failed else ""
    logging.getLogger("plimsoll").info(
        "%s picture%s in %.1f s (%.0f per second)%s",
        f"{tally.done:,}",
        "" if tally.done == 1 else "s",
        seconds,
        tally.done / max(seconds, 1e-9),
        failed,
    )


def _format(chosen: str | None, out: Path | None) -> str:
    if out is None and chosen == "parquet":
        raise InputError("--format parquet needs a file", "Name it: --out predictions.parquet")
    if chosen is not None:
        return chosen
    if out is not None:
        return {".csv": "csv", ".parquet": "parquet"}.get(out.suffix.lower(), "jsonl")
    return "table" if sys.stdout.isatty() else "jsonl"


def _writer(stack: ExitStack, format_: str, out: Path | None, task: Task, top: int | None, paths: list[str]) -> Writer:
    from plimsoll.cli import output

    writer: Writer
    if format_ == "parquet":
        assert out is not None  # noqa: S101 - _format has refused it
        writer = output.Parquet(out, task, top)
    elif format_ == "table":
        from rich.console import Console

        # With a single folder, paths are shown relative to it.
        folder = paths[0] if len(paths) == 1 and Path(paths[0]).is_dir() else ""
        writer = output.Table(Console(file=_stream(stack, out), highlight=False), task, top, folder)
    else:
        writer = (output.JsonLines if format_ == "jsonl" else output.Csv)(_stream(stack, out), task, top)
    stack.callback(writer.close)
    return writer


def _stream(stack: ExitStack, out: Path | None) -> IO[str]:
    if out is None:
        return sys.stdout
    try:
        return stack.enter_context(out.open("w", encoding="utf-8", newline=""))
    except OSError as error:
        raise InputError(f"can't write {out}: {error.strerror}") from error
