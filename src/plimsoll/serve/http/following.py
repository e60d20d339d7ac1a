"""What belongs to the frames of a clip or a camera together: the numbers of objects, steady points, a clip's score.

Workers answer single frames, with plain rows. These are followed here, within limits: what a frame costs is bounded,
whatever it shows, and is spent beside the loop that serves everybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from pydantic import Field, model_validator

from plimsoll.errors import InputError
from plimsoll.inference.video.moderation import USUAL_THRESHOLD, ClipScorer, Rule
from plimsoll.inference.video.rows import RowFollower
from plimsoll.inference.video.sampling import Sampling
from plimsoll.serve.http.answers import ClipScoreAnswer
from plimsoll.serve.http.predict import PredictOptions
from plimsoll.serve.messages import InferenceResult, Problem, RequestError, RequestOptions, unavailable
from plimsoll.serve.service import ServedModel


class FrameOptions(PredictOptions):
    """What is asked for besides the frames, in the query."""

    track: bool = Field(False, description="Number the objects: boxes get a `track` that stays.")
    smooth: bool = Field(False, description="Take the tremble out of points (One-Euro filter), object by object.")


class ClipOptions(FrameOptions):
    """What is asked for besides the clip, in the query."""

    sample: str = Field(
        "all", max_length=100, description="Which frames: `all`, `every=N`, `seconds=S`, `keyframes` or `scenes`."
    )
    clip_score: str | None = Field(
        None,
        max_length=50,
        description="One answer in place of one a frame: the clip's score by its worst frame (`worst`), its N-th worst "
        "(`nth=N`) or the share of time at or above the threshold (`share=5%`), and the segments that reach it.",
    )
    early_exit: bool = Field(False, description="With `clip_score` by frames: read no more of a clip that is flagged.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.early_exit and (self.clip_score is None or self.clip_score.startswith("share")):
            raise ValueError("early_exit needs clip_score=worst or clip_score=nth=N")
        return self


class Following:
    """The frames of one clip, or of one connection."""

    def __init__(self, model: ServedModel, options: FrameOptions) -> None:
        """Raises RequestError (422) where the model's task has none of what is asked for."""
        if options.track or options.smooth:
            if model.metadata is None:
                raise unavailable(f"{model.name} is not ready")
            try:
                self._follower: RowFollower | None = RowFollower(
                    model.metadata.spec, options.threshold, track=options.track, smooth=options.smooth
                )
            except InputError as error:
                raise RequestError(Problem("input", error.message, error.hint, 422)) from error
        else:
            self._follower = None
        self._top, self._options = options.top, options.options()
        self.version = model.version
        """Of the model: another one begins anew."""

    @property
    def options(self) -> RequestOptions:
        """What a worker is asked for: boxes that are weak, or beyond `top`, may continue tracks."""
        if self._follower is None:
            return self._options
        return replace(self._options, threshold=self._follower.threshold, top=None)

    async def update(self, result: InferenceResult, time: float) -> InferenceResult:
        """Return what came of the next frame as a part of the whole; `time` is in seconds."""
        if self._follower is None or result.row is None:
            return result
        row = await asyncio.to_thread(self._follower.update, result.row, time)
        return replace(result, row={**row, "boxes": row["boxes"][: self._top]} if "boxes" in row else row)


class Scoring:
    """One answer to a clip."""

    def __init__(self, model: ServedModel, options: ClipOptions, rule: str) -> None:
        """Raises RequestError: 422 for an unknown rule, and for a model whose task has no scores."""
        if model.metadata is None:
            raise unavailable(f"{model.name} is not ready")
        if model.metadata.task not in ("classify", "detect"):
            message = f"clip_score needs scores; the task of {model.name} is {model.metadata.task}"
            raise RequestError(Problem("input", message, status=422))
        limits = (options.threshold, model.metadata.threshold, USUAL_THRESHOLD)
        threshold = next(limit for limit in limits if limit is not None)
        try:
            self._scorer = ClipScorer(Rule.parse(rule), threshold, early_exit=options.early_exit)
        except InputError as error:
            raise RequestError(Problem("input", error.message, error.hint, 422)) from error
        self._without = 0
        self._problem: Problem | None = None

    @property
    def stopped(self) -> bool:
        """Whether the rest of the clip may be left out."""
        return self._scorer.stopped

    def add(self, number: int, time: float, result: InferenceResult) -> None:
        """Take what came of the next frame."""
        if result.row is None:
            self._without, self._problem = self._without + 1, self._problem or result.problem
        else:
            self._scorer.add(_severity(result.row), number, time)

    def finished(self, problem: Problem | None) -> InferenceResult:
        """Return the clip's answer, and what is wrong with it: frames without an answer count as nothing, and that is
        said."""
        answer, _ = self._scorer.finished()
        if problem is None and self._problem is not None:
            text = f"{self._without:,} of the frames have no answer; of the first: {self._problem.message}"
            problem = replace(self._problem, message=text)
        row = {name: value for name, value in answer.row().items() if name in ClipScoreAnswer.model_fields}
        return InferenceResult(row if answer.frames else None, problem)


def _severity(row: Mapping[str, Any]) -> float:
    """Return a frame's score: the classifier's, or the surest box's."""
    if "boxes" in row:
        return float(row["boxes"][0]["score"]) if row["boxes"] else 0.0
    return float(row["score"])


def check_sampling(text: str) -> None:
    """Raise RequestError (422) for a `sample` that doesn't exist."""
    try:
        Sampling.parse(text)
    except InputError as error:
        raise RequestError(Problem("input", error.message, error.hint, 422)) from error
