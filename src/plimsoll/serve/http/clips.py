"""`POST /v1/predict/clip`: a clip in, the answers to its frames out, each with its time, as soon as it is known."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from plimsoll.serve import clips
from plimsoll.serve.clips import ClipFrame, ClipSettings
from plimsoll.serve.http import streaming
from plimsoll.serve.http.answers import ClipResult
from plimsoll.serve.http.body import media_type, read_body, read_parts, while_connected
from plimsoll.serve.http.endpoints import (
    FILE,
    TEXT,
    Content,
    Description,
    Endpoint,
    Endpoints,
    ErrorInfo,
    ErrorResponse,
    context_of,
    errors,
    ok,
)
from plimsoll.serve.http.following import ClipOptions, Following, Scoring, check_sampling
from plimsoll.serve.http.predict import option_parameters, query_options
from plimsoll.serve.messages import InferenceResult, Problem, RequestError, RequestOptions
from plimsoll.serve.pipeline import longest
from plimsoll.serve.request import RequestContext
from plimsoll.serve.service import ServedModel, Service

_UNDER_WAY_BYTES = 64 * 1024 * 1024
"""Of the frames of a clip that are being answered."""
_RETRY_S = 0.2
_BUSY_S = 5.0
_EXPECTED = "Send the bytes of a clip (video/mp4 …), or one part named `file`."


_ERRORS = {
    400: "The request can't be read.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is no clip that can be read, or clips are not answered here.",
    422: "What is asked is not allowed.",
    503: "There is no room, or no worker.",
    504: "The clip took too long.",
}


def endpoints(service: Service) -> list[Endpoint]:
    """Return the endpoint."""
    api = Endpoints("native")
    settings = service.settings.clips
    places = _Places(settings)

    @api.post("/v1/predict/clip", _description(service), right="predict")
    async def predict_clip(request: Request) -> Response:
        form = streaming.form_of(request.headers.get("accept", "")) or streaming.LINES
        options = query_options(ClipOptions, request.query_params)
        check_sampling(options.sample)
        context = context_of(request)
        clip = _ClipInProgress(service.choose(options.model), options, context)
        context.model = clip.model.name
        with contextlib.ExitStack() as stack:
            stack.enter_context(places.taken())
            clip.name, data = await _read(request, service)
            rows = _answered(clip, data, settings)
            response = await while_connected(request, streaming.response(form, rows))
            return _Placed(response, stack.pop_all())

    return api.rows


class _Places:
    """How many clips may be answered at once."""

    def __init__(self, settings: ClipSettings) -> None:
        self._settings = settings
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place; raises RequestError where there is none."""
        if not self._settings.at_once or not clips.available():
            hint = "Who runs it may set `[clips] at_once`, and install 'plimsoll-line[video]'."
            raise RequestError(Problem("input", "this service answers no clips", hint, 415))
        if self._taken >= self._settings.at_once:
            message = f"{self._taken} clips are being answered, and no more are at once"
            raise RequestError(Problem("overloaded", message, "Try again later.", 503, _BUSY_S))
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class _Placed(Response):
    """A response that holds a place until it is sent."""

    def __init__(self, response: Response, held: contextlib.ExitStack) -> None:
        self._response, self._held = response, held
        self.status_code, self.raw_headers = response.status_code, response.raw_headers
        self.background = None

    async def __call__(self, *arguments: Any) -> None:
        with self._held:
            await self._response(*arguments)


async def _read(request: Request, service: Service) -> tuple[str | None, bytes]:
    """Return the clip's name and its bytes; raises RequestError."""
    kind = media_type(request)
    if kind == "multipart/form-data":
        files = [part for part in await read_parts(request, service) if part.is_file or part.name == "file"]
        if len(files) != 1:
            raise RequestError(Problem("input", f"{len(files)} files in the form; expected one", _EXPECTED, 400))
        name, data = files[0].filename, files[0].data
    elif kind.startswith("video/") or kind in ("application/octet-stream", "application/x-www-form-urlencoded", ""):
        name, data = None, await read_body(request, service)
    else:
        raise RequestError(Problem("input", f"unknown media type {kind[:100]!r}", _EXPECTED, 415))
    if not data:
        raise RequestError(Problem("input", "there is no clip in the request", _EXPECTED, 400))
    return name, data


