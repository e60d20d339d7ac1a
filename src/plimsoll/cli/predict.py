"""`plimsoll predict MODEL PATH…`."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plimsoll.cli import options, video
from plimsoll.cli.destination import FORMATS, Destination, check_model, not_stored
from plimsoll.errors import PlimsollError

if TYPE_CHECKING:
    from plimsoll.cli.output import Progress
    from plimsoll.cli.rows import Writer
    from plimsoll.inference.walk import LeftOut

_SHOW_AFTER_S = 0.5
"""A progress bar appears only if the work takes longer than this."""


@dataclass
class _Tally:
    done: int = 0
    failed: int = 0
    skipped: int = 0

    def skip(self) -> None:
        """Count a picture that the file has a row of."""
        self.skipped += 1


def predict(  # noqa: PLR0913 - each parameter is an option of the command
    model: options.Model,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH…",
            help="Pictures, folders (searched recursively), patterns like 'photos/*.jpg', or - to read a list from"
            " standard input. Also clips (clip.mp4), cameras (camera:0) and streams (rtsp://…).",
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
    append: Annotated[
        bool,
        typer.Option(
            "--append", help="Go on where the run that wrote --out has ended: what has a row is not answered again."
        ),
    ] = False,
    force: options.Force = False,
    top: Annotated[int | None, typer.Option("--top", min=1, help="Keep only this many of the best labels.")] = None,
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
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, max=1024, help="Pictures in one call of the runtime. Default: what suits it."),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The list on standard input is separated by NUL characters.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any picture failed, not only if all did.")
    ] = False,
    sample: video.Sample = None,
    max_frames: video.MaxFrames = None,
    track: video.Track = False,
    smooth: video.Smooth = False,
    draw: video.Draw = None,
    show: video.Show = False,
    comments: video.Comments = None,
    font: video.Font = None,
    sprite: video.Sprite = None,
    avatar: video.Avatar = None,
    over: video.Over = None,
    clip_score: video.ClipScore = None,
    early_exit: video.EarlyExit = False,
    thumbnails: video.Thumbnails = None,
) -> None:
    """Run a model on pictures, and on the frames of clips, cameras and streams.

    A path that can't be read, or that leads to no picture, becomes a row with its error, and the run goes on. Exits
    with code 1 if every picture failed (with --strict: if any did). Files that look like pictures but are not read are
    counted and named at the end.
    """
    from plimsoll.cli.output import Progress
    from plimsoll.inference.predictor import load
    from plimsoll.inference.walk import LeftOut
    from plimsoll.system import host

    host.keep_memory_level()
    left_out, tally = LeftOut(), _Tally()
    # With --draw alone, --force is about what is drawn.
    destination = Destination.of(format_, out, append=append, replace=force and (out is not None or draw is None))
    with ExitStack() as stack:
        predictor = stack.enter_context(
            load(
                model,
                spec=spec,
                target=target,
                preprocessing=preprocessing,
                options=options.settings(set_ or []),
                policy=policy,
            )
        )
        # With a single folder, a table shows paths relative to it.
        video_options = video.VideoOptions(
            sample=sample,
            max_frames=max_frames,
            track=track,
            smooth=smooth,
            draw=draw,
            show=show,
            comments=comments,
            font=font,
            sprite=tuple(sprite or ()),
            avatar=avatar,
            over=over,
            clip_score=clip_score,
            early_exit=early_exit,
            thumbnails=thumbnails,
            replace=force,
        )
        clips = video.clip_answers(paths, video_options, predictor, threshold)
        if clips is not None:
            video.require_rows_anew(append=append)
        folder = paths[0] if len(paths) == 1 and Path(paths[0]).is_dir() else ""
        task = predictor.task if clips is None else clips.task
        writer, already = destination.open(stack, task, top, folder)
        check_model(destination, already, writer, predictor)
        started = time.perf_counter()
        formats = predictor.spec.input.decode.formats
        listed = video.find_all(paths, formats, null=null, left_out=left_out)
        pictures = not_stored(listed, already, tally.skip)
        if clips is not None:
            predictions = clips.run(paths, pictures, batch)
        else:
            predictions = predictor.predict_many(pictures, threshold=threshold, batch=batch)
        progress = Progress(getattr(writer, "console", None), paths if clips is None else ["-"], _SHOW_AFTER_S, formats)
        _write_all(predictions, writer, progress, tally)
    _end(tally, paths, left_out, time.perf_counter() - started)
    if tally.failed and (strict or tally.failed == tally.done):
        raise typer.Exit(1)


def _write_all(predictions: Any, writer: Writer, progress: Progress, tally: _Tally) -> None:
    """Write every row. After a signal or a failure, keep the rows so far and say how many they are."""
    from plimsoll.cli.streams import uninterrupted

    in_writing = 0
    try:
        for prediction in predictions:
            with uninterrupted():
                tally.done += 1
                in_writing = 1
                writer.write(prediction)
                in_writing = 0
                tally.failed += prediction.error is not None
            progress.advance()
    except KeyboardInterrupt as error:
        predictions.close()
        progress.close()
        typer.echo(f"interrupted: {_stored_in_words(tally.done)}", err=True)
        raise typer.Exit(getattr(error, "exit_code", 130)) from None
    except PlimsollError as error:
        raise type(error)(
            f"{error.message}; {_stored_in_words(tally.done - max(in_writing, writer.unsaved))}", error.hint
        ) from error
    finally:
        progress.close()


def _stored_in_words(count: int) -> str:
    if count == 1:
        return "the prediction of 1 picture was kept"
    return f"the predictions of {count:,} pictures were kept" if count else "no prediction was kept"


def _end(tally: _Tally, paths: list[str], left_out: LeftOut, seconds: float) -> None:
    """Say what was done, and what was left out; raises InputError where there was no picture."""
    from plimsoll.inference.images import no_pictures

    if not tally.done and not tally.skipped:
        raise no_pictures(paths, left_out)
    left_out.log()
    failed = f", {tally.failed:,} failed" if tally.failed else ""
    skipped = f", {tally.skipped:,} had a row already" if tally.skipped else ""
    logging.getLogger("plimsoll").info(
        "%s picture%s in %.1f s (%.0f per second)%s%s",
        f"{tally.done:,}",
        "" if tally.done == 1 else "s",
        seconds,
        tally.done / max(seconds, 1e-9),
        failed,
        skipped,
    )
