"""More than a service can do: who is refused, who waits, who is dropped, and who goes first."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from helpers.crashing_runtime import picture
from helpers.service_process import ServiceProcess, start, until


def test_too_much_is_refused_at_once_and_the_service_recovers(nsfw_model_path: Path, tmp_path: Path) -> None:
    """The refusals come while the only worker is stopped, so they wait for nothing."""
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("max_queue = 2\nheartbeat_timeout = 300\nbatch_timeout = 300\ntimeout = 300\n")
    with (
        start("open_nsfw", "--workers", "1", "--config", str(config), "--grace", "0") as running,
        ThreadPoolExecutor(12) as pool,
    ):
        (worker,) = running.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            futures = [pool.submit(running.post, "/v1/predict", content=picture(100)) for _ in range(12)]
            until(lambda: sum(future.done() for future in futures) >= 6, "six refusals")
            assert {future.result().status_code for future in futures if future.done()} == {503}
        finally:
            os.kill(worker, signal.SIGCONT)
        answers = [future.result() for future in futures]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {200, 503}
        assert all(
            int(answer.headers["retry-after"]) >= 1 and answer.json()["error"]["kind"] == "overloaded"
            for answer in refused
        )
        assert running.post("/v1/predict", content=picture(30)).status_code == 200
        assert running.metric("plimsoll_rejected_total", reason="queue") == len(refused)


@pytest.fixture
def stopped(
    nsfw_model_path: Path, tmp_path: Path
) -> Iterator[tuple[ServiceProcess, list[Future[httpx.Response]], ThreadPoolExecutor]]:
    """A service whose only worker is stopped, with two batches that it has, so that what comes now waits until the
    worker goes on."""
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("heartbeat_timeout = 300\nbatch_timeout = 300\ntimeout = 300\n")
    with (
        start("open_nsfw", "--workers", "1", "--config", str(config), "--grace", "0") as running,
        ThreadPoolExecutor(8) as pool,
    ):
        (worker,) = running.workers()
        os.kill(worker, signal.SIGSTOP)
        busy: list[Future[httpx.Response]] = []
        for _ in range(2):
            before = running.metric("plimsoll_shared_memory_bytes")
            busy.append(pool.submit(running.post, "/v1/predict", content=picture(100)))
            until(lambda: running.metric("plimsoll_shared_memory_bytes") > before, "the worker to have it")  # noqa: B023 - called at once
        try:
            yield running, busy, pool
        finally:
            os.kill(worker, signal.SIGCONT)


def test_who_waits_too_long_or_hangs_up_is_dropped(
    stopped: tuple[ServiceProcess, list[Future[httpx.Response]], ThreadPoolExecutor],
) -> None:
    running, busy, _ = stopped
    late = running.post("/v1/predict?timeout=0.2", content=picture(30))
    assert late.status_code == 504
    assert late.json()["error"]["kind"] == "deadline"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{running.url}/v1/predict", content=picture(30), timeout=0.5)
    until(lambda: running.metric("plimsoll_queue_length") == 0, "the one that hung up to be dropped")
    os.kill(running.workers()[0], signal.SIGCONT)
    assert {future.result().status_code for future in busy} == {200}
    assert running.metric("plimsoll_batch_size_sum") == 2, "nobody computed what nobody waited for"
    assert running.metric("plimsoll_shared_memory_bytes") == 0


def test_priorities_go_first(stopped: tuple[ServiceProcess, list[Future[httpx.Response]], ThreadPoolExecutor]) -> None:
    running, busy, pool = stopped
    ends: list[int] = []

    def ask(priority: int) -> None:
        assert running.post(f"/v1/predict?priority={priority}", content=picture(100)).status_code == 200
        ends.append(priority)

    rest: list[Future[None]] = []
    for priority in (-1, 0, 1):
        rest.append(pool.submit(ask, priority))
        until(lambda: running.metric("plimsoll_queue_length") == len(rest), "the queue to fill")
    os.kill(running.workers()[0], signal.SIGCONT)
    assert {future.result().status_code for future in busy} == {200}
    for future in rest:
        future.result()
    assert ends == [1, 0, -1]


def test_nothing_waits_behind_a_slow_worker_while_another_one_would_be_free_sooner(
    nsfw_model_path: Path, tmp_path: Path
) -> None:
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("heartbeat_timeout = 300\nbatch_timeout = 300\ntimeout = 300\n")
    with (
        start("open_nsfw", "--workers", "2", "--config", str(config), "--grace", "0") as running,
        ThreadPoolExecutor(4) as pool,
    ):
        slow = running.workers()[0]
        os.kill(slow, signal.SIGSTOP)
        try:
            first = [pool.submit(running.post, "/v1/predict", content=picture(100)) for _ in range(2)]
            until(lambda: any(future.done() for future in first), "one of the two to be answered")

            def client(_: int) -> set[int]:
                return {running.post("/v1/predict?timeout=80", content=picture(30)).status_code for _ in range(6)}

            assert list(pool.map(client, range(2))) == [{200}, {200}]
            assert sum(future.done() for future in first) == 1, "the other one is where the stopped worker has it"
        finally:
            os.kill(slow, signal.SIGCONT)
        assert {future.result().status_code for future in first} == {200}


def test_who_never_finishes_a_request_is_sent_away(nsfw_model_path: Path, tmp_path: Path) -> None:
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("header_timeout = 2.0\nbody_timeout = 2.0\n")
    with start("open_nsfw", "--workers", "1", "--config", str(config), "--grace", "0") as running:
        host, port = running.url.removeprefix("http://").split(":")

        def reply_to(sent: bytes) -> bytes:
            with socket.create_connection((host, int(port)), timeout=60) as connection:
                connection.sendall(sent)
                reply = b""
                while chunk := connection.recv(65536):
                    reply += chunk
                    if b"\r\n\r\n" in reply:
                        break
                return reply

        assert reply_to(b"") == b""
        assert reply_to(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nX-Slow: ") == b""
        slow = reply_to(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        assert b" 408 " in slow
        assert b"connection: close" in slow, "what still trickles in would hold the connection"
        for _ in range(20):
            assert running.post("/v1/predict?top=0", content=bytes(900_000)).status_code == 422, (
                "the answer comes though nobody read the body"
            )
        assert b" 431 " in reply_to(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nX-Long: " + 200_000 * b"v")
        assert b" 400 " in reply_to(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\n" + 1000 * b"X-More: v\r\n" + b"\r\n")