@dataclass
class _ClipInProgress:
    """A clip that is being answered."""

    model: ServedModel
    options: ClipOptions
    context: RequestContext
    name: str | None = None
    waiting: deque[tuple[ClipFrame, asyncio.Task[InferenceResult]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        """Raises RequestError where the model's task has none of what is asked for."""
        rule = self.options.clip_score
        self.following = Following(self.model, self.options)
        self.scoring = None if rule is None else Scoring(self.model, self.options, rule)

    def begin(self, frame: ClipFrame) -> None:
        """Send a frame to the workers."""
        answer = _answer(self.model, frame, self.following.options)
        self.waiting.append((frame, asyncio.ensure_future(answer)))

    async def oldest(self) -> list[ClipResult]:
        """Wait for the oldest frame under way; return its row, or none where the clip has one answer."""
        frame, task = self.waiting.popleft()
        result = await self.following.update(await task, frame.time)
        self.context.pictures += 1
        self.context.milliseconds = [longest([*self.context.milliseconds, result.milliseconds])]
        if self.scoring is None:
            return [_row(self.name, self.model, frame, result)]
        self.scoring.add(frame.number, frame.time, result)
        return []

    @property
    def decided(self) -> bool:
        """Whether the rest of the clip may be left out."""
        return self.scoring is not None and self.scoring.stopped

    def end(self, problem: Problem | None) -> list[ClipResult]:
        """Return the row of the clip itself, if there is one; raises RequestError where no frame could be read."""
        if not self.context.pictures:
            raise RequestError(problem or Problem("image", "the clip has no frames", status=415))
        if self.scoring is not None:
            return [_row(self.name, self.model, None, self.scoring.finished(problem))]
        return [_row(self.name, self.model, None, InferenceResult(None, problem))] if problem is not None else []


async def _answered(clip: _ClipInProgress, data: bytes, settings: ClipSettings) -> AsyncGenerator[ClipResult]:
    """Yield the answers to a clip's frames in order, or one of the clip; frames are under way while those before them
    are waited for.

    Raises RequestError for a clip of which no frame can be read; what is wrong with it later is a row.
    """
    problem: Problem | None = None
    try:
        async with clips.decoded(data, clip.options.sample, settings) as frames:
            async for frame in frames:
                if isinstance(frame, Problem):
                    problem = frame
                    break
                while len(clip.waiting) >= _depth(clip.model, frame):
                    for row in await clip.oldest():
                        yield row
                if clip.decided:
                    break
                clip.begin(frame)
            while clip.waiting and not clip.decided:
                for row in await clip.oldest():
                    yield row
        for row in clip.end(problem):
            yield row
    finally:
        for _, task in clip.waiting:
            task.cancel()


def _depth(model: ServedModel, frame: ClipFrame) -> int:
    """Return how many frames may be under way: enough for all workers, and within some memory."""
    fitting = _UNDER_WAY_BYTES // max(len(frame.pixels.data), 1)
    return max(1, min(len(model.workers) + 1, fitting))


async def _answer(model: ServedModel, frame: ClipFrame, options: RequestOptions) -> InferenceResult:
    """Return what came of a frame; where there is no room for it, it waits as long as it may wait for an answer."""
    clock = asyncio.get_running_loop().time
    end = clock() + (options.timeout or model.timeout)
    while True:
        try:
            return (await model.predict([frame.pixels], options))[0]
        except RequestError as error:
            if error.problem.kind != "overloaded" or clock() > end:
                return InferenceResult(None, error.problem)
            await asyncio.sleep(_RETRY_S)


def _row(name: str | None, model: ServedModel, frame: ClipFrame | None, result: InferenceResult) -> ClipResult:
    return ClipResult(
        name=name,
        frame=frame.number if frame is not None else None,
        time=round(frame.time, 3) if frame is not None else None,
        answer=result.row,
        error=ErrorInfo.of(result.problem) if result.problem is not None else None,
        milliseconds={stage: round(value, 3) for stage, value in result.milliseconds.items()},
        batch=result.batch,
        model=model.name,
        version=model.version,
    )


def _description(service: Service) -> Description:
    names = sorted(service.models)
    settings = service.settings.clips
    return Description(
        "predictClip",
        "Answer the frames of a clip.",
        [
            ok(ClipResult, "The answer to each frame as a line, as soon as it is known.", streaming.LINES),
            ok(TEXT, "Each answer as an event `result`; at the end an event `done`.", streaming.EVENTS),
            *errors(ErrorResponse, _ERRORS),
        ],
        "MP4, MOV, Matroska, WebM, AVI, MPEG, FLV and Ogg are read. Positions are in pixels of the upright frame. A "
        "clip that is damaged, or longer than this service reads, has an answer for each frame until there, and then "
        "a row whose `frame` is null. With `clip_score` a single row has the clip's score and segments. At most "
        f"{settings.max_seconds:g} s, {settings.max_frames:,} frames of "
        f"{settings.max_megapixels:g} megapixels are read; {settings.at_once} clips are answered at once.",
        option_parameters(ClipOptions, names),
        [
            *(Content(FILE, media) for media in ("video/mp4", "video/webm", "application/octet-stream")),
            Content({"type": "object", "properties": {"file": FILE}, "required": ["file"]}, "multipart/form-data"),
        ],
    )
