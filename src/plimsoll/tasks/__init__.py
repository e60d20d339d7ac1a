"""What outputs mean: every file in this folder decodes one task, found by its name."""

from __future__ import annotations

from plimsoll.tasks.base import Answer, Task, decoder, names

__all__ = ["Answer", "Task", "decoder", "names"]
