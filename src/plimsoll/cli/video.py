"""The options of `plimsoll predict` for clips, cameras and streams, and how their frames become rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plimsoll.errors import InputError

if TYPE_CHECKING:
    from plimsoll.inference.drawing.overlay import Layer
    from plimsoll.inference.predictor import Prediction, Predictor
    from plimsoll.inference.video.answers import AnsweredFrame, ClipReader
    from plimsoll.inference.video.moderation import Moderation
    from plimsoll.inference.video.writer import Sink
    from plimsoll.inference.walk import LeftOut
    from plimsoll.tasks.base import Task

_PANEL = "Video"
_BEHIND = "person"
_LISTED = "cameras and addresses are not opened from a list; name it on the command line"

Sample = Annotated[
    str | None,
    typer.Option(
        "--sample",
        metavar="CHOICE",
        help=(
            "Which frames of a clip are answered: all (the default), every=N, seconds=S (one in S seconds), keyframes,"
            " or scenes (the first of each)."
        ),
        rich_help_panel=_PANEL,
    ),
]
MaxFrames = Annotated[
    int | None,
    typer.Option(
        "--max-frames",
        min=1,
        metavar="N",
        help="Stop after this many frames of each clip, camera or stream, answered or not.",
        rich_help_panel=_PANEL,
    ),
]
Track = Annotated[
    bool,
    typer.Option(
        "--track", help="Number the objects of a clip: boxes get a `track` that stays.", rich_help_panel=_PANEL
    ),
]
Smooth = Annotated[
    bool,
    typer.Option("--smooth", help="Take the tremble out of a clip's points (One-Euro filter).", rich_help_panel=_PANEL),
]
Draw = Annotated[
    str | None,
    typer.Option(
        "--draw",
        metavar="TARGET",
        help=(
            "Draw the answers over the frames and pictures: into a clip (out.mp4), a folder of pictures, one picture"
            " (out.jpg), or to the address of a stream (rtmp://…, srt://…, udp://…)."
        ),
        rich_help_panel=_PANEL,
    ),
]
Show = Annotated[
    bool,
    typer.Option("--show", help="Show the drawn frames in a window, where there is a display.", rich_help_panel=_PANEL),
]
Comments = Annotated[
    Path | None,
    typer.Option(
        "--comments",
        metavar="FILE",
        help=(
            "Draw bullet comments that pass behind people: a text file ('12.5 Hello' a line) or a Bilibili XML file;"
            " MODEL gives the mask of people."
        ),
        rich_help_panel=_PANEL,
    ),
]
Font = Annotated[
    str | None,
    typer.Option("--font", metavar="FILE", help="The font of comments (.ttf, .otf, .ttc).", rich_help_panel=_PANEL),
]
Sprite = Annotated[
    list[str] | None,
    typer.Option(
        "--sprite",
        metavar="FILE=ANCHOR",
        help=(
            "Draw a picture where something is: the label of a box (heart.png=pinch) or the number of a point"
            " (hat.png=10); heart.png=pinch*1.5 is larger. May be repeated."
        ),
        rich_help_panel=_PANEL,
    ),
]
Avatar = Annotated[
    str | None,
    typer.Option(
        "--avatar",
        metavar="PUPPET",
        help=(
            "Draw a puppet that does what the face does, whose 68 or 468 points MODEL gives: built-in, or a folder of"
            " layers (PNG)."
        ),
        rich_help_panel=_PANEL,
    ),
]
Over = Annotated[
    str | None,
    typer.Option("--over", metavar="CLIP", help="Draw the puppet over this clip.", rich_help_panel=_PANEL),
]
ClipScore = Annotated[
    str | None,
    typer.Option(
        "--clip-score",
        metavar="RULE",
        help=(
            "One row a clip, with its score, the segments that reach the threshold and whether it is flagged. RULE:"
            " worst (the worst frame), nth=N (the N-th worst), share=5% (the share of time at or above the threshold)."
        ),
        rich_help_panel=_PANEL,
    ),
]
EarlyExit = Annotated[
    bool,
    typer.Option(
        "--early-exit", help="With --clip-score: read no more of a clip that is flagged.", rich_help_panel=_PANEL
    ),
]
Thumbnails = Annotated[
    Path | None,
    typer.Option(
        "--thumbnails",
        metavar="FOLDER",
        help="With --clip-score: store small pictures of the frames that decided.",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True)
class VideoOptions:
    """What was asked for beside the model and the paths."""

    sample: str | None = None
    max_frames: int | None = None
    track: bool = False
    smooth: bool = False
    draw: str | None = None
    show: bool = False
    comments: Path | None = None
    font: str | None = None
    sprite: tuple[str, ...] | None = None
    avatar: str | None = None
    over: str | None = None
    clip_score: str | None = None
    early_exit: bool = False
    thumbnails: Path | None = None
    replace: bool = False
    """Whether what `draw` names may be replaced; of no meaning alone."""

    @property
    def given(self) -> bool:
        """Tell whether any of them was given."""
        return any(value not in (None, False, ()) for name, value in vars(self).items() if name != "replace")

    @property
    def effect(self) -> str | None:
        """The first option that draws something else than the answer."""
        drawn = {"--comments": self.comments, "--sprite": self.sprite, "--avatar": self.avatar, "--over": self.over}
        return next((option for option, value in drawn.items() if value), None)


def _layers(options: VideoOptions, predictor: Predictor) -> list[Layer]:
    """Return what is drawn, from behind to front; raises InputError for what the model can't serve."""
    from plimsoll.inference.drawing import avatar, comments, effects, overlay

    task = predictor.spec.output.task
    labels = getattr(predictor.spec.output, "labels", ())
    layers: list[Layer] = []
    if options.avatar is not None:
        points = getattr(predictor.spec.output, "points", None)
        avatar.require_points(points)
        folder = None if options.avatar == "built-in" else options.avatar
        layers.append(avatar.AvatarLayer(avatar.load_puppet(folder), options.over))
    elif options.over is not None:
        raise InputError("--over needs --avatar built-in, or a folder of layers")
    layers += [effects.EffectLayer.parse(value) for value in options.sprite or ()]
    if options.comments is not None:
        masks = task == "segment" or getattr(predictor.spec.output, "has_masks", False)
        if not masks or _BEHIND not in labels:
            raise InputError(
                f"--comments needs a mask of people; {predictor.spec.name} gives none",
                f"Choose a model of the task segment, or one with masks of objects, with the label '{_BEHIND}'.",
            )
        layers.append(comments.CommentLayer(comments.read_comments(options.comments), _BEHIND, options.font))
    return layers or [overlay.Overlay()]


