"""Answers that come one by one, and answers in gzip, from a real service."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from helpers.service_process import ServiceProcess, until
from plimsoll.serve.http import streaming
from plimsoll.serve.http.compression import reads_gzip

LINES, EVENTS = {"Accept": "application/x-ndjson"}, {"Accept": "text/event-stream"}
BROKEN = b"\xff\xd8\xff\xe0 this is not a picture"


def files(photos: list[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    pictures = [(photo.name, photo.read_bytes()) for photo in photos]
    return [("file", picture) for picture in [*pictures, ("broken.jpg", BROKEN)]]


def entry(row: dict[str, Any]) -> tuple[Any, ...]:
    answer, error = row["answer"], row["error"]
    return row["name"], answer and answer["score"], error and error["kind"]


def test_lines_hold_what_an_answer_at_once_holds(served: ServiceProcess, example_photos: list[Path]) -> None:
    whole = served.post("/v1/predict", files=files(example_photos)).json()
    reply = served.post("/v1/predict", files=files(example_photos), headers=LINES)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    rows = sorted((json.loads(line) for line in reply.text.splitlines()), key=lambda row: row["number"])
    assert [row["number"] for row in rows] == list(range(len(example_photos) + 1))
    assert [entry(row) for row in rows] == [entry(row) for row in whole["results"]]
    assert {(row["model"], row["version"]) for row in rows} == {(whole["model"], whole["version"])}


def test_events_hold_what_an_answer_at_once_holds(served: ServiceProcess, example_photos: list[Path]) -> None:
    data = base64.b64encode(example_photos[0].read_bytes()).decode()
    body = {"images": [{"data": data, "name": "a"}, {"data": "!", "name": "b"}]}
    reply = served.post("/v1/predict", json=body, headers=EVENTS)
    events = [event.split("\n") for event in reply.text.removesuffix("\n\n").split("\n\n")]
    assert [event[0] for event in events] == ["event: result", "event: result", "event: done"]
    rows = [json.loads(event[1].removeprefix("data: ")) for event in events[:2]]
    assert {row["number"]: row["name"] for row in rows} == {0: "a", 1: "b"}
    assert {row["number"]: row["error"] and row["error"]["kind"] for row in rows} == {0: None, 1: "input"}


def test_who_speaks_http_1_0_gets_lines_without_chunks(served: ServiceProcess, example_photos: list[Path]) -> None:
    where = httpx.URL(served.url)
    photo = example_photos[0].read_bytes()
    head = f"POST /v1/predict HTTP/1.0\r\nAccept: application/x-ndjson\r\nContent-Length: {len(photo)}\r\n\r\n"
    with socket.create_connection((where.host, where.port), timeout=90) as connection:
        connection.sendall(head.encode() + photo)
        answer = b""
        while more := connection.recv(65536):
            answer += more
    head_of_answer, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head_of_answer
    assert f"content-length: {len(body)}".encode() in head_of_answer
    assert json.loads(body)["number"] == 0


def test_what_is_wrong_with_a_whole_request_has_its_status(served: ServiceProcess, example_photos: list[Path]) -> None:
    photo = example_photos[0].read_bytes()
    assert served.post("/v1/predict?model=other", content=photo, headers=LINES).status_code == 404
    assert served.post("/v1/predict", content=b"", headers=LINES).status_code == 400
    assert served.post("/v1/predict?top=x", content=photo, headers=EVENTS).status_code == 422


def test_who_hangs_up_leaves_nothing_behind(served: ServiceProcess, example_photos: list[Path]) -> None:
    sent = files(example_photos * 20)
    with (
        httpx.Client(base_url=served.url, timeout=90) as client,
        client.stream("POST", "/v1/predict", files=sent, headers=LINES) as reply,
    ):
        assert next(reply.iter_lines())
    until(lambda: served.metric("plimsoll_shared_memory_bytes") == 0, "what is left")
    assert served.metric("plimsoll_queue_length") == 0


class Row(BaseModel):
    number: int


def test_each_answer_is_sent_as_soon_as_it_is_known() -> None:
    async def work() -> None:
        allowed = asyncio.Semaphore(0)
        sent: asyncio.Queue[bytes] = asyncio.Queue()
        ended = asyncio.Event()

        async def rows() -> AsyncGenerator[BaseModel]:
            try:
                for number in range(3):
                    await allowed.acquire()
                    yield Row(number=number)
            finally:
                ended.set()

        async def send(message: Any) -> None:
            if message.get("body"):
                sent.put_nowait(message["body"])

        async def receive() -> Any:
            await asyncio.Event().wait()

        allowed.release()
        response = await streaming.response(streaming.LINES, rows())
        serving = asyncio.create_task(response({"type": "http", "asgi": {}}, receive, send))
        for number in range(3):
            assert json.loads(await asyncio.wait_for(sent.get(), 60)) == {"number": number}
            assert sent.empty()
            assert not ended.is_set() or number == 2
            allowed.release()
        await serving
        assert ended.is_set()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("accepted", "form"),
    [
        ("", None),
        ("*/*", None),
        ("application/json", None),
        ("application/x-ndjson", streaming.LINES),
        ("application/json, Application/X-NDJSON; q=0.5", streaming.LINES),
        ("text/event-stream", streaming.EVENTS),
        ("x-text/event-stream", None),
    ],
)
def test_the_form_is_what_the_caller_accepts(accepted: str, form: str | None) -> None:
    assert streaming.form_of(accepted) == form


def test_long_texts_go_out_in_gzip(served: ServiceProcess) -> None:
    def ask(path: str, accepted: str) -> tuple[httpx.Headers, bytes]:
        with (
            httpx.Client(base_url=served.url, timeout=90) as client,
            client.stream("GET", path, headers={"Accept-Encoding": accepted}) as reply,
        ):
            return reply.headers, b"".join(reply.iter_raw())

    for path in ("/openapi.json", "/metrics", "/page/serve.js", "/"):
        (plain, whole), (packed, body) = ask(path, "identity"), ask(path, "br, gzip;q=0.5")
        assert packed["content-encoding"] == "gzip", path
        assert int(packed["content-length"]) == len(body) < len(whole)
        assert plain["vary"] == packed["vary"] == "Accept-Encoding"
        assert "content-encoding" not in plain
        if path != "/metrics":  # which counts these requests
            assert gzip.decompress(body) == whole
    headers, body = ask("/healthz", "gzip")
    assert len(body) < 1400
    assert "content-encoding" not in headers


def test_a_page_s_file_in_gzip_is_known_by_its_tag(served: ServiceProcess) -> None:
    first = served.get("/page/serve.js", headers={"Accept-Encoding": "gzip"})
    again = served.get("/page/serve.js", headers={"Accept-Encoding": "gzip", "If-None-Match": first.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    ("accepted", "reads"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.8, *;q=0.1", True),
        ("*", True),
        ("x-gzip", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("gzip; q=0.001", True),
        ("*;q=0", False),
        ("br", False),
    ],
)
def test_who_reads_gzip(accepted: str, reads: bool) -> None:
    assert reads_gzip(accepted) == reads
