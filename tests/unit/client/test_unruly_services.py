"""Both clients against servers that are slow, full, closing or lying."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from helpers.asgi_servers import FakeService, problem, read_request, serve_app, silent_port
from helpers.client_calls import Do, blocking
from plimsoll.client import AsyncClient, BusyError, Client, DeadlineError, RejectedError, ServiceError, UnreachableError

_ANSWER = (
    b'{"model":"m","version":"1","results":'
    b'[{"name":"0","answer":{"score":0.5},"error":null,"milliseconds":{},"batch":1}]}'
)


def test_it_comes_back_when_the_service_says(use: Do) -> None:
    """The queue is full twice; the answer comes at the third try, not before the time that the service asked for."""
    service = FakeService(
        before=lambda _, number: (
            problem(503 if number == 1 else 429, "the queue is full", Retry_After="0.3") if number < 3 else None
        )
    )
    with serve_app(service.app()) as url:
        began = time.monotonic()
        assert use(url, lambda client: client.predict(b"xyz")).score == 3.0
        assert time.monotonic() - began >= 0.6
    assert len({request.headers["x-request-id"] for request in service.seen}) == 1
    assert len(service.seen) == 3


def test_it_gives_up_in_time(use: Do) -> None:
    service = FakeService(before=lambda _, __: problem(503, "the queue is full", Retry_After="60"))
    with serve_app(service.app()) as url:
        began = time.monotonic()
        with pytest.raises(BusyError, match="the queue is full"):
            use(url, lambda client: client.predict(b"x", timeout=50))
        assert time.monotonic() - began < 50
    assert len(service.seen) == 1


def test_a_refusal_is_not_repeated(use: Do) -> None:
    service = FakeService(before=lambda _, __: problem(401, "this needs a key", "input"))
    with serve_app(service.app()) as url, pytest.raises(RejectedError, match="this needs a key") as raised:
        use(url, lambda client: client.predict(b"x"))
    assert raised.value.status == 401
    assert len(service.seen) == 1


def test_too_large_together_is_sent_apart(use: Do) -> None:
    """The service takes less than the client thinks: what fits alone is answered, what doesn't fails alone."""
    service = FakeService(limit=1000)
    with serve_app(service.app()) as url:
        results = use(url, lambda client: client.predict([bytes(800), bytes(2000), bytes(700)]))
    assert [result.answer and result.answer.score for result in results] == [800.0, None, 700.0]
    assert results[1].error.status == 413


def test_a_slow_answer_is_given_up(use: Do) -> None:
    with serve_app(FakeService(seconds=5.0).app()) as url, pytest.raises(DeadlineError, match=r"within 0\.2 s"):
        use(url, lambda client: client.predict(b"x", timeout=0.2))


def test_an_answer_in_drops_is_given_up(use: Do) -> None:
    """Each byte comes in time, the whole doesn't: the limit is for the call, not for each read."""

    over = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        while not over.is_set():
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"{}"})

    with serve_app(app) as url:
        try:
            with pytest.raises(DeadlineError):
                use(url, lambda client: client.predict(b"x", timeout=0.3))
        finally:
            over.set()


def test_nobody_listens(use: Do) -> None:
    with silent_port() as (_, url):
        with pytest.raises(UnreachableError, match="no answer from the service"):
            use(url, lambda client: client.predict(b"x"), retries=1)
        assert use(url, lambda client: client.ready()) is False


def test_a_service_that_starts_late_is_reached(use: Do) -> None:
    """A refused connection is tried again, so a restart of the service is no error of its client."""
    served: list[bytes] = []

    def later(listener: socket.socket) -> None:
        time.sleep(0.4)
        listener.listen()
        with listener.accept()[0] as connection:
            served.append(read_request(connection))
            body = _ANSWER
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
            )

    with silent_port() as (listener, url):
        thread = threading.Thread(target=later, args=(listener,), daemon=True)
        thread.start()
        assert use(url, lambda client: client.predict(b"x"), retries=12).score == 0.5
        thread.join()
    assert len(served) == 1


def test_a_connection_closed_between_two_calls_goes_unnoticed(use: Do) -> None:
    """The server closes each connection as the second request on it arrives, as a keep-alive limit does at a bad
    moment."""
    stop = threading.Event()
    requests: list[bytes] = []
    body = _ANSWER

    def serve(listener: socket.socket) -> None:
        while not stop.is_set():
            connection = listener.accept()[0]
            with connection:
                for attempt in range(2):
                    requests.append(read_request(connection))
                    if attempt == 0 and requests[-1]:
                        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    def twice(client: Client) -> list[float]:
        return [client.predict(b"x").score for _ in range(2)]

    async def twice_async(client: AsyncClient) -> list[float]:
        return [(await client.predict(b"x")).score for _ in range(2)]

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        assert use(f"http://127.0.0.1:{listener.getsockname()[1]}", twice if use is blocking else twice_async) == [
            0.5,
            0.5,
        ]
        stop.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join()
    assert sum(bool(request) for request in requests) == 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"results": []},
        {"results": [{"answer": {"score": 1}}, {"answer": {"score": 1}}]},
        {"results": [{"answer": None, "error": None}]},
        {"results": [{"answer": "safe"}]},
        {"results": [{"answer": {"score": 1}, "milliseconds": {"infer": "fast"}}]},
        {"results": [None]},
        {"results": 3},
        {"results": [{"error": {}}]},
        [],
        None,
    ],
)
def test_an_answer_that_is_invalid_is_an_error(body: Any) -> None:
    """Unknown is never an answer: too few, too many, empty or of another shape."""
    service = FakeService(before=lambda _, __: JSONResponse(body))
    with serve_app(service.app()) as url, Client(url) as client, pytest.raises(ServiceError):
        client.predict(b"x")


def test_another_kind_of_server_is_named(use: Do) -> None:
    service = FakeService(before=lambda _, __: Response("<html>It works!</html>", media_type="text/html"))
    with serve_app(service.app()) as url, pytest.raises(ServiceError, match="It works!"):
        use(url, lambda client: client.predict(b"x"))


def test_redirects_are_not_followed(use: Do) -> None:
    """The key would go along."""
    service = FakeService(
        before=lambda _, __: Response(status_code=307, headers={"location": "http://127.0.0.1:1/v1/predict"})
    )
    with (
        serve_app(service.app()) as url,
        pytest.raises(ServiceError, match=r"redirects to http://127\.0\.0\.1:1/v1/predict"),
    ):
        use(url, lambda client: client.predict(b"x"), key="plm_secret")
    assert len(service.seen) == 1