class ClipAnswers:
    """Answers paths among which are clips, and draws the answers. Use it in a `with` block."""

    def __init__(self, options: VideoOptions, predictor: Predictor, threshold: float | None) -> None:
        from plimsoll.inference.video.answers import ClipReader, Follower, colour_for
        from plimsoll.inference.video.source import require_av

        if options.given:  # Else each clip is a row that says so.
            require_av()
        self._options, self._predictor = options, predictor
        self.reader = ClipReader(options.sample or "all", colour=colour_for(predictor), most=options.max_frames)
        self._follower = Follower(predictor, threshold, track=options.track, smooth=options.smooth)
        self._drawing = Drawing(options, self.reader, predictor) if options.draw or options.show else None
        if self._drawing is None and (effect := options.effect):
            raise InputError(f"{effect} draws, and needs --draw TARGET or --show")
        self._moderation = _moderation(options, predictor, threshold)
        predictor.task.answers_clips = True

    @property
    def task(self) -> Task:
        """The task whose answers the rows hold."""
        from plimsoll.inference.video.moderation import ClipTask

        return self._predictor.task if self._moderation is None else ClipTask()

    def run(self, paths: Sequence[str], pictures: Iterable[str], batch: int | None) -> Iterator[Prediction]:
        """Yield the predictions for the frames of clips and for pictures, in order; or one for each clip."""
        answered = self._answered(paths, pictures, batch)
        if self._moderation is not None:
            yield from self._moderation.run(answered, self.reader)
        else:
            for item in answered:
                yield item.prediction

    def _answered(self, paths: Sequence[str], pictures: Iterable[str], batch: int | None) -> Iterator[AnsweredFrame]:
        from plimsoll.inference.video.answers import answer_items
        from plimsoll.inference.video.source import is_live

        answered: Any = answer_items(
            self._predictor,
            self.reader.items(pictures),
            threshold=self._follower.threshold,
            batch=batch,
            live=any(map(is_live, paths)),
        )
        try:
            for item in answered:
                followed = self._follower.update(item)
                if self._drawing is not None:
                    self._drawing.take(followed)
                yield followed
        finally:
            answered.close()
            if self._drawing is not None:
                self._drawing.close()


