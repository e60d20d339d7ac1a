"""What stands in the log, and what never does."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from helpers.asgi_servers import endpoint, http_app
from plimsoll.serve import log
from plimsoll.serve.http.app import logged_options
from plimsoll.serve.http.endpoints import context_of
from plimsoll.serve.log import LineHandler, LogSettings
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.pipeline import longest, masked
from plimsoll.serve.request import Operation

Answer = Callable[[Request], Awaitable[Response]]


class RecordedLines:
    """Takes the lines as they are put, in place of the thread that writes them."""

    def __init__(self) -> None:
        self.fields: list[dict[str, Any]] = []

    def put(self, fields: dict[str, Any]) -> None:
        self.fields.append(fields)

    @property
    def only(self) -> dict[str, Any]:
        [line] = self.fields
        return line


def scope(
    path: str = "/v1/predict",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    query: bytes = b"",
    client: str = "192.0.2.77",
) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": query,
        "headers": list(headers),
        "client": (client, 4711),
        "state": {},
    }


async def answering(request: Request, status: int = 200) -> Response:
    """Do what the service's endpoints do."""
    await request.body()
    context = context_of(request)
    context.model, context.pictures, context.key = "open_nsfw", 2, "misskey"
    context.milliseconds = [{"queue": 1.0, "infer": 7.123456}, {"queue": 3.0, "infer": 5.0}]
    return Response(b"12345", status, media_type="application/json")


async def unavailable(request: Request) -> Response:
    return await answering(request, 503)


def logged(
    handler: Answer,
    of: dict[str, Any],
    settings: LogSettings | None = None,
    pieces: Sequence[dict[str, Any]] | None = None,
) -> tuple[RecordedLines, list[dict[str, Any]]]:
    """Send a request of 1000 bytes in two pieces through the pipeline; return what was logged and what was sent."""
    lines = RecordedLines()
    sent: list[dict[str, Any]] = []
    coming = iter(
        pieces
        or [
            {"type": "http.request", "body": bytes(600), "more_body": True},
            {"type": "http.request", "body": bytes(400)},
        ]
    )

    async def receive() -> dict[str, Any]:
        return next(coming)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    operation = Operation(of["path"], "native", None, probe=of["path"] == "/readyz")
    app = http_app([endpoint(operation, handler, "POST")], log=settings, lines=lines)  # type: ignore[arg-type]
    try:
        asyncio.run(app(of, receive, send))  # type: ignore[arg-type]
    except ConnectionError:
        assert handler is cut_off
    return lines, sent


