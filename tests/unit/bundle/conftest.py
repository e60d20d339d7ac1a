"""A small model, and its bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.small_models import HERE, small_model
from plimsoll.bundle.packing import pack
from plimsoll.core.model import Model


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return small_model(tmp_path)


@pytest.fixture
def bundle(model: Model, tmp_path: Path) -> Path:
    return pack(model, HERE, tmp_path / "bundle")
