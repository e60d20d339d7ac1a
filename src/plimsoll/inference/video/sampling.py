"""Which frames of a clip are answered: all, every n-th, one a time span, the key frames, or the first of each scene."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.wording import unknown
from plimsoll.errors import InputError

if TYPE_CHECKING:
    import av

Choice = Literal["all", "every", "seconds", "keyframes", "scenes"]
_FORMS = ("all", "every=N", "seconds=S", "keyframes", "scenes")
_WIDTH, _HEIGHT = 64, 36
"""Scenes are compared at this size."""
_LEAST_CHANGE = 12.0
"""Mean change of luma and chroma, in levels, from which on a frame may begin a scene."""
_SUDDEN = 3.0
"""It does if it changes so many times more than the frames around it do: a pan changes every frame."""
_SHORTEST = 8
"""A scene has at least this many frames: a flash begins one, not two."""


@dataclass(frozen=True)
class Sampling:
    """A choice of frames."""

    kind: Choice = "all"
    step: float = 1.0
    """Frames between two that are answered (`every`), or seconds (`seconds`)."""

    @classmethod
    def parse(cls, text: str) -> Sampling:
        """Read `all`, `every=5`, `seconds=0.5`, `keyframes` or `scenes`; raises InputError."""
        name, equals, value = text.partition("=")
        if not equals and name in ("all", "keyframes", "scenes"):
            return cls(name)  # type: ignore[arg-type]
        if name not in ("every", "seconds"):
            raise InputError(unknown("sampling", text, _FORMS))
        try:
            step = float(value.removesuffix("s") if name == "seconds" else int(value))
        except ValueError:
            step = 0.0
        if not (math.isfinite(step) and step > 0):
            raise InputError(f"'{text}': expected {'a whole number' if name == 'every' else 'seconds'} above 0")
        return cls("every" if name == "every" else "seconds", step)


class Selector:
    """Decides about one frame after another."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._due = -math.inf
        self._scenes = SceneCuts() if sampling.kind == "scenes" else None

    def takes(self, number: int, time: float, frame: av.VideoFrame) -> bool:
        """Tell whether a frame, which has this number from 0 and this time, is answered."""
        kind, step = self._sampling.kind, self._sampling.step
        if kind == "every":
            return number % int(step) == 0
        if kind == "seconds":
            if time < self._due:
                return False
            # On a grid from 0, so that a late frame doesn't move all after it.
            self._due = (math.floor(time / step + 1e-6) + 1) * step - 1e-6
            return True
        if self._scenes is not None:
            return self._scenes.cut(thumbnail(frame))
        return True


def thumbnail(frame: av.VideoFrame) -> NDArray[np.int16]:
    """Return a frame's luma and chroma `[3, height, width]` at the size at which scenes are compared."""
    small = frame.reformat(width=_WIDTH, height=_HEIGHT, format="yuv444p", interpolation="AREA")
    return np.asarray(small.to_ndarray(), np.int16)


class SceneCuts:
    """Finds the frames that begin a scene: those that differ from the frame before them by much more than frames have
    lately done.

    Twenty lines in place of PySceneDetect, which brings OpenCV's windows along; both find the same cuts in the clips of
    the benchmark.
    """

    def __init__(self) -> None:
        self._before: NDArray[np.int16] | None = None
        self._usual = 0.0
        self._since = 0

    def cut(self, small: NDArray[np.int16]) -> bool:
        """Tell whether the frame of this thumbnail begins a scene; the first one does."""
        before, self._before = self._before, small
        if before is None:
            return True
        change = float(np.abs(small - before).mean(axis=(1, 2)) @ (0.6, 0.7, 0.7))
        self._since += 1
        if change >= _LEAST_CHANGE and change >= _SUDDEN * self._usual and self._since >= _SHORTEST:
            self._since = 0
            return True
        self._usual = change if self._since == 1 else 0.8 * self._usual + 0.2 * change
        return False
