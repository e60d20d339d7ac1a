"""The command line. Each command imports what it needs when it runs, so that `--help` is quick.

`main` puts the commands together; `options` are those that several commands share; `output` writes predictions and
shows progress; every other file is named after its command, or its group of commands.
"""

from __future__ import annotations

from plimsoll.cli.main import app, main

__all__ = ["app", "main"]
