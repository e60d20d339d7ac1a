"""`Client`, for programs without asyncio (many threads may share it), and `AsyncClient`, for those that run on it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar, Unpack, overload

from plimsoll.client import transport
from plimsoll.client.answers import Answer, FrameResult, ModelInfo, Result
from plimsoll.client.errors import ServiceError
from plimsoll.client.exchange import AttemptError, Call, ClipOptions, Exchange, PredictOptions, Reply
from plimsoll.client.prediction import (
    TOO_LARGE,
    Batcher,
    Picture,
    PredictionRequest,
    Upload,
    clip_call,
    never_ready,
    prepare_upload,
    read_frames,
    read_models,
)

PictureT = TypeVar("PictureT", bound=Picture)


class Client:
    """Asks a service for predictions. One client for many calls, from any thread; use it in a `with` block or close it.

    >>> with Client("http://localhost:8000", key="plm_…") as client:  # doctest: +SKIP
    ...     client.predict("photo.jpg").score
    ...     for result in client.predict_many(Path("photos").glob("*.jpg"), model="open_nsfw"):
    ...         print(result.name, result.answer.score if result.answer else result.error)

    `timeout` is how many seconds a request may take with all its attempts; `retries` how often it is retried (429,
    503, no connection; see `plimsoll.client.exchange`); `connections` how many requests are under way at once; `verify`
    a file of certificates to trust besides the system's. Raises ServiceError and its kinds.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 4,
        connections: int = 8,
        verify: str | bool = True,
    ) -> None:
        self._config = transport.ClientConfig(url, key, timeout, retries, connections, verify).validated()
        self._http = transport.open_client(self._config)
        self._closed = threading.Event()

    @overload
    def predict(self, picture: Picture, **options: Unpack[PredictOptions]) -> Answer: ...

    @overload
    def predict(
        self, picture: list[PictureT] | tuple[PictureT, ...], **options: Unpack[PredictOptions]
    ) -> list[Result]: ...

    def predict(
        self, picture: Picture | list[PictureT] | tuple[PictureT, ...], **options: Unpack[PredictOptions]
    ) -> Answer | list[Result]:
        """Answer one picture (a path, bytes or a file object), or several.

        One picture gives its Answer, or raises ItemError; several give a Result each, in order, where a picture that
        fails fails alone. `options` are `model`, `top`, `threshold`, `priority` and `timeout`, as in `PredictOptions`.
        """
        if isinstance(picture, list | tuple):
            return list(self.predict_many(picture, **options))
        return self._predict_group([prepare_upload(picture, 0)], options)[0].unwrap()

    def predict_many(
        self, pictures: Iterable[Picture], *, batch: int = 16, **options: Unpack[PredictOptions]
    ) -> Iterator[Result]:
        """Answer pictures in their order, however many there are; memory stays bounded.

        They go out in requests of at most `batch` pictures and 8 MiB, as many at once as the client has connections. A
        picture that can't be read, or that gets no answer, is a Result with an error; a request that fails as a whole,
        after all its attempts, raises. Leaving the stream early waits for the requests under way, and sends no other.
        """
        batcher = Batcher(batch)
        waiting: deque[Future[list[Result]]] = deque()
        stop = threading.Event()
        pool = ThreadPoolExecutor(self._config.connections, thread_name_prefix="plimsoll-client")
        try:
            for number, picture in enumerate(pictures):
                if group := batcher.add(prepare_upload(picture, number)):
                    waiting.append(pool.submit(self._predict_group, group, options, stop))
                while waiting and (waiting[0].done() or len(waiting) > 2 * self._config.connections):
                    yield from waiting.popleft().result()
            if group := batcher.flush():
                waiting.append(pool.submit(self._predict_group, group, options, stop))
            while waiting:
                yield from waiting.popleft().result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)  # waits for what is already out, so that no thread outlives its client

    def predict_clip(self, clip: Picture, *, sample: str = "all", **options: Unpack[ClipOptions]) -> list[FrameResult]:
        """Answer the frames of a clip that `sample` chooses: `all`, `every=N`, `seconds=S`, `keyframes` or `scenes`.

        With `clip_score` there is one result, whose `answer.row` has the clip's score and segments. A frame that gets
        no answer is a FrameResult with an error, and so is, as the last one, what is wrong with a
        clip of which some frames could be read. Raises RejectedError for one of which none could.
        """
        upload = prepare_upload(clip, 0)
        call = clip_call(upload, sample, options)
        return read_frames(self._call(call, options.get("timeout") or self._config.timeout), upload.name)

    def models(self) -> list[ModelInfo]:
        """Return the models that the service has."""
        return read_models(self._call(Call("GET", "/v1/models"), self._config.timeout))

    def ready(self) -> bool:
        """Whether the service answers pictures now; False too where there is no connection."""
        try:
            reply = transport.send(self._http, Exchange(Call("GET", "/readyz"), 0, self._config.timeout))
        except AttemptError:
            return False
        return reply.status == 200

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Return as soon as the service answers pictures; raises ServiceError where it doesn't in time."""
        deadline = time.monotonic() + timeout
        while not self.ready():
            if time.monotonic() > deadline:
                raise never_ready(self._config.url, timeout)
            time.sleep(0.1)

    def close(self) -> None:
        """Close the connections; calling it twice is harmless."""
        self._closed.set()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._config.url!r})"

    def _predict_group(
        self, group: Sequence[Upload], options: PredictOptions, stop: threading.Event | None = None
    ) -> list[Result]:
        request = PredictionRequest(group, options)
        if not request.pictures:
            return request.results(None)
        try:
            reply = self._call(request.call(), options.get("timeout") or self._config.timeout, stop)
        except ServiceError as error:
            if len(request.pictures) == 1 or error.status != TOO_LARGE:
                return request.failed(error)
            # Together they are too large for this service; apart they mostly aren't.
            return [result for upload in group for result in self._predict_group([upload], options, stop)]
        return request.results(reply)

    def _call(self, call: Call, timeout: float, stop: threading.Event | None = None) -> Reply:
        exchange = Exchange(call, self._config.retries, timeout)
        while True:
            try:
                reply = transport.send(self._http, exchange)
                pause = exchange.after_reply(reply)
            except AttemptError as failure:
                pause = exchange.after_failure(failure)
            if pause is None:
                return reply
            if (stop or self._closed).wait(pause):
                raise ServiceError(
                    "the call was cancelled: its client or its stream was closed", request_id=exchange.request_id
                )


