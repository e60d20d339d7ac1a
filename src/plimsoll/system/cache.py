"""Where Plimsoll keeps what is made or fetched once: weights, toolchains, work folders."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return $PLIMSOLL_CACHE, or the user's cache folder."""
    given = os.environ.get("PLIMSOLL_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("plimsoll", appauthor=False)
