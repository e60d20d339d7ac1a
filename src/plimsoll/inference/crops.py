"""Turned squares: what a cascade cuts out of a picture for its next network, and the way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import SpecError
from plimsoll.inference.cascade_spec import Crop
from plimsoll.preprocessing import fast_decode

Positions = NDArray[np.float64]


@dataclass(frozen=True)
class Square:
    """A turned square in a picture."""

    x: float
    y: float
    """Its centre, in the picture's pixels."""
    side: float
    angle: float
    """By which it is turned clockwise, in radians."""

    def to_picture(self, points: Positions) -> Positions:
        """Return where points `[N, 2]`, as shares of the square, lie in the picture."""
        x, y = ((points - 0.5) * self.side).T
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        return np.stack([self.x + x * cosine - y * sine, self.y + x * sine + y * cosine], axis=1)

    def cut(self, pixels: NDArray[np.uint8], width: int, height: int, *, black: bool = False) -> NDArray[np.uint8]:
        """Return what is in it, `[height, width, 3]`, bilinear; beyond the picture its border repeats, or is `black`.

        The corners of the square lie on the corner pixels' places, as where MediaPipe's `ImageToTensorCalculator` gives
        them to OpenCV's `warpPerspective`.
        """
        columns, rows = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
        x, y = self.to_picture(np.stack([columns.ravel(), rows.ravel()], axis=1)).T
        wide, tall, edge = pixels.shape[1], pixels.shape[0], int(black)
        x, y = np.clip(x, -edge, wide - 1 + edge), np.clip(y, -edge, tall - 1 + edge)
        left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
        samples = pixels.reshape(-1, 3)
        mixed = np.zeros((len(x), 3), np.float32)
        for column, across in ((left, 1 - (x - left)), (left + 1, x - left)):
            for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
                inside = (column >= 0) & (column < wide) & (row >= 0) & (row < tall)
                share = np.where(inside, across * down, 0.0).astype(np.float32)
                index = np.clip(row, 0, tall - 1) * wide + np.clip(column, 0, wide - 1)
                mixed += np.take(samples, index, axis=0) * share[:, np.newaxis]
        return np.asarray(np.rint(mixed), np.uint8).reshape(height, width, 3)

    def cut_fast(self, pixels: NDArray[np.uint8], width: int, height: int, *, black: bool = False) -> NDArray[np.uint8]:
        """Return the same by OpenCV, but for a level in a few pixels; raises BackendMissingError without
        it."""
        cv2 = fast_decode.opencv()
        origin, right, down = self.to_picture(np.array([[0.0, 0.0], [1 / width, 0.0], [0.0, 1 / height]]))
        border = cv2.BORDER_CONSTANT if black else cv2.BORDER_REPLICATE
        way = np.stack([right - origin, down - origin, origin], axis=1)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(pixels, way, (width, height), flags=flags, borderMode=border), np.uint8)


def square_of(crop: Crop, box: Sequence[float], points: Positions) -> Square:
    """Return the square to cut out around a box (x0, y0, x1, y1) with its points `[N, 2]`, all in the picture's pixels;
    raises SpecError for a point that the box doesn't have."""
    x0, y0, x1, y1 = box
    width, height, angle = x1 - x0, y1 - y0, 0.0
    if crop.upright is not None:
        if max(crop.upright) >= len(points):
            raise SpecError(
                f"crop.upright = {list(crop.upright)}: the stage before gives {len(points)} points in a box",
                "They count from 0.",
            )
        first, second = points[crop.upright[0]], points[crop.upright[1]]
        turn = math.radians(crop.angle) - math.atan2(first[1] - second[1], second[0] - first[0])
        angle = turn - 2 * math.pi * math.floor((turn + math.pi) / (2 * math.pi))
    dx, dy = width * crop.shift[0], height * crop.shift[1]
    cosine, sine = math.cos(angle), math.sin(angle)
    centre_x, centre_y = (x0 + x1) / 2 + dx * cosine - dy * sine, (y0 + y1) / 2 + dx * sine + dy * cosine
    return Square(centre_x, centre_y, crop.scale * max(width, height), angle)
