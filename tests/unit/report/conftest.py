"""The made-up report that all tests of the page read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers import sample_ship_report
from plimsoll.report.page import render


@pytest.fixture(scope="session")
def example(example_photos: list[Path]) -> dict[str, Any]:
    """The details of a ship with 14 candidates and 125 judged photographs. Copy before you change it."""
    return sample_ship_report.details(example_photos)


@pytest.fixture(scope="session")
def page(example: dict[str, Any]) -> str:
    """The page of that ship."""
    return render(sample_ship_report.report(example))
