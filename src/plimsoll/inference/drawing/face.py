"""What a face does, from its landmarks: where the head looks, and how far eyes and mouth are open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.errors import BackendMissingError
from plimsoll.tasks import Answer
from plimsoll.tasks.detect import Detection
from plimsoll.tasks.landmarks import Points

Floats = NDArray[np.float64]

_MODEL = np.array(
    [(0, 0, 0), (0, 63.6, 12.5), (-43.3, -32.7, 26), (43.3, -32.7, 26), (-28.9, 28.9, 24.1), (28.9, 28.9, 24.1)],
    np.float64,
)
"""Tip of the nose, chin, outer corners of the eyes, corners of the mouth of an average head, in millimetres; x to the
picture's right, y down, z away from the camera."""


@dataclass(frozen=True)
class _Scheme:
    """Which points of a set are what."""

    pose: tuple[int, ...]
    """In the order of the model."""
    eyes: tuple[tuple[int, ...], tuple[int, ...]]
    """Of each eye, from the picture's left: outer corner, two above, inner corner, two below (from inside)."""
    lips: tuple[int, int, int, int]
    """Inner lips: above, below, and both corners."""


SCHEMES = {
    68: _Scheme((30, 8, 36, 45, 48, 54), ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47)), (62, 66, 60, 64)),
    468: _Scheme(
        (1, 152, 33, 263, 61, 291),
        ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380)),
        (13, 14, 78, 308),
    ),
}
"""By how many points there are: 300-W's 68 and MediaPipe's mesh."""
SCHEMES[478] = SCHEMES[468]
_CLOSED_EYE, _OPEN_EYE = 0.14, 0.28
"""Height of an eye in widths (Soukupová and Čech, 2016)."""
_CLOSED_MOUTH, _OPEN_MOUTH = 0.03, 0.55


@dataclass(frozen=True)
class Face:
    """A face at a moment."""

    yaw: float
    """Radians, to the picture's right."""
    pitch: float
    """Radians, downwards."""
    roll: float
    """Radians, clockwise in the picture."""
    eyes: tuple[float, float]
    """How far each is open, 0 to 1, from the picture's left."""
    mouth: float
    centre: tuple[float, float]
    """Of its points, as shares of the picture's width and height."""
    size: float
    """Height of its points, as a share of the picture's height."""

    def values(self) -> Floats:
        """Return all numbers in a row, for a filter."""
        return np.array([self.yaw, self.pitch, self.roll, *self.eyes, self.mouth, *self.centre, self.size])

    @classmethod
    def of_values(cls, values: Floats) -> Face:
        """Return the face of such a row."""
        yaw, pitch, roll, left, right, mouth, x, y, size = map(float, values)
        return cls(yaw, pitch, roll, (left, right), mouth, (x, y), size)


def read_face(points: Floats, width: int, height: int) -> Face:
    """Return what a face does; `points` `[68, 2]` or `[468, 2 or 3]` in pixels of a picture of this size."""
    scheme = SCHEMES[len(points)]
    flat = np.asarray(points[:, :2], np.float64)
    yaw, pitch, roll = head_pose(flat[list(scheme.pose)], width, height)
    low, high = flat.min(axis=0), flat.max(axis=0)
    eyes = [_openness(_eye(flat[list(eye)]), _CLOSED_EYE, _OPEN_EYE) for eye in scheme.eyes]
    above, below, left, right = (flat[index] for index in scheme.lips)
    mouth = float(np.linalg.norm(below - above)) / max(float(np.linalg.norm(right - left)), 1e-6)
    centre = (low + high) / 2
    return Face(
        yaw,
        pitch,
        roll,
        (eyes[0], eyes[1]),
        _openness(mouth, _CLOSED_MOUTH, _OPEN_MOUTH),
        (float(centre[0] / width), float(centre[1] / height)),
        float((high[1] - low[1]) / height),
    )


def head_pose(points: Floats, width: int, height: int) -> tuple[float, float, float]:
    """Return yaw, pitch and roll in radians from the six points of the model, by PnP: a camera that is as far from its
    image as the image is wide."""
    camera = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], np.float64)
    cv2 = require_opencv()
    solved, turn, _ = cv2.solvePnP(_MODEL, np.ascontiguousarray(points), camera, None, flags=cv2.SOLVEPNP_SQPNP)
    if not solved:
        return 0.0, 0.0, 0.0
    matrix = cv2.Rodrigues(turn)[0]
    look = -matrix[:, 2]  # where the nose points, towards the camera
    yaw = float(np.arctan2(look[0], -look[2]))
    pitch = float(np.arctan2(look[1], np.hypot(look[0], look[2])))
    return yaw, pitch, float(np.arctan2(matrix[1, 0], matrix[0, 0]))


def points_of(answer: Answer) -> tuple[tuple[float, ...], ...]:
    """Return the points of an answer; where it has boxes, those in the best one; none where it has none."""
    if isinstance(answer, Points):
        return answer.points
    return answer.boxes[0].points if isinstance(answer, Detection) and answer.boxes else ()


def require_opencv() -> Any:
    """Return OpenCV; raises BackendMissingError without it."""
    try:
        import cv2
    except ImportError as error:
        raise BackendMissingError(
            "an avatar's head needs OpenCV, which is not installed", "Install it: pip install 'plimsoll-line[fast]'"
        ) from error
    return cv2


def _eye(points: Floats) -> float:
    outer, above, above_inner, inner, below_inner, below = points
    heights = float(np.linalg.norm(above - below)) + float(np.linalg.norm(above_inner - below_inner))
    return heights / max(2 * float(np.linalg.norm(outer - inner)), 1e-6)


def _openness(value: float, closed: float, open_: float) -> float:
    return float(np.clip((value - closed) / (open_ - closed), 0, 1))
