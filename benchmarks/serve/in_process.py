"""What a POST of a photo takes in the web process, without sockets and workers: each way of answering it in turns.

    python benchmarks/serve/in_process.py [--size 100_000] [--rounds 3000]

A bare Starlette route is what others are compared with, request by request: a route that answers with pydantic models,
as ours do; FastAPI with the same models, where it is installed; and all of `plimsoll serve` but its workers: keys,
routing, reading, answering, the log line and the counts.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import io
import statistics
import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from plimsoll.serve import log
from plimsoll.serve.access.authorizer import Authorizer
from plimsoll.serve.http.answers import PredictResponse
from plimsoll.serve.http.app import application
from plimsoll.serve.http.endpoints import respond
from plimsoll.serve.messages import InferenceResult, PixelFrame, RequestOptions
from plimsoll.serve.pipeline import Pipeline
from plimsoll.serve.service import ModelConfig, Service
from plimsoll.serve.settings import Settings

ROW = {"label": "sfw", "score": 0.028, "scores": {"sfw": 0.972, "nsfw": 0.028}}
MILLISECONDS = {"queue": 0.2, "decode": 2.1, "infer": 5.3, "answer": 0.1}
RESULT = {"name": None, "answer": ROW, "error": None, "milliseconds": MILLISECONDS, "batch": 1}
ANSWER: dict[str, Any] = {"model": "open_nsfw", "version": "1", "results": [RESULT]}


async def bare(request: Request) -> Response:
    """Read the body, and answer with bytes."""
    await request.body()
    return Response(b"{}", media_type="application/json")


async def with_models(request: Request) -> Response:
    """Read the body, and answer with a model."""
    await request.body()
    return respond(PredictResponse.model_validate(ANSWER))


def fastapi_app() -> ASGIApp | None:
    """Return an application that answers with the same model; None where FastAPI isn't installed."""
    if importlib.util.find_spec("fastapi") is None:
        return None
    import fastapi

    app: Any = fastapi.FastAPI()

    async def predict(request: Any) -> BaseModel:
        await request.body()
        return PredictResponse.model_validate(ANSWER)

    predict.__annotations__ = {"request": fastapi.Request, "return": PredictResponse}
    app.post("/v1/predict")(predict)
    return app  # type: ignore[no-any-return]


def whole_service(service: Service) -> ASGIApp:
    """Return the application of a service whose only model is answered for."""

    async def predict(pictures: Sequence[bytes | PixelFrame], options: RequestOptions) -> list[InferenceResult]:
        del options
        return [InferenceResult(ROW, None, MILLISECONDS, 1) for _ in pictures]

    service.models["open_nsfw"].predict = predict  # type: ignore[method-assign]
    lines = log.start(service.settings.log, io.StringIO())
    return application(
        service, Pipeline(service.metrics, service.settings.log, Authorizer(service.settings.access), lines)
    )


async def seconds(app: ASGIApp, body: bytes) -> float:
    """Return how long a request takes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []
    forever = asyncio.Event()

    async def receive() -> Message:
        if not messages:
            await forever.wait()
        return messages.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"x"), (b"content-type", b"image/jpeg"), (b"content-length", str(len(body)).encode())]
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/predict",
        "raw_path": b"/v1/predict",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
        "headers": headers,
    }
    started = time.perf_counter()
    await app(scope, receive, send)
    took = time.perf_counter() - started
    assert sent[0]["status"] == 200, sent
    return took


async def main() -> None:
    """Measure all ways in turns, and print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=100_000, help="bytes of the photo")
    parser.add_argument("--rounds", type=int, default=3000)
    arguments = parser.parse_args()
    service = Service(Settings(), [ModelConfig("open_nsfw", "open_nsfw")])
    ways: dict[str, ASGIApp] = {
        "bare route": Starlette(routes=[Route("/v1/predict", bare, methods=["POST"])]),
        "route with models": Starlette(routes=[Route("/v1/predict", with_models, methods=["POST"])]),
        "plimsoll serve": whole_service(service),
    }
    if (fastapi := fastapi_app()) is not None:
        ways["FastAPI"] = fastapi
    body = bytes(arguments.size)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, app in ways.items():
            taken[name].append(await seconds(app, body))
    for name, times in taken.items():
        more = [own - other for own, other in zip(times, taken["bare route"], strict=True)]
        print(
            f"{name:18} {1e6 * statistics.median(times):6.1f} µs,"
            f" {1e6 * statistics.median(more):6.1f} more than a bare route"
        )
    service.memory.arena.close()


if __name__ == "__main__":
    asyncio.run(main())
