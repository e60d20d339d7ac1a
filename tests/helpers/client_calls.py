"""Both clients, used alike: `use(url, lambda client: …)`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from plimsoll.client import AsyncClient, Client

Do = Callable[..., Any]


def blocking(url: str, do: Callable[[Client], Any], **options: Any) -> Any:
    """Do something with a Client."""
    with Client(url, **options) as client:
        return do(client)


def asynchronous(url: str, do: Callable[[AsyncClient], Any], **options: Any) -> Any:
    """Do the same with an AsyncClient: await what `do` returns, gather what it streams."""

    async def run() -> Any:
        async with AsyncClient(url, **options) as client:
            result = do(client)
            return await result if isinstance(result, Awaitable) else [item async for item in result]

    return asyncio.run(run())
