"""What a service survives: workers that die, hang or are told to; callers that overload it, give up or want a new version."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from plimsoll.bundle import Bundle
from plimsoll.opener import open_reference
from plimsoll.package import pack
from plimsoll.target import Target
from running import Running, start, until

FRAGILE = '''
"""A runtime that does what a picture's first pixel says: 200 ends the process, 150 hangs, 100 takes a second."""
import os, time
from plimsoll.backend import Backend, Offer
from plimsoll.backends.onnxruntime import BACKEND as HONEST
from plimsoll.target import Target

class Session:
    def __init__(self, inner): self.inner, self.inputs, self.outputs, self.concurrent = inner, inner.inputs, inner.outputs, inner.concurrent
    def run(self, feeds):
        for level in (feeds["input:0"][:, 0, 0, 0] + 104).round().tolist():
            if level == 200: os.kill(os.getpid(), 11)
            if level == 150: time.sleep(3600)
            if level == 100: time.sleep(1)
        return self.inner.run(feeds)
    def close(self): self.inner.close()

class Fragile(Backend):
    name = "fragile"
    def offers(self): return (Offer(Target("fragile", "cpu", "float32")),)
    def build(self, model, target, folder, calibrated=None): return model
    def load(self, model, target, options, plan): return Session(HONEST.load(model, Target("onnxruntime"), None, plan))

