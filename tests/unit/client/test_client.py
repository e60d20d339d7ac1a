"""Both clients against a real server that behaves as servers do: slow, full, closing, lying."""

from __future__ import annotations

import asyncio
import inspect
import io
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

import plimsoll
from helpers.asgi_servers import FakeService, problem, serve_app, silent_port
from helpers.client_calls import Do, asynchronous, blocking
from plimsoll.client import Answer, AsyncClient, Client, ItemError, RejectedError, Result, ServiceError
from plimsoll.errors import BackendMissingError, InputError


def test_one_picture_however_it_is_given(use: Do, tmp_path: Path) -> None:
    path = tmp_path / "a photo ü.jpg"
    path.write_bytes(b"x" * 1000)
    with serve_app(FakeService().app()) as url:
        for picture in (
            path,
            str(path),
            path.read_bytes(),
            bytearray(1000),
            memoryview(bytes(1000)),
            io.BytesIO(bytes(1000)),
        ):
            answer = use(url, lambda client, picture=picture: client.predict(picture))
            assert isinstance(answer, Answer)
            assert (answer.score, answer.label, answer.scores) == (1000.0, None, {"nsfw": 1000.0})
            assert (answer.model, answer.version, answer.batch, answer.milliseconds["infer"]) == (
                "standin",
                "3",
                2,
                2.0,
            )


def test_what_is_asked_arrives(use: Do) -> None:
    service = FakeService()
    with serve_app(service.app()) as url:
        use(
            url,
            lambda client: client.predict(b"x", model="open_nsfw", top=2, threshold=0.25, priority=-1, timeout=900),
            key="plm_secret",
        )
    [request] = service.seen
    query = dict(request.query_params)
    assert 800 < float(query.pop("timeout")) <= 900
    assert query == {"model": "open_nsfw", "top": "2", "threshold": "0.25", "priority": "-1"}
    assert request.headers["authorization"] == "Bearer plm_secret"
    assert len(request.headers["x-request-id"]) == 16


def test_a_threshold_of_zero_is_sent(use: Do) -> None:
    service = FakeService()
    with serve_app(service.app()) as url:
        use(url, lambda client: client.predict(b"x", threshold=0.0))
    assert service.seen[0].query_params["threshold"] == "0.0"


def test_file_names_stay_here(use: Do, tmp_path: Path) -> None:
    bodies: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bodies.append(await Request(scope, receive).body())
        await problem(400, "no", "input")(scope, receive, send)

    paths = [tmp_path / f"patient-{number}.jpg" for number in range(2)]
    for path in paths:
        path.write_bytes(b"x")
    with serve_app(app) as url, pytest.raises(RejectedError):
        use(url, lambda client: client.predict(paths))
    assert bodies
    assert b"patient" not in b"".join(bodies)


def test_several_pictures_keep_their_order_and_fail_alone(use: Do, tmp_path: Path) -> None:
    (tmp_path / "there.jpg").write_bytes(b"12345")
    pictures = [
        b"1",
        tmp_path / "missing.jpg",
        b"bad",
        tmp_path / "there.jpg",
        io.BytesIO(b"123"),
        tmp_path,
        io.StringIO("text"),
    ]
    with serve_app(FakeService().app()) as url:
        results = use(url, lambda client: client.predict(pictures))
    scores = [result.answer.score if result.answer else result.error and result.error.kind for result in results]
    assert scores == [1.0, "input", "image", 5.0, 3.0, "input", "input"]
    assert [result.name for result in results[:4]] == [
        "0",
        str(tmp_path / "missing.jpg"),
        "2",
        str(tmp_path / "there.jpg"),
    ]
    assert "No such file" in results[1].error.message
    assert (results[2].error.message, results[2].error.hint, results[2].error.milliseconds) == (
        "not a picture",
        "Send a JPEG.",
        {"queue": 0.5},
    )
    assert "open it with mode 'rb'" in results[6].error.message
    with pytest.raises(ItemError, match="not a picture"):
        results[2].unwrap()


