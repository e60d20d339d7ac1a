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
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.serve import log
from plimsoll.serve.http.access_log import AccessLog, known
from plimsoll.serve.log import LineHandler, LogSettings
from plimsoll.serve.request_line import longest, masked

App = Callable[[Any, Any, Any], Awaitable[None]]


class Kept:
    """Takes the lines as they are put, in place of the thread that writes them."""

    def __init__(self) -> None:
        self.fields: list[dict[str, Any]] = []

    def put(self, fields: dict[str, Any]) -> None:
        self.fields.append(fields)

    @property
    def only(self) -> dict[str, Any]:
        [one] = self.fields
        return one


def scope(
    path: str = "/v1/predict",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    query: bytes = b"",
    client: str = "192.0.2.77",
) -> dict[str, Any]:
    return {
        "type": "http", "method": "POST", "path": path, "query_string": query, "headers": list(headers), "client": (client, 4711), "state": {},
    }  # fmt: skip


async def answering(scope: Any, receive: Any, send: Any, status: int = 200) -> None:
    """An application that does what the service's endpoints do."""
    while (await receive()).get("more_body"):
        pass
    scope["state"].update(
        model="open_nsfw", pictures=2, milliseconds=[{"queue": 1.0, "infer": 7.123456}, {"queue": 3.0, "infer": 5.0}]
    )
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"12345"})


def logged(app: App, of: dict[str, Any], settings: LogSettings | None = None) -> tuple[Kept, list[dict[str, Any]]]:
    """Send a request of 1000 bytes in two pieces through an application; return what was logged and what was sent."""
    kept = Kept()
    sent: list[dict[str, Any]] = []
    pieces: list[dict[str, Any]] = [
        {"type": "http.request", "body": bytes(600), "more_body": True},
        {"type": "http.request", "body": bytes(400)},
    ]

    async def receive() -> dict[str, Any]:
        return pieces.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(AccessLog(app, kept, settings or LogSettings())(of, receive, send))  # type: ignore[arg-type]
    return kept, sent


def test_a_line_says_what_an_operator_wants_to_know() -> None:
    of = scope(
        query=b"top=2&model=open_nsfw&email=jane%40example.org&threshold=0.5", headers=((b"x-request-id", b"abc-123"),)
    )
    of["state"]["key"] = "misskey"
    kept, _ = logged(answering, of)
    line = kept.only
    assert 0 <= line.pop("milliseconds") < 60_000
    assert line.pop("time").endswith("Z")
    assert line == {
        "status": 200, "method": "POST", "path": "/v1/predict", "request_id": "abc-123", "bytes_in": 1000, "bytes_out": 5, "model": "open_nsfw",
        "pictures": 2, "key": "misskey", "stages": {"queue": 3.0, "infer": 7.12}, "asked": {"top": "2", "threshold": "0.5"}, "client": "192.0.2.77",
    }  # fmt: skip


def test_the_id_comes_back_in_the_answer() -> None:
    _, sent = logged(answering, scope(headers=((b"x-request-id", b"from-the-proxy_1.2"),)))
    assert dict(sent[0]["headers"])[b"x-request-id"] == b"from-the-proxy_1.2"


@pytest.mark.parametrize(
    "given",
    [b"", b"a b", b"x\ny", b"x\r\nset-cookie: a=b", b"\x1b[31m", b"a" * 129, b"-x", "ü".encode(), b"<script>", b'"}'],
)
def test_an_id_that_is_not_sane_is_replaced(given: bytes) -> None:
    kept, sent = logged(answering, scope(headers=((b"x-request-id", given),)))
    made = kept.only["request_id"]
    assert len(made) == 32
    assert int(made, 16)
    assert dict(sent[0]["headers"])[b"x-request-id"] == made.encode()


def test_requests_have_ids_where_nothing_is_logged() -> None:
    kept, sent = logged(answering, scope(), LogSettings(requests=False))
    assert not kept.fields
    assert b"x-request-id" in dict(sent[0]["headers"])


def test_a_mistake_is_logged_and_goes_on() -> None:
    async def failing(*_: Any) -> None:
        raise ZeroDivisionError

    kept = Kept()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(AccessLog(failing, kept, LogSettings(sample=0))(scope(), None, None))  # type: ignore[arg-type]
    assert (kept.only["status"], kept.only["error"]) == (None, "ZeroDivisionError")


def test_a_caller_that_hung_up_is_noted() -> None:
    async def waiting(_scope: Any, receive: Any, _send: Any) -> None:
        for _ in range(2):
            await receive()
        assert (await receive())["type"] == "http.disconnect"

    pieces: Iterator[dict[str, Any]] = iter(
        [
            {"type": "http.request", "body": b"x", "more_body": True},
            {"type": "http.request", "body": b""},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> dict[str, Any]:
        return next(pieces)

    kept = Kept()
    asyncio.run(AccessLog(waiting, kept, LogSettings())(scope(), receive, None))  # type: ignore[arg-type]
    assert (kept.only["gone"], kept.only["status"], kept.only["bytes_in"]) == (True, None, 1)


def test_probes_and_samples_are_quiet_but_errors_are_not() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await answering(scope, receive, send, status=503)

    assert not logged(answering, scope("/readyz"))[0].fields
    assert logged(failing, scope("/readyz"))[0].only["status"] == 503
    assert not logged(answering, scope(), LogSettings(sample=0))[0].fields
    assert logged(failing, scope(), LogSettings(sample=0))[0].only["status"] == 503


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.77", "192.0.2.0/24"), ("2001:db8:1:2:3::4", "2001:db8:1::/48"), ("testclient", ""), ("", "")],
)
def test_addresses_can_be_cut_or_left_out(address: str, network: str) -> None:
    assert masked(address) == network
    assert logged(answering, scope(client=address), LogSettings(clients="network"))[0].only["client"] == network
    assert "client" not in logged(answering, scope(client=address), LogSettings(clients="nothing"))[0].only


def test_only_known_numbers_of_a_query_are_logged() -> None:
    assert known(b"top=5&priority=-1&threshold=0.25&timeout=3") == {
        "top": "5",
        "priority": "-1",
        "threshold": "0.25",
        "timeout": "3",
    }
    assert known(b"name=jane&model=x&top=jane&top=5;timeout=1&url=http://x&timeout=%0a&timeout=1e5&=3&top") == {}
    assert known(b"&" * 100_000 + b"top=1") == {}


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
    kept, _ = logged(answering, scope(path))
    for render in (log.as_json, log.as_text):
        line = render(kept.only)
        assert line.endswith("\n")
        assert line[:-1].isprintable()
        assert len(line) < 2000
    assert json.loads(log.as_json(kept.only))["status"] == 200


@given(
    st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none(), st.dictionaries(st.text(), st.floats())))
)
def test_whatever_is_logged_is_one_line(fields: dict[str, Any]) -> None:
    assert log.as_json(fields)[:-1].isprintable()
    text = log.as_text({**fields, "milliseconds": 1.0, "exception": ""})
    assert text[:-1].isprintable()
    assert text.endswith("\n")


def test_a_line_for_people() -> None:
    kept, _ = logged(answering, scope(headers=((b"x-request-id", b"abc"),)))
    line = log.as_text({**kept.only, "time": "2026-01-02T03:04:05.678Z", "milliseconds": 12.34})
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
