"""Bullet comments that pass behind people: read from a text or a Bilibili XML file, laid out in lines, and drawn under
the mask of the people in the frame, whose edges are feathered."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from plimsoll.core.wording import printable
from plimsoll.errors import InputError
from plimsoll.inference.drawing.canvas import WHITE, Canvas, Colour, lacks, paste, text
from plimsoll.system import files
from plimsoll.tasks import Answer
from plimsoll.tasks.detect import Detection
from plimsoll.tasks.segment import Segmentation

_MAX_BYTES = 50_000_000
_MAX_COMMENTS = 200_000
_LONGEST = 100
_SCROLL_S, _FIXED_S = 8.0, 4.0
_USUAL_SIZE = 25
"""Bilibili's size of most comments: a line of one."""
_LINES = 16
_GAP = 0.6
"""Of a line's height: the least distance of two comments behind each other."""
_FEATHER = 1 / 160
"""Of the frame's height: over how much a comment fades at a person's edge."""
_STEADY = 0.6
"""What of the newest mask counts against the one before it: masks tremble."""
_TEXT_LINE = re.compile(r"\s*(?:(\d+):)?(?:(\d+):)?(\d+(?:\.\d+)?)[\s,;]+(.+)")
_SCROLLING, _BOTTOM, _TOP, _BACKWARDS = {1, 2, 3}, 4, 5, 6


@dataclass(frozen=True)
class Comment:
    """A comment and when it comes."""

    time: float
    words: str
    colour: Colour = WHITE
    mode: int = 1
    """As in Bilibili's files: 1 to 3 scroll to the left, 4 stands below, 5 above, 6 scrolls to the right."""
    size: int = _USUAL_SIZE


def read_comments(path: Path) -> list[Comment]:
    """Read comments, sorted by time: lines such as `12.5 Hello` or `1:02:03 Hello`, or Bilibili's XML.

    Raises InputError for a file that can't be read, or holds none.
    """
    try:
        content = files.read_text(path, _MAX_BYTES, regular=True)
    except OSError as error:
        raise InputError(f"{path}: can't read the comments: {error.strerror}") from error
    comments = [*(_of_xml(content, path) if content.lstrip("\ufeff \r\n\t").startswith("<") else _of_lines(content))]
    if not comments:
        raise InputError(
            f"{path} has no comments", "Give lines such as '12.5 Hello' (seconds, or 1:23), or a Bilibili XML file."
        )
    return sorted(comments[:_MAX_COMMENTS], key=lambda comment: comment.time)


def _of_lines(content: str) -> Iterator[Comment]:
    for line in content.lstrip("\ufeff").splitlines():
        if match := _TEXT_LINE.fullmatch(line):
            first, second, seconds, words = match.groups()
            hours, minutes = (int(first), int(second)) if second else (0, int(first or 0))
            yield Comment(3600 * hours + 60 * minutes + float(seconds), _clean(words))


def _of_xml(content: str, path: Path) -> Iterator[Comment]:
    """Yield `<d p="time,mode,size,colour,…">words</d>`; advanced comments (7, 8) are programs and left out."""
    if "<!DOCTYPE" in content or "<!ENTITY" in content:
        raise InputError(f"{path}: an XML file with a DTD is not read", "Remove the DOCTYPE.")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not well-formed XML: {error}") from error
    for element in root.iter("d"):
        values = (element.get("p") or "").split(",")
        try:
            time, mode, size, colour = float(values[0]), int(values[1]), int(values[2]), int(values[3])
        except (ValueError, IndexError):
            continue
        if (
            element.text
            and element.text.strip()
            and np.isfinite(time)
            and mode in {*_SCROLLING, _BOTTOM, _TOP, _BACKWARDS}
        ):
            rgb = (colour >> 16 & 255, colour >> 8 & 255, colour & 255)
            yield Comment(max(time, 0.0), _clean(element.text), rgb, mode, int(np.clip(size, 12, 29)))


def _clean(words: str) -> str:
    return printable(" ".join(words.split()))[:_LONGEST]


@dataclass(frozen=True)
class _Laid:
    """A comment in its line."""

    comment: Comment
    line: int
    width: int
    speed: float
    """Pixels a second to the left; 0 stands."""

    @property
    def end(self) -> float:
        return self.comment.time + (_FIXED_S if not self.speed else _SCROLL_S)

    def left(self, time: float, width: int) -> float:
        """Return where it begins at a time, in a frame of this width."""
        if not self.speed:
            return (width - self.width) / 2
        way = self.speed * (time - self.comment.time)
        return width - way if self.comment.mode != _BACKWARDS else way - self.width


