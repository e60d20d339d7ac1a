"""What a hand does, from its 21 points alone: by geometry, so that no pictures of hands had to be collected.

The points are MediaPipe's: 0 the wrist; 1 to 4 the thumb from its root to its tip; and so on for the index, middle,
ring and little finger. A finger is stretched where its tip lies farther from the wrist than its middle joint does;
lengths are compared with the palm's, so neither the hand's size nor its turn in the picture matters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hand = NDArray[np.float64]
"""`[21, 2 or 3]`"""

POINTS = 21
GESTURES = ("open", "fist", "thumb up", "thumb down", "pinch", "point", "victory", "horns", "call", "heart", "hand")
"""`hand` is what fits none of the others."""

_STRETCHED = 1.15
"""Times as far from the wrist as the middle joint."""
_THUMB_STRETCHED = 1.05
"""Times as far from the little finger's root as its last joint."""
_TOUCHING = 0.35
"""Of the palm's length, wrist to the root of the middle finger: tips that are nearer to one another touch."""
_HEART = 0.7
_FINGERS = {
    (False, False, False, False): "fist",
    (True, True, True, True): "open",
    (True, False, False, False): "point",
    (True, True, False, False): "victory",
    (True, False, False, True): "horns",
}


def gesture_of(hand: Hand) -> str:
    """Return the gesture of one hand."""
    points = hand[:, :2]
    palm = max(_distance(points[0], points[9]), 1e-6)
    fingers = tuple(_is_stretched(points, root) for root in (5, 9, 13, 17))
    thumb = _thumb_is_stretched(points, palm)
    if _distance(points[4], points[8]) < _TOUCHING * palm and not _is_folded(points, 5):
        return "pinch"
    if thumb and not any(fingers):
        rise = (points[0, 1] - points[4, 1]) / palm
        return "thumb up" if rise > 0.5 else "thumb down" if rise < -0.5 else "hand"
    if thumb and fingers == (False, False, False, True):
        return "call"
    if fingers == (True, True, True, True) and not thumb:
        return "hand"
    return _FINGERS.get((fingers[0], fingers[1], fingers[2], fingers[3]), "hand")


def gestures_of(hands: Sequence[Hand]) -> list[str]:
    """Return the gesture of each hand in a picture; two that form a heart together, by the tips of their thumbs and of
    their index fingers, do that."""
    gestures = [gesture_of(hand) for hand in hands]
    for first in range(len(hands)):
        for second in range(first + 1, len(hands)):
            if _is_heart(hands[first][:, :2], hands[second][:, :2]):
                gestures[first] = gestures[second] = "heart"
    return gestures


def _is_heart(first: Hand, second: Hand) -> bool:
    near = _HEART * (_distance(first[0], first[9]) + _distance(second[0], second[9])) / 2
    tips_touch = all(_distance(first[tip], second[tip]) < near for tip in (4, 8))
    index_above = first[8, 1] < first[4, 1] and second[8, 1] < second[4, 1]
    return tips_touch and index_above


def _is_stretched(points: Hand, root: int) -> bool:
    wrist, middle, tip = points[0], points[root + 1], points[root + 3]
    return _distance(wrist, tip) > _STRETCHED * _distance(wrist, middle)


def _is_folded(points: Hand, root: int) -> bool:
    """Whether a fingertip lies nearer to the wrist than the finger's root: in a fist, where it may touch the thumb."""
    return _distance(points[0], points[root + 3]) < _distance(points[0], points[root])


def _thumb_is_stretched(points: Hand, palm: float) -> bool:
    """The thumb bends sideways: its tip is farther from the little finger's root than its joint is, and not on the
    palm."""
    away = _distance(points[4], points[17]) > _THUMB_STRETCHED * _distance(points[3], points[17])
    return away and min(_distance(points[4], points[joint]) for joint in (5, 6, 9, 10)) > 0.4 * palm


def _distance(first: Hand, second: Hand) -> float:
    return float(np.linalg.norm(first - second))
