"""`AsyncClient`: for programs that run on asyncio."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack, overload

from plimsoll.client import transport
from plimsoll.client.answers import Answer, Result, ServedModel
from plimsoll.client.errors import ServiceError
from plimsoll.client.exchange import Broken, Call, Exchange, Reply, Wishes
from plimsoll.client.pictures import Grouping, Picture, Sending, sending
from plimsoll.client.prediction import TOO_LARGE, PredictionRequest, never_ready, served

Some = TypeVar("Some", bound=Picture)


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
        self._place = transport.Place(url, key, timeout, retries, connections, verify).checked()
        self._http = transport.open_async_client(self._place)

    @overload
    async def predict(self, picture: Picture, **wishes: Unpack[Wishes]) -> Answer: ...

    @overload
    async def predict(self, picture: list[Some] | tuple[Some, ...], **wishes: Unpack[Wishes]) -> list[Result]: ...

    async def predict(
        self, picture: Picture | list[Some] | tuple[Some, ...], **wishes: Unpack[Wishes]
    ) -> Answer | list[Result]:
        """Answer one picture, or several; as `Client.predict`."""
        if isinstance(picture, list | tuple):
            return [result async for result in self.predict_many(picture, **wishes)]
        return (await self._ask([await asyncio.to_thread(sending, picture, 0)], wishes))[0].unwrap()

    async def predict_many(
        self, pictures: Iterable[Picture] | AsyncIterable[Picture], *, batch: int = 16, **wishes: Unpack[Wishes]
    ) -> AsyncIterator[Result]:
        """Answer pictures in their order, however many there are; as `Client.predict_many`."""
        waiting: deque[asyncio.Task[list[Result]]] = deque()
        turns = asyncio.Semaphore(self._place.connections)
        try:
            async for group in _groups(pictures, Grouping(batch)):
                waiting.append(asyncio.create_task(self._in_turn(turns, group, wishes)))
                while waiting and (waiting[0].done() or len(waiting) > 2 * self._place.connections):
                    for result in await waiting.popleft():
                        yield result
            while waiting:
                for result in await waiting.popleft():
                    yield result
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def models(self) -> list[ServedModel]:
        """Return the models that the service has."""
        return served(await self._call(Call("GET", "/v1/models"), self._place.timeout))

    async def ready(self) -> bool:
        """Whether the service answers pictures now; False too where there is no connection."""
        try:
            reply = await transport.send_async(self._http, Exchange(Call("GET", "/readyz"), 0, self._place.timeout))
        except Broken:
            return False
        return reply.status == 200

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Return as soon as the service answers pictures; raises ServiceError where it doesn't in time."""
        deadline = time.monotonic() + timeout
        while not await self.ready():
            if time.monotonic() > deadline:
                raise never_ready(self._place.url, timeout)
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
        return f"AsyncClient({self._place.url!r})"

    async def _in_turn(self, turns: asyncio.Semaphore, group: Sequence[Sending], wishes: Wishes) -> list[Result]:
        async with turns:  # reads its pictures only then
            return await self._ask(group, wishes)

    async def _ask(self, group: Sequence[Sending], wishes: Wishes) -> list[Result]:
        request = await asyncio.to_thread(PredictionRequest, group, wishes)
        if not request.pictures:
            return request.results(None)
        try:
            reply = await self._call(request.call(), wishes.get("timeout") or self._place.timeout)
        except ServiceError as error:
            if len(request.pictures) == 1 or error.status != TOO_LARGE:
                return request.failed(error)
            # Together they are too large for this service; apart they mostly aren't.
            return [result for one in group for result in await self._ask([one], wishes)]
        return request.results(reply)

    async def _call(self, call: Call, timeout: float) -> Reply:
        exchange = Exchange(call, self._place.retries, timeout)
        while True:
            try:
                reply = await transport.send_async(self._http, exchange)
                pause = exchange.heard(reply)
            except Broken as broken:
                pause = exchange.broke(broken)
            if pause is None:
                return reply
            await asyncio.sleep(pause)


async def _groups(
    pictures: Iterable[Picture] | AsyncIterable[Picture], grouping: Grouping
) -> AsyncIterator[list[Sending]]:
    number = 0
    async for picture in _each(pictures):
        if group := grouping.add(await asyncio.to_thread(sending, picture, number)):
            yield group
        number += 1
    if group := grouping.rest():
        yield group


async def _each(pictures: Iterable[Picture] | AsyncIterable[Picture]) -> AsyncIterator[Picture]:
    if isinstance(pictures, AsyncIterable):
        async for picture in pictures:
            yield picture
    else:
        for picture in pictures:
            yield picture
