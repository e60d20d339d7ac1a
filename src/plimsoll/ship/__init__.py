"""The main job: build candidate deployments, prove and measure each on the user's images, and pack the fastest inside
the budget."""

from __future__ import annotations

from plimsoll.ship.run import (
    CALIBRATORS,
    OBJECTIVES,
    REFERENCE,
    Candidate,
    SearchConfig,
    Ship,
    Shipped,
    Trial,
    all_targets,
    default_targets,
    toolchains,
)

__all__ = [
    "CALIBRATORS",
    "OBJECTIVES",
    "REFERENCE",
    "Candidate",
    "SearchConfig",
    "Ship",
    "Shipped",
    "Trial",
    "all_targets",
    "default_targets",
    "toolchains",
]
