"""Calibration tables of other tools, read and written: ranges that were found once serve every runtime.

Most formats know one number a tensor, the largest absolute value; read back, that is the range (−t, t).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from plimsoll.core.model import Model
from plimsoll.errors import InputError

Range = tuple[float, float]
Ranges = Mapping[str, Range]
"""By tensors' names: the low and the high end of each."""

MAX_BYTES = 64_000_000
"""A larger file is not read as a table."""


class CalibrationTable(ABC):
    """A format in which a runtime's tools keep calibrated ranges."""

    name: ClassVar[str]
    """The format's name on the command line."""

    @abstractmethod
    def recognises(self, data: bytes) -> bool:
        """Tell whether a file's bytes look like this format; formats are asked in the order of their runtimes'
        names."""

    @abstractmethod
    def read(self, data: bytes, where: str, model: Model) -> dict[str, Range]:
        """Return the ranges of a network's tensors; raises InputError, and BuildError for another network's table.

        `where` names the file in messages.
        """

    @abstractmethod
    def write(self, ranges: Ranges, model: Model, picture: NDArray[Any] | None = None) -> bytes:
        """Return a table's bytes; raises InputError for what the format can't hold.

        A table of layers needs the network; `picture` `[1, …]`, what the network reads, helps to tell its tensors
        apart.
        """


def decode(data: bytes, where: str) -> str:
    """Return a table's text; raises InputError where it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: the calibration table is not UTF-8 text: {error}") from error


def threshold(low: float, high: float) -> float:
    """Return the largest absolute value of a range."""
    return max(-low, high, 0.0)


def symmetric(thresholds: Mapping[str, float]) -> dict[str, Range]:
    """Return the ranges around zero that thresholds mean."""
    return {name: (-value, value) for name, value in thresholds.items()}