def _moderation(options: VideoOptions, predictor: Predictor, threshold: float | None) -> Moderation | None:
    """Return what gives a clip one answer, if that was asked for; raises InputError where it can't."""
    from plimsoll.inference.video.moderation import USUAL_THRESHOLD, Moderation, Rule

    if options.clip_score is None:
        if options.early_exit or options.thumbnails is not None:
            raise InputError(f"{'--early-exit' if options.early_exit else '--thumbnails'} needs --clip-score RULE")
        return None
    task = predictor.spec.output.task
    if task not in ("classify", "detect"):
        raise InputError(f"--clip-score needs scores; the task of {predictor.spec.name} is {task}")
    if options.thumbnails is not None:
        options.thumbnails.mkdir(parents=True, exist_ok=True)
    limit = predictor.task.threshold if threshold is None else threshold
    return Moderation(
        Rule.parse(options.clip_score),
        USUAL_THRESHOLD if limit is None else limit,
        thumbnails=options.thumbnails,
        early_exit=options.early_exit,
    )


class Drawing:
    """Draws answered frames into a sink, which is opened with the first of them."""

    def __init__(self, options: VideoOptions, reader: ClipReader, predictor: Predictor) -> None:
        from plimsoll.inference.video.writer import WindowSink, require_free

        self._options, self._reader = options, reader
        if options.draw:
            require_free(options.draw, replace=options.replace)
        self._layers = _layers(options, predictor)
        self._sinks: list[Sink] = [WindowSink()] if options.show else []
        self._opened = not options.draw

    def take(self, answered: AnsweredFrame) -> None:
        """Draw an answer; what has none is left out."""
        from plimsoll.inference.drawing.canvas import canvas_of, read_picture

        answer, frame = answered.prediction.answer, answered.frame
        if answer is None:
            return
        name, time = answered.prediction.path, None if frame is None else frame.time
        canvas = canvas_of(frame.pixels) if frame is not None else read_picture(name)
        for layer in self._layers:
            canvas = layer.paint(canvas, answer, time)
        for sink in self._open(name):
            sink.write(name, canvas, time)

    def _open(self, name: str) -> list[Sink]:
        from plimsoll.inference.video.writer import sink

        if not self._opened:
            self._opened = True
            self._sinks.append(sink(str(self._options.draw), self._reader.rate_of(name)))
        return self._sinks

    def close(self) -> None:
        """Finish what was drawn."""
        for sink in self._sinks:
            sink.close()


def clip_answers(
    paths: Sequence[str], options: VideoOptions, predictor: Predictor, threshold: float | None
) -> ClipAnswers | None:
    """Return what answers clips, or None where the paths name none and no option asks for it."""
    from plimsoll.inference.video.source import is_clip

    return ClipAnswers(options, predictor, threshold) if options.given or any(map(is_clip, paths)) else None


def require_rows_anew(*, append: bool) -> None:
    """Raise InputError for --append: a clip whose run has ended early has rows, and not all of them."""
    if append:
        raise InputError(
            "--append doesn't go with clips: a row doesn't say whether its clip was answered to the end",
            "Write to a file a clip, or begin anew with --force.",
        )


def find_all(paths: Sequence[str], formats: Any, *, null: bool, left_out: LeftOut) -> Iterator[str]:
    """Yield the pictures and clips that paths mean; a camera or an address is itself, unless it comes from a list:
    whoever wrote that may not choose what is connected to."""
    from plimsoll.inference.images import find_images
    from plimsoll.inference.video.source import is_live
    from plimsoll.inference.walk import UnreadablePath

    for path in paths:
        if is_live(path):
            yield path
        else:
            for listed in find_images([path], formats, null=null, left_out=left_out):
                yield UnreadablePath(listed, _LISTED) if is_live(listed) else listed
