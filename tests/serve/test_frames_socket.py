"""Frames over a WebSocket: answered or dropped, within limits, and by the guards that hold for everything else."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import detection_networks as spotting
from helpers.access_keys import write_keys
from helpers.service_process import ServiceProcess, start
from plimsoll.bundle.packing import pack
from plimsoll.core.target import Target
from plimsoll.serve.access.keys import Rate, Terms

client = pytest.importorskip("websockets.sync.client", reason="needs websockets (the extra `serve`)")
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

SIZE = (160, 120)
SETTINGS = """
[live]
connections = 2
max_frame_bytes = 50000
idle_timeout = "2s"
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    steps: list[dict[str, Any]] = [{"step": "decode"}, {"step": "resize", "width": SIZE[0], "height": SIZE[1]}]
    return pack(spotting.model(folder, "yolov8", steps), Target("onnxruntime"), folder / "spots").resolve()


def served(bundle: Path, settings: str) -> Any:
    config = bundle.parent / "serve.toml"
    config.write_text(settings)
    return start(f"spots={bundle}", "--workers", "1", "--grace", "0", "--config", str(config))


@pytest.fixture(scope="module")
def service(bundle: Path) -> Iterator[ServiceProcess]:
    with served(bundle, SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def frame(example_photos: list[Path]) -> bytes:
    return spotting.encoded(spotting.picture(example_photos[0], SIZE, (40, 30, 90, 70)), "JPEG")


def connect(service: ServiceProcess, path: str = "/v1/frames", **options: Any) -> Any:
    return client.connect(service.url.replace("http", "ws", 1) + path, **options)


def refused(service: ServiceProcess, path: str = "/v1/frames", **options: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as failure, connect(service, path, **options):
        pass
    return failure.value.response.status_code, json.loads(failure.value.response.body)


def test_a_frame_has_the_answer_of_a_post(service: ServiceProcess, frame: bytes) -> None:
    expected = service.post("/v1/predict", content=frame).json()["results"][0]["answer"]
    assert expected["boxes"]
    with connect(service, "/v1/frames?threshold=0.3&top=1") as talk:
        for number in range(3):
            talk.send(frame)
            row = json.loads(talk.recv(30))
            assert row["answer"] == expected
            assert (row["number"], row["dropped"], row["model"], row["error"]) == (number, 0, "spots", None)
        talk.send(b"no picture")
        assert json.loads(talk.recv(30))["error"]["kind"] == "image"


def test_objects_keep_their_numbers_on_a_connection(service: ServiceProcess, example_photos: list[Path]) -> None:
    for _ in range(2):  # each connection counts from 1
        with connect(service, "/v1/frames?track=true&top=5") as talk:
            for step in range(3):
                box = (40 + 4 * step, 30, 90 + 4 * step, 70)
                talk.send(spotting.encoded(spotting.picture(example_photos[0], SIZE, box), "JPEG"))
                (shown,) = json.loads(talk.recv(30))["answer"]["boxes"]
                assert shown["track"] == 1
                assert shown["box"][0] == pytest.approx(box[0], abs=2)
    assert refused(service, "/v1/frames?smooth=true")[0] == 422


def test_frames_that_come_meanwhile_are_dropped_and_counted(service: ServiceProcess, frame: bytes) -> None:
    sent = 60
    with connect(service) as talk:
        for _ in range(sent):
            talk.send(frame)
        talk.send(frame[:100])  # is answered or dropped as well
        rows = []
        try:
            while True:
                rows.append(json.loads(talk.recv(1.5)))
        except (TimeoutError, ConnectionClosed):
            pass
        assert 1 <= len(rows) < sent, "answers are fewer than frames"
        assert [row["number"] for row in rows] == sorted({row["number"] for row in rows})
        counts = [row["dropped"] for row in rows]
        assert counts == sorted(counts)
        assert 0 < counts[-1] <= sent + 1 - len(rows)


def test_messages_that_are_too_large_or_texts_end_the_connection(service: ServiceProcess) -> None:
    for message, code in ((b"x" * 50_001, 1009), ("text", 1003)):
        with connect(service) as talk:
            talk.send(message)
            with pytest.raises(ConnectionClosed) as failure:
                talk.recv(30)
            assert failure.value.rcvd is not None
            assert failure.value.rcvd.code == code
    with connect(service) as talk:  # and a silent caller is sent away
        with pytest.raises(ConnectionClosed) as failure:
            talk.recv(30)
        assert failure.value.rcvd is not None
        assert failure.value.rcvd.code == 1001


def test_other_sites_pages_unknown_options_and_crowds_are_refused(service: ServiceProcess) -> None:
    assert refused(service, origin="https://evil.example")[0] == 403
    assert refused(service, additional_headers={"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert refused(service, "/v1/frames?colour=blue")[0] == 422
    assert refused(service, "/v1/frames?model=other")[0] == 404
    assert refused(service, "/v1/models")[0] == 400
    assert refused(service, "/v1/nothing")[0] == 404
    assert service.get("/v1/frames").status_code == 426
    with connect(service), connect(service):
        status, body = refused(service)
        assert (status, body["error"]["kind"]) == (503, "overloaded")
    with connect(service, origin=service.url):
        pass


def test_a_handshake_that_is_none_is_answered_over_http(service: ServiceProcess, frame: bytes) -> None:
    host, _, port = service.url.removeprefix("http://").rpartition(":")
    head = f"Host: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    cases = {
        "a body": (f"GET /v1/frames HTTP/1.1\r\n{head}{key}Content-Length: 3\r\n\r\nabc".encode(), b" 426 "),
        "no key": (f"GET /v1/frames HTTP/1.1\r\n{head}\r\n".encode(), b" 400 "),
        "a post": (
            f"POST /v1/predict HTTP/1.1\r\n{head}{key}Content-Length: {len(frame)}\r\n\r\n".encode() + frame,
            b" 200 ",
        ),
        "behind another": (
            f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\nGET /v1/frames HTTP/1.1\r\n{head}{key}\r\n".encode(),
            b" 200 ",
        ),
        "frames before the answer": (f"GET /v1/frames HTTP/1.1\r\n{head}{key}\r\n".encode() + b"\x82\x80" * 9, b""),
    }
    for name, (sent, expected) in cases.items():
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(sent)
            assert expected in connection.recv(4096)[:40], name
    assert service.get("/healthz").status_code == 200


def test_keys_and_rates_hold_for_connections_and_their_frames(bundle: Path, frame: bytes) -> None:
    file = bundle.parent / "keys.toml"
    tokens = write_keys(file, asks=Terms(), looks=Terms("metrics"), seldom=Terms(rate=Rate.parse("1/m"), burst=3))
    with served(bundle, f'{SETTINGS}\n[access]\nkeys = "{file}"\n') as service:
        assert refused(service)[0] == 401
        assert refused(service, subprotocols=["plimsoll", "key.wrong"])[0] == 401
        assert refused(service, subprotocols=["plimsoll", f"key.{tokens['looks']}"])[0] == 403
        for options in (
            {"subprotocols": ["plimsoll", f"key.{tokens['asks']}"]},
            {"additional_headers": {"Authorization": f"Bearer {tokens['asks']}"}},
        ):
            with connect(service, **options) as talk:
                talk.send(frame)
                assert json.loads(talk.recv(30))["answer"]["boxes"]
        with connect(service, subprotocols=["plimsoll", f"key.{tokens['seldom']}"]) as talk:
            assert talk.subprotocol == "plimsoll"
            errors = []
            for _ in range(4):
                talk.send(frame)
                row = json.loads(talk.recv(30))
                errors.append(row["error"] and row["error"]["kind"])
            assert errors == [None, None, "overloaded", "overloaded"]
            assert row["retry_after"] >= 1
        assert tokens["asks"] not in "".join(service.log)