class AsyncClient:
    """`Client` for asyncio: the same verbs, to be awaited. Use it in an `async with` block or close it.

    >>> async with AsyncClient("http://localhost:8000") as client:  # doctest: +SKIP
    ...     (await client.predict("photo.jpg")).score
    ...     async for result in client.predict_many(pictures):
    ...         print(result.name, result.answer)
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 4,
        connections: int = 8,
        verify: str | bool = True,
    ) -> None:
        self._config = transport.ClientConfig(url, key, timeout, retries, connections, verify).validated()
        self._http = transport.open_async_client(self._config)

    @overload
    async def predict(self, picture: Picture, **options: Unpack[PredictOptions]) -> Answer: ...

    @overload
    async def predict(
        self, picture: list[PictureT] | tuple[PictureT, ...], **options: Unpack[PredictOptions]
    ) -> list[Result]: ...

    async def predict(
        self, picture: Picture | list[PictureT] | tuple[PictureT, ...], **options: Unpack[PredictOptions]
    ) -> Answer | list[Result]:
        """Answer one picture, or several; as `Client.predict`."""
        if isinstance(picture, list | tuple):
            return [result async for result in self.predict_many(picture, **options)]
        return (await self._predict_group([await asyncio.to_thread(prepare_upload, picture, 0)], options))[0].unwrap()

    async def predict_many(
        self,
        pictures: Iterable[Picture] | AsyncIterable[Picture],
        *,
        batch: int = 16,
        **options: Unpack[PredictOptions],
    ) -> AsyncIterator[Result]:
        """Answer pictures in their order, however many there are; as `Client.predict_many`."""
        waiting: deque[asyncio.Task[list[Result]]] = deque()
        turns = asyncio.Semaphore(self._config.connections)
        try:
            async for group in _groups(pictures, Batcher(batch)):
                waiting.append(asyncio.create_task(self._in_turn(turns, group, options)))
                while waiting and (waiting[0].done() or len(waiting) > 2 * self._config.connections):
                    for result in await waiting.popleft():
                        yield result
            while waiting:
                for result in await waiting.popleft():
                    yield result
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def predict_clip(
        self, clip: Picture, *, sample: str = "all", **options: Unpack[ClipOptions]
    ) -> list[FrameResult]:
        """Answer the frames of a clip; as `Client.predict_clip`."""
        upload = await asyncio.to_thread(prepare_upload, clip, 0)
        call = await asyncio.to_thread(clip_call, upload, sample, options)
        return read_frames(await self._call(call, options.get("timeout") or self._config.timeout), upload.name)

    async def models(self) -> list[ModelInfo]:
        """Return the models that the service has."""
        return read_models(await self._call(Call("GET", "/v1/models"), self._config.timeout))

    async def ready(self) -> bool:
        """Whether the service answers pictures now; False too where there is no connection."""
        try:
            reply = await transport.send_async(self._http, Exchange(Call("GET", "/readyz"), 0, self._config.timeout))
        except AttemptError:
            return False
        return reply.status == 200

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Return as soon as the service answers pictures; raises ServiceError where it doesn't in time."""
        deadline = time.monotonic() + timeout
        while not await self.ready():
            if time.monotonic() > deadline:
                raise never_ready(self._config.url, timeout)
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Close the connections; calling it twice is harmless."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._config.url!r})"

    async def _in_turn(
        self, turns: asyncio.Semaphore, group: Sequence[Upload], options: PredictOptions
    ) -> list[Result]:
        async with turns:  # reads its pictures only then
            return await self._predict_group(group, options)

    async def _predict_group(self, group: Sequence[Upload], options: PredictOptions) -> list[Result]:
        request = await asyncio.to_thread(PredictionRequest, group, options)
        if not request.pictures:
            return request.results(None)
        try:
            reply = await self._call(request.call(), options.get("timeout") or self._config.timeout)
        except ServiceError as error:
            if len(request.pictures) == 1 or error.status != TOO_LARGE:
                return request.failed(error)
            # Together they are too large for this service; apart they mostly aren't.
            return [result for upload in group for result in await self._predict_group([upload], options)]
        return request.results(reply)

    async def _call(self, call: Call, timeout: float) -> Reply:
        exchange = Exchange(call, self._config.retries, timeout)
        while True:
            try:
                reply = await transport.send_async(self._http, exchange)
                pause = exchange.after_reply(reply)
            except AttemptError as failure:
                pause = exchange.after_failure(failure)
            if pause is None:
                return reply
            await asyncio.sleep(pause)


async def _groups(
    pictures: Iterable[Picture] | AsyncIterable[Picture], batcher: Batcher
) -> AsyncIterator[list[Upload]]:
    number = 0
    async for picture in _each(pictures):
        if group := batcher.add(await asyncio.to_thread(prepare_upload, picture, number)):
            yield group
        number += 1
    if group := batcher.flush():
        yield group


async def _each(pictures: Iterable[Picture] | AsyncIterable[Picture]) -> AsyncIterator[Picture]:
    if isinstance(pictures, AsyncIterable):
        async for picture in pictures:
            yield picture
    else:
        for picture in pictures:
            yield picture