def test_a_single_picture_without_an_answer_raises(use: Do) -> None:
    with serve_app(FakeService().app()) as url:
        with pytest.raises(ItemError, match="not a picture"):
            use(url, lambda client: client.predict(b"bad"))
        with pytest.raises(ItemError, match="can't read the picture"):
            use(url, lambda client: client.predict("no such file"))


def test_a_lone_picture_that_fails_ends_no_stream(use: Do) -> None:
    """The last request of a stream may have a single picture; its failure is not the stream's."""
    with serve_app(FakeService().app()) as url:
        results = use(url, lambda client: client.predict([b"1", b"bad", b"333"]))
        alone = use(url, lambda client: client.predict([b"bad"]))
    assert [result.answer and result.answer.score for result in results] == [1.0, None, 3.0]
    assert (alone[0].error.kind, alone[0].error.message, alone[0].error.status) == ("image", "not a picture", 415)


def test_many_pictures_go_out_in_bounded_requests_at_once(use: Do) -> None:
    service = FakeService(seconds=0.3)
    with serve_app(service.app()) as url:
        results = use(url, lambda client: client.predict([bytes(size) for size in range(1, 101)]), connections=3)
    assert [result.answer.score for result in results] == [float(size) for size in range(1, 101)]
    assert len(service.seen) == 7
    assert service.most == 3


def test_large_pictures_share_no_request(use: Do) -> None:
    service = FakeService()
    large = bytes(5 * 1024 * 1024)
    with serve_app(service.app()) as url:
        results = use(url, lambda client: client.predict([large, large, b"1", b"22"]))
    assert [result.answer.score for result in results] == [len(large), len(large), 1.0, 2.0]
    assert len(service.bodies) == 2
    assert max(service.bodies) < 8 * 1024 * 1024


def test_a_stream_has_few_pictures_in_memory(use: Do) -> None:
    """What was taken from the caller and is not yet answered is bounded, however long the stream is."""
    taken = 0
    gap = 0
    answered = 0

    def pictures() -> Iterator[bytes]:
        nonlocal taken, gap
        for _ in range(400):
            taken += 1
            gap = max(gap, taken - answered)
            yield b"x"

    def watch(client: Client) -> int:
        nonlocal answered
        for _ in client.predict_many(pictures(), batch=4):
            answered += 1
        return answered

    async def watch_async(client: AsyncClient) -> int:
        nonlocal answered
        async for _ in client.predict_many(pictures(), batch=4):
            answered += 1
        return answered

    with serve_app(FakeService(seconds=0.002).app()) as url:
        assert use(url, watch if use is blocking else watch_async, connections=2) == 400
    assert gap <= 4 * (2 * 2 + 1) + 4 + 1


def test_an_asynchronous_stream_of_pictures() -> None:
    async def pictures() -> AsyncIterator[bytes]:
        for size in range(1, 21):
            await asyncio.sleep(0)
            yield bytes(size)

    with serve_app(FakeService().app()) as url:
        results = asynchronous(url, lambda client: client.predict_many(pictures(), batch=3))
    assert [result.answer.score for result in results] == [float(size) for size in range(1, 21)]


def test_leaving_a_stream_early_stops_it(use: Do) -> None:
    service = FakeService(seconds=0.2)
    seen: list[int] = []

    def first(client: Client) -> Result:
        stream = client.predict_many((b"x" for _ in range(10_000)), batch=1)
        result = next(stream)
        stream.close()  # type: ignore[attr-defined]
        for pause in (1.0, 0.5):
            time.sleep(pause)
            seen.append(len(service.seen))
        return result

    async def first_async(client: AsyncClient) -> Result:
        stream = client.predict_many((b"x" for _ in range(10_000)), batch=1)
        result = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        for pause in (1.0, 0.5):
            await asyncio.sleep(pause)
            seen.append(len(service.seen))
        return result

    with serve_app(service.app()) as url:
        assert use(url, first if use is blocking else first_async).answer
    assert seen[0] == seen[1] < 30, "the client is still open, and nothing more is sent"


