"""Ask a model about pictures, and read its answers as the five classes that the other products know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request

from plimsoll.serve.compat.settings import CLASSES, KNOWN, UNSAFE, Class
from plimsoll.serve.http.body import while_connected
from plimsoll.serve.http.endpoints import context_of
from plimsoll.serve.messages import DescribedAs, InferenceResult, ModelMetadata, Problem, RequestError, RequestOptions
from plimsoll.serve.service import Service

Probability = Annotated[float, DescribedAs(Annotated[float, Field(ge=0, le=1)])]
_THRESHOLD = 0.5
"""Where neither settings nor the model have one; as in `plimsoll.tasks.classify`."""


@dataclass(frozen=True)
class Moderation:
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
class Moderated:
    """What came of the pictures of a request."""

    model: str
    version: str
    threshold: float
    pictures: Sequence[Moderation | Problem]


async def moderate(request: Request, service: Service, name: str, pictures: Sequence[bytes]) -> Moderated:
    """Ask the model `name` (or that of `[compat]`) about pictures. The request's body must have been read.

    Raises RequestError where there is no answer for the request as a whole: the model is not there, is overloaded, or
    has labels whose meaning is not known.
    """
    settings = service.settings.compat
    model = service.choose(name or settings.model)
    context = context_of(request)
    context.model, context.pictures = model.name, len(pictures)
    if model.metadata is None:
        reason = f"{model.name}: {model.reason or 'it is not ready'}"
        raise RequestError(Problem("unavailable", reason, "Try again later.", 503, 1.0))
    meaning = meanings(model.metadata, settings.classes)
    results = await while_connected(request, model.predict(pictures, RequestOptions())) if pictures else []
    outcomes = [_outcome(result, meaning, model.metadata.positive) for result in results]
    threshold = settings.threshold if settings.threshold is not None else model.metadata.threshold
    return Moderated(model.name, model.version, _THRESHOLD if threshold is None else threshold, outcomes)


def meanings(metadata: ModelMetadata, chosen: Mapping[str, Class]) -> dict[str, Class]:
    """Return what each label of a model means; raises RequestError where that is not known of one."""
    if metadata.task != "classify":
        raise _unfit(
            f"the model answers '{metadata.task}', and only a classifier can say what is safe",
            "Name another: `[compat] model`.",
        )
    by_label = {
        label: chosen.get(label) or KNOWN.get(label.strip().lower().replace(" ", "_").replace("-", "_"))
        for label in metadata.labels
    }
    unknown = [label for label, meaning in by_label.items() if meaning is None]
    known = {label: meaning for label, meaning in by_label.items() if meaning is not None}
    if unknown:
        listed = ", ".join(unknown[:5]) + (f" … ({len(unknown):,} in all)" if len(unknown) > 5 else "")
        hint = f"Say so in the settings: [compat.classes], label = one of {', '.join(CLASSES)}."
        raise _unfit(f"unknown meaning of labels: {listed}", hint)
    if not set(known.values()) & set(UNSAFE):
        raise _unfit(
            "no label of the model means Hentai, Porn or Sexy",
            "It would call everything safe; name another: `[compat] model`.",
        )
    return known


def _unfit(message: str, hint: str) -> RequestError:
    return RequestError(Problem("unavailable", message, hint, 503))


def _outcome(result: InferenceResult, meaning: Mapping[str, Class], positive: str | None) -> Moderation | Problem:
    if result.row is None:
        return result.problem or Problem("failed", "there is no answer")
    return read_scores(result.row["scores"], meaning, positive)


def read_scores(scores: Mapping[str, Any], meaning: Mapping[str, Class], positive: str | None) -> Moderation:
    """Read a classification; labels that mean the same are added up."""
    classes: dict[Class, float] = dict.fromkeys(CLASSES, 0.0)
    for label, score in scores.items():
        classes[meaning[label]] = min(classes[meaning[label]] + float(score), 1.0)
    if positive is not None and meaning[positive] in UNSAFE:
        return Moderation(classes, float(scores[positive]))
    return Moderation(classes, max(classes[name] for name in UNSAFE))
