"""The client against the real service, with the real network and real photos."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import plimsoll
from helpers.service_process import ServiceProcess, start, until
from plimsoll.client import BusyError, RejectedError
from plimsoll.serve.access import keys
from plimsoll.serve.access.authorizer import AccessSettings, Authorizer
from plimsoll.serve.access.keys import Key, Rate, Terms
from plimsoll.serve.http.app import application
from plimsoll.serve.log import LogSettings
from plimsoll.serve.pipeline import Pipeline
from plimsoll.serve.service import ModelConfig, Service
from plimsoll.serve.settings import Settings


@pytest.fixture(scope="module")
def scores(example_photos: list[Path]) -> list[float]:
    """What the model says of twelve photos without any service."""
    with plimsoll.load("open_nsfw") as model:
        return [model.predict(photo).score for photo in example_photos[:12]]  # type: ignore[attr-defined]


def test_the_client_answers_as_the_library_does(
    served: ServiceProcess, example_photos: list[Path], scores: list[float]
) -> None:
    with plimsoll.Client(served.url) as client:
        client.wait_until_ready(5)
        answer = client.predict(example_photos[0], top=1)
        assert answer.score == pytest.approx(scores[0], abs=1e-6)
        assert len(answer.scores) == 1
        assert set(answer.milliseconds) == {"queue", "decode", "infer", "answer"}
        assert answer.model == "open_nsfw"
        results = client.predict(example_photos[:12], threshold=0.0)
        assert [result.unwrap().score for result in results] == pytest.approx(scores, abs=1e-6)
        assert {result.unwrap().label for result in results} == {"nsfw"}
        [model] = client.models()
        assert (model.name, model.ready, sorted(model.labels)) == ("open_nsfw", True, ["nsfw", "sfw"])


def test_so_does_the_asynchronous_one(served: ServiceProcess, example_photos: list[Path], scores: list[float]) -> None:
    async def ask() -> list[float]:
        async with plimsoll.AsyncClient(served.url) as client:
            assert await client.ready()
            return [result.unwrap().score async for result in client.predict_many(example_photos[:12], batch=5)]

    assert asyncio.run(ask()) == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_picture_that_is_invalid_fails_alone(
    served: ServiceProcess, example_photos: list[Path], scores: list[float], batch: int
) -> None:
    pictures: list[Path | bytes] = [
        example_photos[0],
        b"no picture",
        b"",
        example_photos[1],
        example_photos[0].read_bytes()[:700],
    ]
    with plimsoll.Client(served.url) as client:
        results = list(client.predict_many(pictures, batch=batch))
    assert [result.answer and result.answer.score for result in results] == pytest.approx(
        [scores[0], None, None, scores[1], None], abs=1e-6
    )
    assert [result.error and result.error.kind for result in results] == [None, "image", "input", None, "image"]


def test_mistakes_come_back_in_words(served: ServiceProcess, example_photos: list[Path]) -> None:
    with plimsoll.Client(served.url) as client:
        with pytest.raises(RejectedError, match="unknown model 'other'"):
            client.predict(example_photos[0], model="other")
        with pytest.raises(RejectedError, match="threshold"):
            client.predict(example_photos[0], threshold=7.0)


def test_a_service_that_is_full_answers_everybody_in_the_end(
    tmp_path: Path, nsfw_model_path: Path, example_photos: list[Path], scores: list[float]
) -> None:
    """Twelve clients ask a service with room for two pictures: it says 503, they come back when it says, and all get
    their answers."""
    del nsfw_model_path
    config = tmp_path / "small.toml"
    config.write_text("max_queue = 2\nheartbeat_timeout = 300\nbatch_timeout = 300\ntimeout = 300\n")
    scores_by_photo: dict[int, float] = {}
    with start(
        "open_nsfw", "--workers", "1", "--threads", "1", "--max-batch", "1", "--grace", "0", "--config", str(config)
    ) as running:
        client = plimsoll.Client(running.url, retries=60, timeout=100, connections=12)

        def ask(index: int) -> None:
            scores_by_photo[index] = client.predict(example_photos[index]).score

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(12)]
        (worker,) = running.workers()
        os.kill(
            worker, signal.SIGSTOP
        )  # until somebody was turned away: a quick machine answers twelve before the last one has asked
        try:
            for thread in threads:
                thread.start()
            until(lambda: running.metric("plimsoll_requests_total", status="503") > 0, "the service to be full")
        finally:
            os.kill(worker, signal.SIGCONT)
        for thread in threads:
            thread.join()
        client.close()
    assert [scores_by_photo[index] for index in range(12)] == pytest.approx(scores, abs=1e-6)


class _Kept:
    def __init__(self) -> None:
        self.fields: list[dict[str, Any]] = []

    def put(self, fields: dict[str, Any]) -> None:
        self.fields.append(fields)


@asynccontextmanager
async def guarded(access: AccessSettings, lines: _Kept) -> AsyncIterator[str]:
    """The real service behind its pipeline."""
    service = Service(Settings(), [ModelConfig("open_nsfw", "open_nsfw")])
    await service.start()
    pipeline = Pipeline(service.metrics, LogSettings(), Authorizer(access), lines)  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(application(service, pipeline), log_level="error", lifespan="off", access_log=False)
        )
        running = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running
            await service.close()


def test_keys_rates_and_the_log_around_the_real_service(
    tmp_path: Path, nsfw_model_path: Path, example_photos: list[Path], scores: list[float]
) -> None:
    del nsfw_model_path
    file = tmp_path / "keys.toml"
    tokens: dict[str, str] = {}
    entries: list[Key] = []
    for name, terms in {"app": Terms(), "slow": Terms(rate=Rate.parse("1/m"), burst=1)}.items():
        tokens[name], entry = keys.issue(name, terms)
        entries.append(entry)
    keys.write(file, entries)
    lines = _Kept()
    photo = example_photos[0]

    async def ask() -> None:
        async with guarded(AccessSettings(keys=file), lines) as url:
            async with plimsoll.AsyncClient(url) as client:
                assert await client.ready()
                with pytest.raises(RejectedError, match="needs an API key") as raised:
                    await client.predict(photo)
                assert raised.value.status == 401
            async with plimsoll.AsyncClient(url, key=tokens["app"]) as client:
                assert (await client.predict(photo)).score == pytest.approx(scores[0], abs=1e-6)
            async with plimsoll.AsyncClient(url, key=tokens["slow"], timeout=20) as client:
                await client.predict(photo)
                with pytest.raises(BusyError, match="'slow' may ask 1/m") as busy:
                    await client.predict(photo)
                assert 20 < (busy.value.retry_after or 0) <= 60
                assert busy.value.request_id == lines.fields[-1]["request_id"]

    asyncio.run(ask())
    logged = [(line["status"], line.get("key"), line.get("model"), line.get("pictures")) for line in lines.fields]
    assert logged == [
        (401, None, None, None),
        (200, "app", "open_nsfw", 1),
        (200, "slow", "open_nsfw", 1),
        (429, None, None, None),
    ]
    text = json.dumps(lines.fields)
    assert photo.name not in text
    assert not any(token in text for token in tokens.values())
