"""`plimsoll predict MODEL PATH…`."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from plimsoll.cli.rows import Writer
    from plimsoll.tasks.base import Task

_SHOW_AFTER_S = 0.5
"""A progress bar comes up only where the work takes longer than this."""


@dataclass
class _Tally:
    done: int = 0
    failed: int = 0


def predict(  # noqa: PLR0913 - each parameter is an option of the command
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A zoo name (plimsoll zoo list), a bundle, or a model file with --spec."),
    ],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH…",
            help="Pictures, folders (with all below), patterns like 'photos/*.jpg', or - for a list on standard input.",
        ),
    ],
    spec: Annotated[Path | None, typer.Option(help="The Spec of a bare model file.")] = None,
    format_: Annotated[
        str,
        typer.Option("--format", "-f", help="table, jsonl, csv or parquet. Default: table on a terminal, else jsonl."),
    ] = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file instead of the terminal.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Keep only the best so many labels.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="The score from which a label is given; replaces the Spec's.")
    ] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="Preprocessing: reference or fast. Default: the bundle's, else reference.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="runtime:device:precision. Default: the bundle's, else onnxruntime:cpu:float32.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the runtime, as name=value; may be repeated.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Pictures in one call of the runtime. Default: what suits it.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any picture failed, not only if all did.")
    ] = False,
) -> None:
    """Answer pictures.

    A picture that can't be read is a row with its error, and the run goes on. Exit code 1 if all failed (with --strict:
    if any did).
    """
    from plimsoll.cli.rows import check_format
    from plimsoll.inference.predictor import load
    from plimsoll.system import host

    host.keep_memory_level()
    chosen = _format(format_, out)
    check_format(chosen, out)
    with ExitStack() as stack:
        predictor = stack.enter_context(
            load(
                model,
                spec=spec,
                target=target,
                preprocessing=_preprocessing(preprocessing),
                options=_options(set_ or []),
            )
        )
        writer = _writer(stack, chosen, out, predictor.task, top, paths)
        answers = predictor.predict_many(_listed(paths), threshold=threshold, batch=batch)
        tally = _write_all(answers, writer, paths)
    if tally.failed and (strict or tally.failed == tally.done):
        raise typer.Exit(1)


def _write_all(answers: Any, writer: Writer, paths: list[str]) -> _Tally:
    """Write every row; after Ctrl-C keep what was answered, say how much that is, and exit with 130."""
    from plimsoll.cli.progress import Progress
    from plimsoll.errors import InputError

    tally = _Tally()
    started = time.perf_counter()
    progress = Progress(getattr(writer, "console", None), paths, _SHOW_AFTER_S)
    try:
        for prediction in answers:
            writer.write(prediction)
            tally.done += 1
            tally.failed += prediction.error is not None
            progress.advance()
    except KeyboardInterrupt:
        answers.close()
        progress.close()
        typer.echo(f"interrupted: {tally.done:,} pictures were answered and kept", err=True)
        raise typer.Exit(130) from None
    finally:
        progress.close()
    if not tally.done:
        raise InputError(
            f"no pictures in {', '.join(paths)}",
            "A folder's pictures are known by their endings: .jpg .jpeg .png .webp .bmp .gif .tif .tiff",
        )
    _sum_up(tally, time.perf_counter() - started)
    return tally


def _sum_up(tally: _Tally, seconds: float) -> None:
    import logging

    failed = f", {tally.failed:,} failed" if tally.failed else ""
    logging.getLogger("plimsoll").info(
        "%s pictures in %.1f s (%.0f a second)%s", f"{tally.done:,}", seconds, tally.done / max(seconds, 1e-9), failed
    )


def _format(given: str, out: Path | None) -> str:
    if given != "auto":
        return given
    if out is not None:
        return {".csv": "csv", ".parquet": "parquet"}.get(out.suffix.lower(), "jsonl")
    return "table" if sys.stdout.isatty() else "jsonl"


def _preprocessing(given: str | None) -> Any:
    from plimsoll.errors import InputError

    if given not in (None, "reference", "fast"):
        raise InputError(f"--preprocessing {given}: found '{given}', allowed: reference, fast")
    return given


def _options(pairs: list[str]) -> dict[str, str]:
    from plimsoll.errors import InputError

    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--set {pair}: expected name=value")
        options[name] = value
    return options


def _writer(stack: ExitStack, format_: str, out: Path | None, task: Task, top: int | None, paths: list[str]) -> Writer:
    from plimsoll.cli import rows

    writer: Writer
    if format_ == "parquet":
        assert out is not None  # noqa: S101 - check_format has refused it
        writer = rows.Parquet(out, task, top)
    elif format_ == "table":
        from rich.console import Console

        # Below the one folder that was given, paths are shown from there.
        folder = paths[0] if len(paths) == 1 and Path(paths[0]).is_dir() else ""
        writer = rows.Table(Console(file=_stream(stack, out), highlight=False), task, top, folder)
    else:
        writer = (rows.JsonLines if format_ == "jsonl" else rows.Csv)(_stream(stack, out), task, top)
    stack.callback(writer.close)
    return writer


def _stream(stack: ExitStack, out: Path | None) -> IO[str]:
    from plimsoll.errors import InputError

    if out is None:
        return sys.stdout
    try:
        return stack.enter_context(out.open("w", encoding="utf-8", newline=""))
    except OSError as error:
        raise InputError(f"can't write {out}: {error.strerror}") from error


def _listed(paths: list[str]) -> Any:
    from plimsoll.inference.images import pictures

    return pictures(paths)
