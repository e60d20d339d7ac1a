"""Run the command line as a user does: as a command, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = [str(Path(sys.executable).parent / "plimsoll")]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def plimsoll(tmp_path: Path, nsfw_model_path: Path) -> Run:
    """Run `plimsoll ARGUMENTS` in an empty folder and return its exit code, output and messages."""
    del nsfw_model_path

    def run(
        *arguments: str | Path, stdin: str | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        work = tmp_path / "empty"
        work.mkdir(exist_ok=True)
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=work,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
            env={**os.environ, "COLUMNS": "120", **(env or {})},
        )

    return run
