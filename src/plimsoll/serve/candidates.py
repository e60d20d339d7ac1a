"""`Candidate`: a model on trial beside the one that it may replace.

It answers a share of the other's requests (canary), or computes a share of them a second time, unseen, and its answers
are compared (shadow): what it would have answered is measured on what callers really send.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from plimsoll.errors import InputError
from plimsoll.serve.background import in_background
from plimsoll.serve.messages import InferenceResult, Picture, RawOutputs, RequestError, RequestOptions
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.worker_handle import ItemKind

if TYPE_CHECKING:
    from plimsoll.serve.service import ServedModel

Outcome = Literal["same", "different", "failed", "skipped"]
_AT_ONCE = 2
"""Requests that are compared at a time: beyond that they are skipped, so that a slow candidate holds nobody up."""


class CandidateSettings(BaseModel):
    """Which model is on trial, and with how many of the other's requests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """The candidate's name; it is served beside the other, and under its own name as well."""
    share: float = Field(0.0, ge=0, le=1)
    """Of the other's requests, how many the candidate answers. Those that name a version are not among them."""
    shadow: float = Field(0.0, ge=0, le=1)
    """Of the requests that the other answers, how many the candidate computes too, for its answers to be compared."""


class Comparison(BaseModel):
    """What was found of the candidate's answers so far, by pictures."""

    same: int = 0
    """Same decisions: the same labels and the same number of things."""
    different: int = 0
    failed: int = 0
    """The candidate alone had no answer."""
    skipped: int = 0
    """Not compared, since the candidate had too much to do."""
    largest_deviation: float | None = None
    """Between two numbers in the same place of the two answers, such as the scores of a label."""

    def add(self, outcome: Outcome, pictures: int) -> None:
        """Count what came of so many pictures."""
        setattr(self, outcome, getattr(self, outcome) + pictures)

    def deviates(self, deviation: float) -> None:
        """Note how far two answers lay apart."""
        self.largest_deviation = max(deviation, self.largest_deviation or 0.0)


@dataclass
class Candidate:
    """A model on trial. Used from the service's event loop."""

    beside: str
    """The name of the model that it may replace."""
    model: ServedModel
    settings: CandidateSettings
    metrics: Metrics
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        self.comparison = Comparison()
        self._comparing: set[asyncio.Task[None]] = set()

    def takes(self) -> bool:
        """Return whether it answers the next request: never where it can't."""
        return self.model.state == "ready" and self.draw() < self.settings.share

    def observe(
        self, kind: ItemKind, pictures: Sequence[Picture], options: RequestOptions, answers: Sequence[Any]
    ) -> None:
        """Compute a share of what the other has answered, and compare, in the background."""
        if not pictures or self.draw() >= self.settings.shadow:
            return
        busy = len(self._comparing) >= _AT_ONCE or self.model.scheduler.waiting
        if busy or self.model.state != "ready":
            self._count("skipped", len(pictures))
            return
        options = replace(options, priority=-1, timeout=None)
        comparing = self._compare(kind, pictures, options, answers)
        in_background(f"comparing {self.model.name}'s answers", comparing, self._comparing)

    async def close(self) -> None:
        """Compare no more."""
        for task in self._comparing:
            task.cancel()
        await asyncio.gather(*self._comparing, return_exceptions=True)

    async def _compare(
        self, kind: ItemKind, pictures: Sequence[Picture], options: RequestOptions, answers: Sequence[Any]
    ) -> None:
        try:
            others = await self.model.scheduler.submit(kind, pictures, options)
        except RequestError:
            self._count("skipped", len(pictures))
            return
        for answer, other in zip(answers, others, strict=True):
            value, value_of_other = _content(answer), _content(other)
            if value is None:  # nor had the model itself an answer
                self._count("same" if value_of_other is None else "different")
            elif value_of_other is None:
                self._count("failed")
            else:
                difference = Difference()
                difference.look(value, value_of_other)
                self._count("same" if difference.same else "different")
                if math.isfinite(difference.largest):
                    self._deviates(difference.largest)

    def _count(self, outcome: Outcome, pictures: int = 1) -> None:
        self.comparison.add(outcome, pictures)
        self.metrics.shadow.labels(self.beside, self.model.name, outcome).inc(pictures)

    def _deviates(self, deviation: float) -> None:
        self.comparison.deviates(deviation)
        self.metrics.shadow_deviation.labels(self.beside, self.model.name).observe(deviation)


def _content(result: object) -> object:
    """Return what was answered, None for a problem."""
    if isinstance(result, RawOutputs):
        return result.outputs
    return result.row if isinstance(result, InferenceResult) else None


@dataclass
class Difference:
    """How two answers differ."""

    same: bool = True
    """Whether they have the same form, and the same texts: labels, decisions."""
    largest: float = 0.0
    """Between two numbers in the same place."""

    def look(self, one_value: object, other: object) -> None:
        """Compare two values, and what is in them."""
        if isinstance(one_value, np.ndarray) and isinstance(other, np.ndarray):
            self._look_at_arrays(one_value, other)
        elif isinstance(one_value, Mapping) and isinstance(other, Mapping):
            self.same = self.same and one_value.keys() == other.keys()
            for key in one_value.keys() & other.keys():
                self.look(one_value[key], other[key])
        elif isinstance(one_value, list | tuple) and isinstance(other, list | tuple):
            self.same = self.same and len(one_value) == len(other)
            for pair in zip(one_value, other, strict=False):
                self.look(*pair)
        elif _is_number(one_value) and _is_number(other):
            self.largest = max(self.largest, abs(float(one_value) - float(other)))  # type: ignore[arg-type]
        elif one_value != other:
            self.same = False

    def _look_at_arrays(self, value: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
        if value.shape != other.shape or value.dtype.kind not in "fiub" or other.dtype.kind not in "fiub":
            self.same = self.same and value.shape == other.shape and bool((value == other).all())
        elif value.size:
            self.largest = max(self.largest, float(np.abs(value.astype(float) - other.astype(float)).max()))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def candidates(
    settings: Mapping[str, CandidateSettings], models: Mapping[str, ServedModel], metrics: Metrics
) -> dict[str, Candidate]:
    """Return the candidates by the names of the models that they may replace; raises InputError for names of none."""
    for name, chosen in settings.items():
        for missing in {name, chosen.model} - models.keys():
            raise InputError(
                f"[candidates.{name}]: no model '{missing}' is served", f"Served: {', '.join(models)}. Serve both."
            )
        if chosen.model == name or chosen.model in settings:
            raise InputError(
                f"[candidates.{name}]: '{chosen.model}' can't be its candidate", "Name another model that is served."
            )
    return {name: Candidate(name, models[chosen.model], chosen, metrics) for name, chosen in settings.items()}
