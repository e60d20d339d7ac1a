"""The seam between Plimsoll and the training frameworks: what a file in `plimsoll.sources` provides.

A new kind of model file is one new file there. It subclasses `Source` and names its instance `SOURCE`. Packages from
elsewhere add theirs by the entry point group `plimsoll.sources`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from plimsoll.model import Model
from plimsoll.spec import Spec


class Source(ABC):
    """One kind of model file."""

    name: ClassVar[str]
    """The format's name, as `Model.format` has it."""
    suffixes: ClassVar[tuple[str, ...]]
    """The endings of such files, with the dot, in lower case."""

    @abstractmethod
    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check the file and what belongs to it, and return the Model; raises ModelError. Runs nothing in the file."""