class CommentLayer:
    """Draws comments; `behind` is the label of what they pass behind."""

    def __init__(self, comments: Sequence[Comment], behind: str = "person", font: str | None = None) -> None:
        self._comments, self._behind, self._font = comments, behind, font
        lacking = sorted({char for comment in comments for char in comment.words if lacks(char, font)})
        if lacking:
            logging.getLogger("plimsoll").warning(
                "the font has no %s and %s other characters of the comments; give another one with --font",
                lacking[0],
                f"{len(lacking) - 1:,}",
            )
        self._next = 0
        self._time = -1.0
        self._shown: list[_Laid] = []
        self._lines: dict[tuple[int, int], _Laid] = {}
        self._mask: NDArray[np.float32] | None = None

    def paint(self, canvas: Canvas, answer: Answer, time: float | None) -> Canvas:
        """Draw the comments of a moment over everything but people; returns the canvas."""
        if time is None:
            return canvas
        height, width = canvas.shape[:2]
        if time < self._time:  # another clip
            self._next, self._shown, self._lines, self._mask = 0, [], {}, None
        self._time = time
        self._shown = [laid for laid in self._shown if laid.end > time]
        while self._next < len(self._comments) and self._comments[self._next].time <= time:
            self._enter(self._comments[self._next], width, height, time)
            self._next += 1
        visible = self._visibility(answer, height, width)
        for laid in self._shown:
            sprite = self._sprite(laid.comment, height)
            top = round(laid.line * height / _LINES)
            if laid.comment.mode == _BOTTOM:
                top = height - top - sprite.shape[0]
            paste(canvas, sprite, round(laid.left(time, width)), top, visible)
        return canvas

    def shown_at(self, time: float, width: int) -> list[tuple[tuple[int, int], float, float]]:
        """Return of each comment that is shown its group and line, and where it begins and ends across the frame."""
        return [
            ((self._group(laid.comment), laid.line), laid.left(time, width), laid.left(time, width) + laid.width)
            for laid in self._shown
        ]

    @staticmethod
    def _group(comment: Comment) -> int:
        """Return what shares lines with a comment."""
        return 1 if comment.mode in _SCROLLING else comment.mode

    def _sprite(self, comment: Comment, height: int) -> NDArray[np.uint8]:
        size = max(round(0.8 * height / _LINES * comment.size / _USUAL_SIZE), 8)
        return text(comment.words, size, comment.colour, None, self._font)

    def _enter(self, comment: Comment, width: int, height: int, now: float) -> None:
        """Give a comment the first line where it overlaps none before it; where all are full it isn't shown."""
        across = self._sprite(comment, height).shape[1]
        fixed = comment.mode in (_BOTTOM, _TOP)
        laid = _Laid(comment, 0, across, 0.0 if fixed else (width + across) / _SCROLL_S)
        if laid.end <= now:
            return
        for line in range(_LINES // 2 if fixed else _LINES - 1):
            group = self._group(comment)
            before = self._lines.get((group, line))
            if before is None or self._clear(before, laid, width, height):
                laid = _Laid(comment, line, across, laid.speed)
                self._lines[group, line] = laid
                self._shown.append(laid)
                return

    @staticmethod
    def _clear(before: _Laid, laid: _Laid, width: int, height: int) -> bool:
        """Tell whether a comment never touches the one before it in its line."""
        start = laid.comment.time
        if not laid.speed:
            return before.end <= start
        gap = _GAP * height / _LINES
        entered = before.speed * (start - before.comment.time) >= before.width + gap
        return entered and before.end <= start + (width - gap) / laid.speed

    def _visibility(self, answer: Answer, height: int, width: int) -> NDArray[np.uint8] | None:
        """Return how much of a comment shows at each pixel: 0 over people, 255 elsewhere, and feathered between.

        Most of it at a part of the size: the edges are soft.
        """
        radius = max(height * _FEATHER, 0.5)
        step = max(int(radius), 1)
        small = self._people(answer, (max(width // step, 1), max(height // step, 1))) if self._shown else None
        if small is None:
            return None
        mask = np.asarray(small.filter(ImageFilter.GaussianBlur(radius / step)), np.float32)
        if self._mask is not None and self._mask.shape == mask.shape:
            mask = np.asarray(self._mask + _STEADY * (mask - self._mask), np.float32)
        self._mask = mask
        free = Image.fromarray(255 - np.rint(mask).astype(np.uint8))
        return np.asarray(free.resize((width, height), Image.Resampling.BILINEAR))

    def _people(self, answer: Answer, size: tuple[int, int]) -> Image.Image | None:
        """Return where people are, as a segmentation or the masks of boxes have them: 0 to 255, in that size."""
        if isinstance(answer, Segmentation) and self._behind in answer.labels:
            runs = answer.map
            columns = np.repeat(np.uint8(255) * (runs.values == answer.labels.index(self._behind)), runs.lengths)
            # Runs go down the columns: as they lie in memory, the picture is mirrored at its diagonal.
            turned = Image.fromarray(columns.astype(np.uint8, copy=False).reshape(runs.width, runs.height))
            return turned.resize(size[::-1], Image.Resampling.BOX).transpose(Image.Transpose.TRANSPOSE)
        if isinstance(answer, Detection):
            total = np.zeros(size[::-1], np.uint8)
            for box in answer.boxes:
                if box.label == self._behind and box.mask is not None:
                    pixels = Image.fromarray(box.mask.pixels().astype(np.uint8) * 255)
                    total = np.maximum(total, np.asarray(pixels.resize(size, Image.Resampling.BOX)))
            return Image.fromarray(total)
        return None
