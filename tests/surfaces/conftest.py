"""Run the command line as a user does: as a command, in an empty folder; or within the tests' own process, where what
is tested is no matter of the process."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from plimsoll.cli.main import guarded
from plimsoll.system import host

COMMAND = [str(Path(sys.executable).parent / "plimsoll")]
Run = Callable[..., subprocess.CompletedProcess[str]]
RunHere = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, jobs_here: None) -> RunHere:
    """Run `plimsoll ARGUMENTS` in this process, a second faster than a command: for what reads no standard input, gets
    no signal, and writes to files or to Python's streams. Runtimes stay loaded between calls."""
    del jobs_here
    monkeypatch.setattr(host, "keep_memory_level", lambda: None)  # It would hold for all tests after this one.

    def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
        command = [*COMMAND, *map(str, arguments)]
        logger = logging.getLogger("plimsoll")
        before, level = logger.handlers[:], logger.level
        logger.handlers.clear()
        try:
            with monkeypatch.context() as patch, contextlib.chdir(cwd or Path.cwd()):
                patch.setenv("COLUMNS", "120")
                patch.setattr(sys, "argv", command)
                patch.setattr(sys, "stdout", streams[0])
                patch.setattr(sys, "stderr", streams[1])
                code = guarded()
        finally:
            logger.handlers[:] = before
            logger.setLevel(level)
        shown, said = (stream.buffer.getvalue() for stream in streams)
        assert b"Traceback" not in said
        assert b"internal error" not in said
        return subprocess.CompletedProcess(command, int(code or 0), shown, said)

    return run


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


@pytest.fixture
def plimsoll_here(run_here: RunHere, tmp_path: Path, nsfw_model_path: Path) -> Run:
    """Run `plimsoll ARGUMENTS` in an empty folder, as `plimsoll` does, but in this process."""
    del nsfw_model_path
    work = tmp_path / "empty"

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        work.mkdir(exist_ok=True)
        done = run_here(*arguments, cwd=work)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run
