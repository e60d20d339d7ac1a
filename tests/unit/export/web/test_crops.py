"""A page cuts out what a cascade's next network reads, and names gestures, as Python does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.javascript import HAS_NODE, SITE, node
from plimsoll.inference.cascade_spec import Crop
from plimsoll.inference.crops import square_of
from plimsoll.inference.gestures import GESTURES, gestures_of

pytestmark = pytest.mark.skipif(not HAS_NODE, reason="Node.js is not installed")


def test_crops_and_gestures_are_pythons(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    pictures = [chance.integers(0, 256, (tall, wide, 3), np.uint8) for wide, tall in ((60, 41), (7, 50))]
    cases: list[dict[str, Any]] = []
    for number in range(40):
        picture = number % 2
        tall, wide = pictures[picture].shape[:2]
        first, second = chance.uniform(-0.2, 1.2, (2, 2)) * [wide, tall]
        crop = Crop(
            scale=chance.uniform(0.5, 3),
            shift=tuple(chance.uniform(-0.6, 0.6, 2)),
            upright=(2, 0) if number % 3 else None,
            angle=float(chance.choice([0, 90, -30])),
        )
        cases.append(
            {
                "picture": picture,
                "crop": crop.model_dump(mode="json"),
                "box": [*np.minimum(first, second), *np.maximum(first, second)],
                "points": (chance.uniform(0, 1, (3, 2)) * [wide, tall]).tolist(),
                "size": [int(chance.integers(1, 24)), int(chance.integers(1, 24))],
                "black": bool(number % 4 == 0),
            }
        )
    bent = (chance.normal(0, 1, (300, 21, 2)) * 0.4 + np.linspace([0, 0], [0.5, -2], 21)) * 50
    hands = [bent[at : at + 1 + at % 3].tolist() for at in range(0, 297, 3)]
    shown = [{"width": p.shape[1], "height": p.shape[0], "data": p.ravel().tolist()} for p in pictures]
    (tmp_path / "request.json").write_text(json.dumps({"pictures": shown, "crops": cases, "hands": hands}))
    answer = node("web_crops.mjs", str(tmp_path / "request.json"), str(SITE / "crops.js"))
    different = 0
    for case, given in zip(cases, answer["crops"], strict=True):
        square = square_of(Crop(**case["crop"]), case["box"], np.array(case["points"]))
        assert given["square"] == pytest.approx([square.x, square.y, square.side, square.angle], abs=1e-9)
        shares = np.array([[0, 0], [0.25, 0.75], [1, 1]], np.float64)
        np.testing.assert_allclose(given["points"], square.to_picture(shares), atol=1e-9)
        cut = square.cut(pictures[case["picture"]], *case["size"], black=case["black"]).ravel().astype(int)
        levels = np.abs(cut - given["data"])
        assert levels.max() <= 1
        different += int((levels > 0).sum())
    assert different <= 2, "a sine's last digit may turn a half"
    gestures = [gestures_of([np.array(hand) for hand in together]) for together in hands]
    assert answer["gestures"] == gestures
    assert len({name for names in gestures for name in names}) >= len(GESTURES) // 2
