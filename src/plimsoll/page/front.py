"""The Pareto front: what no other variant beats both in speed and in drift."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]
"""Drift and speed."""


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats, from the least drift to the most; of equal ones, one."""
    kept: list[Point] = []
    for drift, speed in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not kept or speed > kept[-1][1]:
            kept.append((drift, speed))
    return kept
