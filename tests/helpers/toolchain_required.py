"""For tests that need a heavy toolchain: they are skipped where it isn't made, since making it takes minutes and
gigabytes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from plimsoll.system import toolchains
from plimsoll.system.toolchains.environment import python_of

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"


def require(name: str) -> None:
    """Skip the test where a toolchain isn't made."""
    if not toolchains.is_ready(name):
        pytest.skip(f"the toolchain isn't made: plimsoll toolchains make {name}")


def require_time() -> None:
    """Skip the test unless tests that take minutes are wanted."""
    if not os.environ.get("PLIMSOLL_LARGE"):
        pytest.skip("takes minutes: set PLIMSOLL_LARGE")


def program(name: str, script: str, *arguments: str | Path) -> None:
    """Run a script of `tests/programs` with a toolchain's Python; for what only its packages can write."""
    require(name)
    command = [str(python_of(toolchains.make(name))), "-B", str(PROGRAMS / script), *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
