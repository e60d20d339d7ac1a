"""The command line: one file a command. Each imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

from plimsoll.cli.main import app, main

__all__ = ["app", "main"]