def test_models_and_readiness(use: Do) -> None:
    with serve_app(FakeService().app()) as url:
        models = use(url, lambda client: client.models())
        assert [(model.name, model.state, model.ready, list(model.labels)) for model in models] == [
            ("standin", "ready", True, ["sfw", "nsfw"]),
            ("other", "unavailable", False, []),
        ]
        assert models[1].details["reason"] == "its worker dies"
        assert use(url, lambda client: client.ready()) is True


def test_waiting_for_readiness(use: Do) -> None:
    service = FakeService(before=lambda _, number: Response(status_code=503) if number < 4 else None)
    with serve_app(service.app()) as url:
        use(url, lambda client: client.wait_until_ready(60))
        assert len(service.seen) == 4
    with silent_port() as (_, url), pytest.raises(ServiceError, match="not ready after"):
        use(url, lambda client: client.wait_until_ready(0.2))


def test_threads_share_a_client() -> None:
    with serve_app(FakeService(seconds=0.01).app()) as url, Client(url, connections=3) as client:
        scores: dict[int, float] = {}

        def ask(size: int) -> None:
            scores[size] = client.predict(bytes(size)).score

        threads = [threading.Thread(target=ask, args=(size,)) for size in range(1, 25)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert scores == {size: float(size) for size in range(1, 25)}


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("localhost:8000", {}),
        ("ftp://localhost", {}),
        ("http://", {}),
        ("http://user:secret@localhost", {}),
        ("http://localhost/?key=1", {}),
        ("http://localhost", {"key": "plm_\nx"}),
        ("http://localhost", {"key": " plm"}),
        ("http://localhost", {"key": "schlüssel"}),
        ("http://localhost", {"key": ""}),
        ("http://localhost", {"connections": 0}),
        ("https://localhost", {"verify": "/no/such/file.pem"}),
    ],
)
def test_mistakes_are_reported_before_anything_is_sent(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Client(url, **options)
    with pytest.raises(InputError):
        AsyncClient(url, **options)


def test_what_is_not_a_picture_is_reported(use: Do) -> None:
    with serve_app(FakeService().app()) as url, pytest.raises(InputError, match="predict_many"):
        use(url, lambda client: client.predict(iter([b"x"])))


def test_another_tasks_property_says_so() -> None:
    answer = Answer({"boxes": [{"label": "cat", "score": 0.5, "box": [1, 2, 3, 4]}]}, model="cats")
    assert answer.boxes[0].corners == (1.0, 2.0, 3.0, 4.0)
    with pytest.raises(AttributeError, match="no `score`: cats answers with boxes"):
        _ = answer.score
    landmarks = Answer({"points": [[1, 2], [3, 4, 5]], "presence": 0.5})
    assert (landmarks.points, landmarks.presence) == (((1.0, 2.0), (3.0, 4.0, 5.0)), 0.5)
    assert Answer({"outputs": {"y": [1]}}).outputs == {"y": [1]}
    assert Answer({"mask": {"rle": []}}).mask == {"rle": []}


def test_the_key_is_not_shown() -> None:
    with Client("http://localhost:1", key="plm_secret") as client:
        assert "secret" not in repr(client) + repr(vars(client)["_config"])


def test_both_clients_are_made_and_asked_alike() -> None:
    def parameters(verb: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
        return [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(verb).parameters.values()
        ]

    verbs = {name for name in vars(Client) if not name.startswith("_")}
    assert verbs == {name for name in vars(AsyncClient) if not name.startswith("_")}
    for verb in {"__init__", *verbs}:
        assert parameters(getattr(Client, verb)) == parameters(getattr(AsyncClient, verb)), verb


def test_without_httpx_the_command_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(BackendMissingError, match="httpx is not installed") as raised:
        plimsoll.Client("http://localhost")
    assert "plimsoll-line[client]" in raised.value.hint
