"""Lines of text, compared: how many change, and in how many characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import JsonValue

from plimsoll.core.budget import Evidence
from plimsoll.metrics.distances import edit_distance
from plimsoll.prove.comparison import (
    Change,
    Comparer,
    Comparison,
    changed_figure,
    complement,
    mean_figure,
    settings_that_differ,
)
from plimsoll.prove.labels import Truth
from plimsoll.report.figures import percent_at_most
from plimsoll.spec.spec import Text
from plimsoll.tasks import Answer
from plimsoll.tasks.text import Line

_NAMES = frozenset({"tensor", "alphabet_file", "batch_axis"})
_EXAMPLES = 3


@dataclass(frozen=True)
class PictureText:
    """What is kept of a picture."""

    reference: str
    other: str
    distance: int
    """The characters to change."""


class TextComparer(Comparer):
    """Compares texts character by character."""

    answer_type: ClassVar[type[Answer]] = Line

    def __init__(self, output: Text, other: Text) -> None:
        self._settings = tuple(settings_that_differ(output, other, _NAMES))

    def measure(self, reference: Line, other: Line, scale: tuple[float, float] = (1.0, 1.0)) -> PictureText:
        del scale
        return PictureText(reference.text, other.text, edit_distance(reference.text, other.text))

    def change(self, measured: PictureText) -> Change:
        same = f"'{measured.reference}'"
        return Change(measured.distance, f"{same} → '{measured.other}'" if measured.distance else same)

    def comparison(
        self, measured: Sequence[PictureText], failed: int, truths: Sequence[Truth | None] | None = None
    ) -> TextComparison:
        del truths
        return TextComparison(len(measured) + failed, failed, tuple(measured), self._settings)


@dataclass(frozen=True)
class TextComparison(Comparison):
    """How the other model's texts differ from the reference's."""

    pictures: int
    failed: int
    measured: tuple[PictureText, ...]
    settings: tuple[str, ...] = ()
    """How the Specs read the outputs otherwise."""

    @property
    def _changed(self) -> list[PictureText]:
        return [each for each in self.measured if each.distance]

    @property
    def nothing_compared(self) -> str:
        if not self.measured or any(each.reference for each in self.measured):
            return ""
        return f"the reference reads no text in {len(self.measured):,} pictures: give pictures that hold text"

    @property
    def headline(self) -> str:
        if self.nothing_compared:
            return f"nothing was compared: {self.nothing_compared}"
        changes, errors = (self.evidence()[name][0] for name in ("text_changes", "cer"))
        bound = percent_at_most(changes.bound).replace("\u00a0", " ")
        return (
            f"{len(self._changed):,} of {len(self.measured):,} texts changed; with 95 % confidence at most"
            f" {bound} do; {100 * errors.value:.2g} % of the characters are wrong"
        )

    def evidence(self) -> Evidence:
        characters = [len(each.reference) for each in self.measured]
        errors = [each.distance for each in self.measured]
        detail = f"{sum(errors):,} of {sum(characters):,} characters inserted, deleted or replaced"
        changes = changed_figure("texts that change", len(self._changed), len(self.measured))
        return {
            "agreement": [complement("texts that agree", changes)],
            "text_changes": [changes],
            "cer": [mean_figure("character error rate", errors, characters, detail)],
        }

    @property
    def cause(self) -> str:
        return "; ".join(self.settings[:3])

    @property
    def notes(self) -> list[str]:
        pairs = [f"'{each.reference}' → '{each.other}'" for each in self._changed[:_EXAMPLES]]
        return [f"Texts that changed: {', '.join(pairs)}"] if pairs else []

    def details(self) -> dict[str, JsonValue]:
        return {
            "task": "text",
            "count": self.pictures,
            "failed": self.failed,
            "changed": [[each.reference, each.other] for each in self._changed],
        }
