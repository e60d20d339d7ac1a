"""The Pareto front: what no other candidate beats both in speed and in deviation."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]
"""Deviation and speed."""


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats, from the least deviation to the most; of equal ones, one."""
    kept: list[Point] = []
    for deviation, speed in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not kept or speed > kept[-1][1]:
            kept.append((deviation, speed))
    return kept