BACKEND = Fragile()
'''


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the runtime `fragile` is installed."""
    package = tmp_path_factory.mktemp("packages")
    facts = package / "fragile_runtime-1.0.dist-info"
    facts.mkdir()
    (package / "fragile_runtime.py").write_text(FRAGILE)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile_runtime\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[plimsoll.backends]\nfragile = fragile_runtime:BACKEND\n")
    return {"PYTHONPATH": str(package)}


def picture(level: int) -> bytes:
    """A picture of one grey: the JPEG step of open_nsfw leaves its level as it is."""
    import io

    out = io.BytesIO()
    Image.fromarray(np.full((256, 256, 3), level, np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def service(nsfw_model_path: Path) -> Iterator[Running]:
    del nsfw_model_path
    with start("open_nsfw", "--workers", "2", "--grace", "0") as running:
        yield running


def load(running: Running, photo: Path, seconds: float, clients: int = 6) -> list[httpx.Response]:
    """Return the answers that clients got which asked one after another."""
    end = time.monotonic() + seconds

    def client(_: int) -> list[httpx.Response]:
        answers = []
        with httpx.Client(base_url=running.url, timeout=60) as asking:
            while time.monotonic() < end:
                answers.append(asking.post("/v1/predict", content=photo.read_bytes()))
        return answers

    with ThreadPoolExecutor(clients) as pool:
        return [answer for answers in pool.map(client, range(clients)) for answer in answers]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_workers_that_are_killed_or_stopped_cost_nobody_an_answer(service: Running, example_photos: list[Path], number: signal.Signals) -> None:
    expected = service.score(example_photos[0])
    before = set(service.workers())
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(load, service, example_photos[0], 4.0)
        time.sleep(1)
        os.kill(before.copy().pop(), number)
        found = answers.result()
    assert {answer.status_code for answer in found} == {200}
    assert {answer.json()["results"][0]["answer"]["score"] for answer in found} == {expected}
    until(lambda: len(set(service.workers()) - before) == 1 and len(service.workers()) == 2, "another worker")
    assert service.metric("plimsoll_worker_restarts_total", reason="died" if number == signal.SIGKILL else "silent") == 1
    assert service.metric("plimsoll_shared_memory_bytes") == 0


def test_a_worker_that_is_stopped_while_it_starts_is_replaced(nsfw_model_path: Path, tmp_path: Path) -> None:
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("start_silent_seconds = 3\n")
    with start("open_nsfw", "--workers", "1", "--config", str(config), "--grace", "0") as running:
        (first,) = running.workers()
        os.kill(first, signal.SIGKILL)
        until(lambda: running.workers() not in ([], [first]), "another worker")
        (second,) = running.workers()
        os.kill(second, signal.SIGSTOP)
        until(lambda: running.workers() not in ([], [second]) and running.get("/readyz").status_code == 200, "a third worker", 30)
        assert running.metric("plimsoll_worker_restarts_total", reason="not started") == 1


def test_a_picture_that_kills_its_worker_is_answered_and_harms_nobody_else(fragile: dict[str, str], nsfw_model_path: Path, example_photos: list[Path]) -> None:
    del nsfw_model_path
    with start("open_nsfw", "--workers", "1", "--max-batch", "4", "--grace", "0", "--target", "fragile", environment=fragile) as running:
        with ThreadPoolExecutor(4) as pool:
            good = [pool.submit(running.score, photo) for photo in example_photos[:3]]
            poisoned = pool.submit(running.post, "/v1/predict", content=picture(200))
            answer = poisoned.result()
            assert len({round(one.result(), 3) for one in good}) > 1
        assert answer.status_code == 500
        assert "the worker ended" in answer.json()["results"][0]["error"]["message"]
        assert running.get("/healthz").status_code == 200
        assert running.score(example_photos[0]) >= 0


def test_a_batch_that_hangs_is_ended(fragile: dict[str, str], nsfw_model_path: Path, tmp_path: Path, example_photos: list[Path]) -> None:
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("batch_seconds = 1.5\n")
    with start("open_nsfw", "--workers", "1", "--config", str(config), "--grace", "0", "--target", "fragile", environment=fragile) as running:
        answer = running.post("/v1/predict", content=picture(150))
        assert answer.status_code == 500
        assert "hung" in answer.json()["results"][0]["error"]["message"]
        assert running.score(example_photos[0]) >= 0


def test_too_much_is_refused_at_once_and_the_service_recovers(fragile: dict[str, str], nsfw_model_path: Path, tmp_path: Path) -> None:
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("max_queue = 2\n")
    with (
        start("open_nsfw", "--workers", "1", "--config", str(config), "--grace", "0", "--target", "fragile", environment=fragile) as running,
        ThreadPoolExecutor(12) as pool,
    ):
        answers = [one.result() for one in [pool.submit(running.post, "/v1/predict", content=picture(100)) for _ in range(12)]]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {200, 503}
        assert len(refused) >= 6
        assert all(int(answer.headers["retry-after"]) >= 1 and answer.json()["error"]["kind"] == "overloaded" for answer in refused)
        assert max(answer.elapsed.total_seconds() for answer in refused) < 1
        assert running.post("/v1/predict", content=picture(30)).status_code == 200
        assert running.metric("plimsoll_rejected_total", reason="queue") == len(refused)


@pytest.fixture
def stopped(nsfw_model_path: Path, tmp_path: Path) -> Iterator[tuple[Running, list[Future[httpx.Response]], ThreadPoolExecutor]]:
    """A service whose only worker is stopped, with two batches that it has, so that what comes now waits until the worker goes on."""
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("silent_seconds = 300\nbatch_seconds = 300\n")
    with start("open_nsfw", "--workers", "1", "--config", str(config), "--grace", "0") as running, ThreadPoolExecutor(8) as pool:
        (worker,) = running.workers()
        os.kill(worker, signal.SIGSTOP)
        busy = [pool.submit(running.post, "/v1/predict", content=picture(100)) for _ in range(2)]
        until(lambda: running.metric("plimsoll_shared_memory_bytes") > 0, "the worker to have something")
        try:
            yield running, busy, pool
        finally:
            os.kill(worker, signal.SIGCONT)


def test_who_waits_too_long_or_hangs_up_is_dropped(stopped: tuple[Running, list[Future[httpx.Response]], ThreadPoolExecutor]) -> None:
    running, busy, _ = stopped
    late = running.post("/v1/predict?timeout=0.2", content=picture(30))
    assert late.status_code == 504
    assert late.json()["error"]["kind"] == "deadline"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{running.url}/v1/predict", content=picture(30), timeout=0.5)
    until(lambda: running.metric("plimsoll_queue_length") == 0, "the one that hung up to be dropped", 10.0)
    os.kill(running.workers()[0], signal.SIGCONT)
    assert {one.result().status_code for one in busy} == {200}
    assert running.metric("plimsoll_batch_size_sum") == 2, "nobody computed what nobody waited for"
    assert running.metric("plimsoll_shared_memory_bytes") == 0


def test_priorities_go_first(stopped: tuple[Running, list[Future[httpx.Response]], ThreadPoolExecutor]) -> None:
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
    assert {one.result().status_code for one in busy} == {200}
    for one in rest:
        one.result()
    assert ends == [1, 0, -1]


def test_nothing_waits_behind_a_slow_worker_while_another_one_would_be_free_sooner(nsfw_model_path: Path, tmp_path: Path) -> None:
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("silent_seconds = 300\nbatch_seconds = 300\n")
    with start("open_nsfw", "--workers", "2", "--config", str(config), "--grace", "0") as running, ThreadPoolExecutor(4) as pool:
        slow = running.workers()[0]
        os.kill(slow, signal.SIGSTOP)
        try:
            first = [pool.submit(running.post, "/v1/predict", content=picture(100)) for _ in range(2)]
            until(lambda: any(one.done() for one in first), "one of the two to be answered")

            def client(_: int) -> set[int]:
                return {running.post("/v1/predict?timeout=20", content=picture(30)).status_code for _ in range(6)}

            assert list(pool.map(client, range(2))) == [{200}, {200}]
            assert sum(one.done() for one in first) == 1, "the other one is where the stopped worker has it"
        finally:
            os.kill(slow, signal.SIGCONT)
        assert {one.result().status_code for one in first} == {200}


@pytest.fixture
def bundle(tmp_path: Path, nsfw_model_path: Path) -> Path:
    del nsfw_model_path
    with open_reference("open_nsfw") as opened:
        return pack(opened.model, Target("onnxruntime"), tmp_path / "model.plimsoll")


def test_a_new_version_serves_only_when_its_golden_vectors_pass_and_nothing_is_lost(bundle: Path, tmp_path: Path, example_photos: list[Path]) -> None:
    with start(f"m={bundle}", "--workers", "1", "--grace", "0") as running, ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(load, running, example_photos[0], 12.0, 3)
        running.process.send_signal(signal.SIGHUP)
        until(lambda: running.get("/v1/models").json()["models"][0]["version"] == "2", "version 2")
        until(lambda: len(running.workers()) == 1, "the worker of version 1 to end")
        worker = running.workers()
        _spoil(bundle, tmp_path)
        running.process.send_signal(signal.SIGHUP)
        until(lambda: any("golden vectors don't pass" in line for line in running.log), "the bad version to be refused")
        model = running.get("/v1/models").json()["models"][0]
        assert (model["version"], model["state"]) == ("2", "ready")
        os.kill(worker[0], signal.SIGKILL)
        until(lambda: running.workers() not in ([], worker) and running.get("/readyz").status_code == 200, "a worker of version 2 in the place of another")
        answers = loaded.result()
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["results"][0]["answer"]["score"] for answer in answers}) == 1


def _spoil(bundle: Path, tmp_path: Path) -> None:
    """Put a bundle in its place whose golden answers are other ones; its hashes are right."""
    import json

    from plimsoll.bundle import tensor_file

    spoiled = tmp_path / "spoiled.plimsoll"
    with Bundle.open(bundle) as opened:
        name = next(iter(opened.manifest.golden[0].outputs.values()))
        tensor = opened.tensor(name)
    shutil.copytree(bundle, spoiled)
    data = tensor_file.dumps(1 - tensor)
    (spoiled / name).write_bytes(data)
    import hashlib

    manifest = json.loads((spoiled / "manifest.json").read_text())
    manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (spoiled / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(bundle)
    spoiled.rename(bundle)


def test_sigterm_finishes_what_was_accepted_and_ends_well(nsfw_model_path: Path, example_photos: list[Path]) -> None:
    """The clients go elsewhere once the service says that it isn't ready, as those behind a load balancer do."""
    del nsfw_model_path
    with start("open_nsfw", "--workers", "2", "--grace", "3") as running, ThreadPoolExecutor(8) as pool:
        body = example_photos[0].read_bytes()
        told = threading.Event()

        def client(_: int) -> list[int]:
            found = []
            with httpx.Client(timeout=60) as asking:
                while not told.is_set():
                    found.append(asking.post(f"{running.url}/v1/predict", content=body).status_code)
            return found

        clients = [pool.submit(client, place) for place in range(6)]
        time.sleep(1)
        workers = running.workers()
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.get("/readyz").status_code == 503, "readiness to go off", 2.0)
        last = running.post("/v1/predict", content=body)
        assert last.status_code == 200, "in the grace everybody is still answered"
        assert last.headers["connection"] == "close", "and sent away"
        told.set()
        statuses = [status for one in clients for status in one.result()]
        assert set(statuses) == {200}
        assert len(statuses) > 6
        assert running.process.wait(30) == 0
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_workers_go_when_the_service_is_killed(nsfw_model_path: Path) -> None:
    del nsfw_model_path
    with start("open_nsfw", "--workers", "2") as running:
        workers = running.workers()
        running.process.kill()
        until(lambda: not any(_alive(worker) for worker in workers), "the workers to end", 10)


def _alive(process: int) -> bool:
    try:
        return "plimsoll.serve.worker" in Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return False


def test_who_never_finishes_a_request_is_sent_away(nsfw_model_path: Path, tmp_path: Path) -> None:
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("header_seconds = 0.5\nbody_seconds = 0.5\n")
    with start("open_nsfw", "--workers", "1", "--config", str(config), "--grace", "0") as running:
        host, port = running.url.removeprefix("http://").split(":")

        def said(sent: bytes) -> bytes:
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(sent)
                found = b""
                while chunk := connection.recv(65536):
                    found += chunk
                    if b"\r\n\r\n" in found:
                        break
                return found

        assert said(b"") == b""
        assert said(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nX-Slow: ") == b""
        slow = said(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        assert b" 408 " in slow
        assert b"connection: close" in slow, "what still trickles in would hold the connection"
        for _ in range(20):
            assert running.post("/v1/predict?top=0", content=bytes(900_000)).status_code == 422, "the answer comes though nobody read the body"
        assert b" 431 " in said(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nX-Long: " + 200_000 * b"v")
        assert b" 400 " in said(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\n" + 1000 * b"X-More: v\r\n" + b"\r\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing_of_that_name"], "the zoo has no network"),
        (["open_nsfw", "open_nsfw"], "two models are named"),
        (["a b=open_nsfw"], "can't be a model's name"),
        (["open_nsfw", "--config", "no.toml"], "can't read the settings"),
        (["open_nsfw", "--target", "openvino:gpu:float32"], "openvino"),
    ],
)
def test_what_is_wrong_with_the_command_is_said(arguments: list[str], told: str) -> None:
    import subprocess
    import sys

    done: Any = subprocess.run([sys.executable, "-m", "plimsoll", "serve", *arguments, "--port", "0"], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode in (2, 3), done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