class CutOff(Response):
    """Fails in the middle of the answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        raise ConnectionError


async def cut_off(request: Request) -> Response:
    await request.body()
    return CutOff()


def test_a_line_says_what_an_operator_wants_to_know() -> None:
    of = scope(
        query=b"top=2&model=open_nsfw&email=jane%40example.org&threshold=0.5", headers=((b"x-request-id", b"abc-123"),)
    )
    lines, _ = logged(answering, of)
    line = lines.only
    assert 0 <= line.pop("milliseconds") < 60_000
    assert line.pop("time").endswith("Z")
    assert line == {
        "status": 200,
        "method": "POST",
        "path": "/v1/predict",
        "request_id": "abc-123",
        "bytes_in": 1000,
        "bytes_out": 5,
        "model": "open_nsfw",
        "pictures": 2,
        "key": "misskey",
        "stages": {"queue": 3.0, "infer": 7.12},
        "options": {"top": "2", "threshold": "0.5"},
        "client": "192.0.2.77",
    }


def test_the_id_comes_back_in_the_answer() -> None:
    _, sent = logged(answering, scope(headers=((b"x-request-id", b"from-the-proxy_1.2"),)))
    assert dict(sent[0]["headers"])[b"x-request-id"] == b"from-the-proxy_1.2"


@pytest.mark.parametrize(
    "given",
    [b"", b"a b", b"x\ny", b"x\r\nset-cookie: a=b", b"\x1b[31m", b"a" * 129, b"-x", "ü".encode(), b"<script>", b'"}'],
)
def test_an_id_that_is_not_sane_is_replaced(given: bytes) -> None:
    lines, sent = logged(answering, scope(headers=((b"x-request-id", given),)))
    new_id = lines.only["request_id"]
    assert len(new_id) == 32
    assert int(new_id, 16)
    assert dict(sent[0]["headers"])[b"x-request-id"] == new_id.encode()


def test_requests_have_ids_where_nothing_is_logged() -> None:
    lines, sent = logged(answering, scope(), LogSettings(requests=False))
    assert not lines.fields
    assert b"x-request-id" in dict(sent[0]["headers"])


def test_a_bug_is_answered_with_500_and_its_kind_is_logged() -> None:
    async def failing(_: Request) -> Response:
        raise ZeroDivisionError("a secret")

    lines, sent = logged(failing, scope(), LogSettings(sample=0))
    assert (lines.only["status"], lines.only["error"]) == (500, "ZeroDivisionError")
    assert b"secret" not in sent[1]["body"]
    assert json.loads(sent[1]["body"])["error"]["kind"] == "failed"


def test_an_answer_that_breaks_off_stays_broken_off() -> None:
    """Nothing can be said any more; the server cuts the connection."""
    lines, sent = logged(cut_off, scope())
    assert lines.only["error"] == "ConnectionError"
    assert [message["type"] for message in sent].count("http.response.start") == 1


def test_a_caller_that_hung_up_is_noted() -> None:
    async def waiting(request: Request) -> Response:
        for _ in range(2):
            await request.receive()
        assert (await request.receive())["type"] == "http.disconnect"
        raise RequestError(Problem("input", "the client hung up", status=499))

    pieces: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.request", "body": b""},
        {"type": "http.disconnect"},
    ]
    lines, _ = logged(waiting, scope(), pieces=pieces)
    assert (lines.only["gone"], lines.only["status"], lines.only["bytes_in"]) == (True, 499, 1)


def test_probes_and_samples_are_quiet_but_errors_are_not() -> None:
    assert not logged(answering, scope("/readyz"))[0].fields
    assert logged(unavailable, scope("/readyz"))[0].only["status"] == 503
    assert not logged(answering, scope(), LogSettings(sample=0))[0].fields
    assert logged(unavailable, scope(), LogSettings(sample=0))[0].only["status"] == 503


def test_settings_say_which_paths_are_quiet() -> None:
    settings = LogSettings(quiet=("/v1/predict",))
    assert not logged(answering, scope(), settings)[0].fields
    assert logged(answering, scope("/readyz"), settings)[0].only["status"] == 200


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.77", "192.0.2.0/24"), ("2001:db8:1:2:3::4", "2001:db8:1::/48"), ("testclient", ""), ("", "")],
)
def test_addresses_can_be_cut_or_left_out(address: str, network: str) -> None:
    assert masked(address) == network
    assert logged(answering, scope(client=address), LogSettings(clients="network"))[0].only.get("client", "") == network
    assert "client" not in logged(answering, scope(client=address), LogSettings(clients="nothing"))[0].only


def test_only_known_numbers_of_a_query_are_logged() -> None:
    assert logged_options(b"top=5&priority=-1&threshold=0.25&timeout=3") == {
        "top": "5",
        "priority": "-1",
        "threshold": "0.25",
        "timeout": "3",
    }
    assert (
        logged_options(b"name=jane&model=x&top=jane&top=5;timeout=1&url=http://x&timeout=%0a&timeout=1e5&=3&top") == {}
    )
    assert logged_options(b"&" * 100_000 + b"top=1") == {}


def test_the_longest_time_of_each_stage_is_logged() -> None:
    assert longest([]) == {}
    assert longest([{"queue": 1.0}, {}, {"queue": 0.5, "infer": 2.0}]) == {"queue": 1.0, "infer": 2.0}


HOSTILE = [
    "/v1/\n{}",
    '/a","status":200,"x":"',
    "/\x1b]0;owned\x07",
    "/\u202egpj.exe",
    "/\u2028",
    "/\x00\x7f\x85",
    "/\ud800",
    "/" + "x" * 100_000,
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_cannot_write_the_log(path: str) -> None:
    """Each line stays one line, says what happened, and leaves a terminal alone."""
    lines, _ = logged(answering, scope(path))
    for render in (log.as_json, log.as_text):
        line = render(lines.only)
        assert line.endswith("\n")
        assert line[:-1].isprintable()
        assert len(line) < 2000
    assert json.loads(log.as_json(lines.only))["status"] in (200, 400)


@given(
    st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none(), st.dictionaries(st.text(), st.floats())))
)
def test_whatever_is_logged_is_one_line(fields: dict[str, Any]) -> None:
    assert log.as_json(fields)[:-1].isprintable()
    text = log.as_text({**fields, "milliseconds": 1.0, "exception": ""})
    assert text[:-1].isprintable()
    assert text.endswith("\n")


def test_a_line_for_people() -> None:
    lines, _ = logged(answering, scope(headers=((b"x-request-id", b"abc"),)))
    line = log.as_text({**lines.only, "time": "2026-01-02T03:04:05.678Z", "milliseconds": 12.34})
    assert line.startswith("03:04:05 200 POST /v1/predict 12.3 ms request_id=abc ")
    assert "stages=queue:3.0,infer:7.12" in line


def test_lines_are_written_in_order_and_all_of_them() -> None:
    stream = io.StringIO()
    lines = LineHandler(log.as_json, stream)
    for number in range(500):
        lines.put({"n": number})
    lines.close(60)
    assert [json.loads(line)["n"] for line in stream.getvalue().splitlines()] == list(range(500))


def test_a_reader_that_stalls_blocks_nobody_and_dropped_lines_are_counted() -> None:
    """What a full pipe does to who writes to it: here the stream blocks until the test lets it go."""
    go = threading.Event()

    class Stalled(io.StringIO):
        def write(self, text: str, /) -> int:
            go.wait(200)
            return super().write(text)

    stream = Stalled()
    lines = LineHandler(log.as_json, stream, limit=100)
    for number in range(1000):
        lines.put({"n": number})
    assert not go.is_set()
    assert not stream.getvalue(), "the stream has stalled all the while"
    go.set()
    lines.close(60)
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    dropped = sum(row.get("dropped", 0) for row in rows)
    assert dropped >= 1000 - 2 * 100 - 100
    assert sum("n" in row for row in rows) + dropped == 1000


def test_a_closed_stream_ends_nothing() -> None:
    stream = io.StringIO()
    lines = LineHandler(log.as_json, stream)
    stream.close()
    lines.put({"n": 1})
    time.sleep(0.1)
    lines.put({"n": 2})
    lines.close()


def test_a_program_that_ends_writes_what_is_queued() -> None:
    program = (
        "from plimsoll.serve import log\n"
        "handler = log.start(log.LogSettings(format='json'))\n"
        "for number in range(1000):\n    handler.put({'n': number})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [json.loads(line)["n"] for line in done.stderr.splitlines()] == list(range(1000))


def test_other_loggers_write_the_same_way() -> None:
    stream = io.StringIO()
    lines = LineHandler(log.as_json, stream)
    logger = logging.getLogger("test-of-lines")
    logger.propagate = False
    logger.handlers = [lines]
    try:
        raise KeyError("a\nb")
    except KeyError:
        logger.exception("worker %d of %s died", 3, "open_nsfw")
    finally:
        logger.handlers = []
    lines.close()
    [row] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (row["level"], row["logger"], row["message"]) == ("error", "test-of-lines", "worker 3 of open_nsfw died")
    assert "KeyError" in row["exception"]


def test_on_a_terminal_it_is_text_and_elsewhere_json(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (True, False):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
        assert LogSettings().as_json() is not terminal
        assert LogSettings(format="json").as_json()
        assert not LogSettings(format="text").as_json()
