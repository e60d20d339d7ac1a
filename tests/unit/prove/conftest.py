"""What is proven, and on which pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plimsoll.inference.predictor import ResolvedModel, open_model


@pytest.fixture
def nsfw(nsfw_model_path: Path) -> ResolvedModel:
    del nsfw_model_path
    return open_model("open_nsfw")


@pytest.fixture
def photos(example_photos: list[Path]) -> list[Path]:
    return example_photos[::5]


@pytest.fixture
def greys(tmp_path: Path) -> list[Path]:
    """Twenty pictures of one level each, from dark to bright."""
    paths = []
    for count, level in enumerate(np.linspace(5, 250, 20)):
        paths.append(tmp_path / f"grey{count:02}.png")
        Image.new("RGB", (9, 9), (int(level),) * 3).save(paths[-1])
    return paths
