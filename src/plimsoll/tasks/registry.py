"""What outputs mean: every file in this folder decodes one task, found by its name."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from plimsoll import tasks
from plimsoll.errors import SpecError
from plimsoll.spec import Spec
from plimsoll.tasks.base import Answer, Task


@cache
def names() -> tuple[str, ...]:
    """Return the tasks that this version decodes, sorted."""
    return tuple(
        sorted(
            module.name for module in pkgutil.iter_modules(tasks.__path__) if module.name not in ("base", "registry")
        )
    )


def decoder(spec: Spec) -> Task:
    """Return the decoder for a Spec's output; raises SpecError for a task that this version only knows by name."""
    task = spec.output.task
    if task not in names():
        raise SpecError(
            f"{spec.name}: the task '{task}' is not decoded by this version; it decodes {', '.join(names())}",
            "With task = 'tensor' the raw outputs are given.",
        )
    made = importlib.import_module(f"plimsoll.tasks.{task}").DECODER(spec.output)
    assert isinstance(made, Task)  # noqa: S101 - every file of this folder keeps this promise
    return made


__all__ = ["Answer", "Task", "decoder", "names"]
