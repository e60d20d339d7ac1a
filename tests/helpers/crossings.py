"""People who walk past each other, with the exact truth, and what a detector would see of them."""

from __future__ import annotations

import numpy as np

from helpers.identities import Boxes
from plimsoll.inference.video.assignment import overlaps
from plimsoll.inference.video.tracking import LOW
from plimsoll.tasks.detect import Box, Detection

RATE, CONFIDENCE = 25, 0.4
SIZE = (40.0, 90.0)


def crossing(count: int = 150, objects: int = 6) -> list[Boxes]:
    """Return the truth: people who walk in lines, half of them to the left and half to the right, and so cross."""
    truth = []
    for index in range(count):
        boxes: Boxes = {}
        for number in range(objects):
            direction = 1 if number % 2 else -1
            x = 320 + direction * (4.0 * index - 300) + 25 * number
            y = 200 + 14 * number + 6 * np.sin(index / 9 + number)
            boxes[number] = (x, y, x + SIZE[0], y + SIZE[1])
        truth.append(boxes)
    return truth


def detections(truth: list[Boxes], seed: int = 0) -> list[Detection]:
    """Return what a detector sees: trembling boxes, weaker or none where another person stands in front, and now and
    then one that isn't there."""
    random = np.random.default_rng(seed)
    frames = []
    for boxes in truth:
        seen = []
        for number, box in boxes.items():
            corners = np.array([box])
            hidden = max(
                (overlaps(corners, np.array([other]))[0, 0] for at, other in boxes.items() if at > number), default=0.0
            )
            score = 0.8 - 0.9 * hidden + random.normal(0, 0.03)
            if score >= CONFIDENCE * LOW:
                tremble = random.normal(0, 1.2, 4)
                x0, y0, x1, y1 = (float(value) for value in box + tremble)
                seen.append(Box("person", float(np.clip(score, 0, 1)), (x0, y0, x1, y1)))
        if random.random() < 0.1:
            x, y = random.uniform(0, 600, 2)
            seen.append(Box("person", 0.45, (x, y, x + 40, y + 90)))
        frames.append(Detection(tuple(sorted(seen, key=lambda box: -box.score))))
    return frames
