"""Ask a model about pictures, and read its answers in the contracts' words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from plimsoll.serve.compat.settings import CLASSES, KNOWN, UNSAFE, Class, CompatSettings
from plimsoll.serve.http.waiting import while_connected
from plimsoll.serve.messages import InferenceResult, ModelMetadata, Problem, RequestError, RequestOptions
from plimsoll.serve.service import Service

_THRESHOLD = 0.5
"""Where neither settings nor the model have one; as in `plimsoll.tasks.classify`."""


@dataclass(frozen=True)
class Seen:
    """What a model says of a picture."""

    classes: Mapping[Class, float]
    """Every class with its probability."""
    score: float
    """How sure the model is that the picture is not safe: its positive label's score, or the largest of those that mean
    Hentai, Porn or Sexy."""

    def is_safe(self, threshold: float) -> bool:
        """Tell whether the score stays below a threshold; one that reaches it is not safe, as in
        `plimsoll.tasks.classify`."""
        return self.score < threshold


@dataclass(frozen=True)
class Looked:
    """What came of the pictures of a request."""

    model: str
    version: str
    threshold: float
    pictures: Sequence[Seen | Problem]


async def look(
    request: Request, service: Service, settings: CompatSettings, name: str, pictures: Sequence[bytes]
) -> Looked:
    """Ask the model `name` (or that of all contracts) about pictures. The request's body must have been read.

    Raises RequestError where there is no answer for the request as a whole: the model is not there, is overloaded, or
    has labels of which nobody said what they mean.
    """
    deployment = service.find(name or settings.model)
    state = request.scope.setdefault("state", {})
    state["model"], state["pictures"] = deployment.name, len(pictures)
    if deployment.metadata is None:
        raise RequestError(
            Problem(
                "unavailable",
                f"{deployment.name}: {deployment.reason or 'it is not ready'}",
                "Try again later.",
                503,
                1.0,
            )
        )
    meaning = meanings(deployment.metadata, settings.classes)
    answered = await while_connected(request, deployment.predict(pictures, RequestOptions())) if pictures else []
    seen = [_seen(one, meaning, deployment.metadata.positive) for one in answered]
    threshold = settings.threshold if settings.threshold is not None else deployment.metadata.threshold
    return Looked(deployment.name, deployment.version, _THRESHOLD if threshold is None else threshold, seen)


def meanings(metadata: ModelMetadata, chosen: Mapping[str, Class]) -> dict[str, Class]:
    """Return what each label of a model means; raises RequestError where that is not known of one."""
    if metadata.task != "classify":
        raise RequestError(
            Problem(
                "unavailable",
                f"the model answers '{metadata.task}', and only a classifier can say what is safe",
                "Name another: `[compat] model`.",
                503,
            )
        )
    found = {
        label: chosen.get(label) or KNOWN.get(label.strip().lower().replace(" ", "_").replace("-", "_"))
        for label in metadata.labels
    }
    unknown = [label for label, meaning in found.items() if meaning is None]
    known = {label: meaning for label, meaning in found.items() if meaning is not None}
    if unknown:
        shown = ", ".join(unknown[:5]) + (f" … ({len(unknown):,} in all)" if len(unknown) > 5 else "")
        hint = f"Say so in the settings: [compat.classes], label = one of {', '.join(CLASSES)}."
        raise _unfit(f"nobody said what these labels of the model mean here: {shown}", hint)
    if not set(known.values()) & set(UNSAFE):
        raise RequestError(
            Problem(
                "unavailable",
                "no label of the model means Hentai, Porn or Sexy",
                "It would call everything safe; name another: `[compat] model`.",
                503,
            )
        )
    return known


def _unfit(message: str, hint: str) -> RequestError:
    return RequestError(Problem("unavailable", message, hint, 503))


def _seen(answered: InferenceResult, meaning: Mapping[str, Class], positive: str | None) -> Seen | Problem:
    if answered.row is None:
        return answered.problem or Problem("failed", "there is no answer")
    return read(answered.row["scores"], meaning, positive)


def read(scores: Mapping[str, Any], meaning: Mapping[str, Class], positive: str | None) -> Seen:
    """Read a classification; labels that mean the same are added up."""
    classes: dict[Class, float] = dict.fromkeys(CLASSES, 0.0)
    for label, score in scores.items():
        classes[meaning[label]] = min(classes[meaning[label]] + float(score), 1.0)
    if positive is not None and meaning[positive] in UNSAFE:
        return Seen(classes, float(scores[positive]))
    return Seen(classes, max(classes[one] for one in UNSAFE))
