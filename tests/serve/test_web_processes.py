"""Several web processes: they answer as one service, whichever of them a caller reaches, and one that dies is
replaced."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from helpers.service_process import ServiceProcess, start, until
from plimsoll.serve.http.listener import Address, SharedSockets, close_sockets, open_sockets
from plimsoll.serve.settings import Settings

PROCESSES = 2
CONNECTIONS = 24
"""All of them reach the same process once in 10^7."""
CONFIG = """
start_heartbeat_timeout = 600
[candidates.now]
model = "next"
shadow = 1.0
"""


def web_processes(running: ServiceProcess) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(running.process.pid)], capture_output=True, text=True, check=True
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "plimsoll.serve.web" in line]


@pytest.fixture(scope="module")
def service(nsfw_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    del nsfw_model_path
    config = tmp_path_factory.mktemp("config") / "serve.toml"
    config.write_text(CONFIG)
    models = ("now=open_nsfw", "next=open_nsfw")
    options = ("--workers", "1", "--web-processes", str(PROCESSES), "--grace", "0", "--config", str(config))
    with start(*models, *options) as running:
        yield running


@pytest.fixture
def connections(service: ServiceProcess) -> Iterator[list[httpx.Client]]:
    """Callers whose connections lead to all of the processes."""
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=service.url, timeout=90)) for _ in range(CONNECTIONS)]
        for client in clients:
            assert client.get("/healthz").status_code == 200
        yield clients


def of_all(connections: list[httpx.Client], ask: Callable[[httpx.Client], Any]) -> list[Any]:
    """Return the different answers over all connections."""
    answers: list[Any] = []
    for client in connections:
        if (answer := ask(client)) not in answers:
            answers.append(answer)
    return answers


def test_all_answer_alike_and_are_counted_together(
    service: ServiceProcess, connections: list[httpx.Client], example_photos: list[Path]
) -> None:
    photo = example_photos[0].read_bytes()
    counted = {"model": "now", "interface": "native", "status": "200"}
    before, compared = service.metric("plimsoll_requests_total", **counted), shadows(service)

    def score(client: httpx.Client) -> float:
        reply = client.post("/v1/predict?model=now", content=photo)
        assert reply.status_code == 200, reply.text
        return float(reply.json()["results"][0]["answer"]["score"])

    assert len(of_all(connections, score)) == 1
    assert service.metric("plimsoll_requests_total", **counted) == before + CONNECTIONS
    until(lambda: shadows(service) == compared + CONNECTIONS, "the comparisons")
    (shown,) = of_all(connections, lambda client: client.get("/v1/models").json())
    comparison = next(model["candidate"] for model in shown["models"] if model["name"] == "now")
    assert sum(comparison[outcome] for outcome in ("same", "different", "failed", "skipped")) == shadows(service)
    (statistics,) = of_all(connections, lambda client: client.get("/v2/models/now/stats").json())
    assert statistics["model_stats"][0]["inference_count"] >= CONNECTIONS
    assert service.metric("plimsoll_shared_memory_bytes") == 0


def shadows(service: ServiceProcess) -> float:
    return service.metric("plimsoll_shadow_answers_total", model="now")


def test_what_one_of_them_is_told_all_of_them_know(connections: list[httpx.Client], example_photos: list[Path]) -> None:
    def ready(client: httpx.Client) -> int:
        return client.get("/v2/models/next/ready").status_code

    def version(client: httpx.Client) -> str:
        models = client.get("/v1/models").json()["models"]
        return next(str(model["version"]) for model in models if model["name"] == "next")

    photo = example_photos[0].read_bytes()
    (loads,) = of_all(connections, version)
    assert connections[0].post("/v2/repository/models/next/unload").status_code == 200
    assert of_all(connections, ready) == [503]
    reply = connections[1].post("/v1/predict?model=next", content=photo)
    assert (reply.status_code, "unloaded" in reply.text) == (503, True)
    assert connections[2].post("/v2/repository/models/next/load").status_code == 200
    assert of_all(connections, ready) == [200]
    assert of_all(connections, version) == [str(int(loads) + 1)]
    assert connections[3].post("/v2/repository/models/nobody/load").status_code == 404


def test_tensors_and_streams_pass_through(connections: list[httpx.Client], example_photos: list[Path]) -> None:
    metadata = connections[0].get("/v2/models/now.tensor").json()["inputs"][0]
    shape = [3, *(abs(size) for size in metadata["shape"][1:])]
    tensor = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    body = {"inputs": [{"name": metadata["name"], "datatype": "FP32", "shape": shape, "data": tensor.ravel().tolist()}]}
    reply = connections[0].post("/v2/models/now.tensor/infer", json=body).json()
    assert reply["outputs"][0]["shape"] == [3, 2]
    assert np.allclose(np.reshape(reply["outputs"][0]["data"], (3, 2)).sum(axis=1), 1, atol=1e-5)
    files = [("file", (path.name, path.read_bytes())) for path in example_photos[:3]]
    headers = {"Accept": "application/x-ndjson"}
    lines = connections[1].post("/v1/predict?model=now", files=files, headers=headers).text.splitlines()
    assert len(lines) == 3
    refused = connections[2].post("/v1/predict?model=now", content=b"no picture")
    assert (refused.status_code, refused.json()["error"]["kind"]) == (415, "image")


def test_one_that_is_killed_is_replaced_and_nothing_counted_is_lost(
    service: ServiceProcess, connections: list[httpx.Client], example_photos: list[Path]
) -> None:
    photo = example_photos[0].read_bytes()
    counted = {"model": "now", "interface": "native"}
    before = service.metric("plimsoll_requests_total", **counted)
    victim, *others = web_processes(service)
    os.kill(victim, signal.SIGKILL)
    answered = 0
    for client in connections:
        try:
            answered += client.post("/v1/predict?model=now", content=photo).status_code == 200
        except httpx.TransportError:  # its connection went with the process
            continue
    assert answered > 0
    until(lambda: service.metric("plimsoll_web_processes", state="ready") == PROCESSES, "another one")
    assert victim not in web_processes(service)
    assert set(others) <= set(web_processes(service))
    assert service.metric("plimsoll_worker_restarts_total", reason="web") == 1
    for _ in range(CONNECTIONS):
        assert service.post("/v1/predict?model=now", content=photo).status_code == 200
    assert service.metric("plimsoll_requests_total", **counted) == before + answered + CONNECTIONS
    assert service.metric("plimsoll_shared_memory_bytes") == 0


def test_hang_ups_leave_the_queue_and_the_memory(service: ServiceProcess, example_photos: list[Path]) -> None:
    address = service.url.removeprefix("http://").split(":")
    photo = example_photos[0].read_bytes()
    head = f"POST /v1/predict?model=now HTTP/1.1\r\nHost: x\r\nContent-Length: {len(photo)}\r\n\r\n".encode()
    for _ in range(12):
        with socket.create_connection((address[0], int(address[1]))) as caller:
            caller.sendall(head + photo)
    until(
        lambda: not service.metric("plimsoll_queue_length") and not service.metric("plimsoll_shared_memory_bytes"),
        "what they left",
    )


def test_signals_reach_all_and_what_was_accepted_is_finished(
    service: ServiceProcess, connections: list[httpx.Client], example_photos: list[Path]
) -> None:
    """The last test here: it ends the service."""
    photo = example_photos[0].read_bytes()
    service.process.send_signal(signal.SIGHUP)
    before = connections[0].get("/v1/models").json()["models"][0]["version"]

    def versions() -> list[Any]:
        return of_all(connections, lambda client: client.get("/v1/models").json()["models"][0]["version"])

    until(lambda: versions() == [str(int(before) + 1)], "the new version everywhere")
    everybody = [*web_processes(service), *service.workers()]
    host, port = service.url.removeprefix("http://").split(":")
    head = f"POST /v1/predict?model=now HTTP/1.1\r\nHost: x\r\nContent-Length: {len(photo)}\r\n\r\n".encode()
    with ExitStack() as stack:
        callers = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(12)]
        for caller in callers:
            caller.sendall(head + photo)
        until(lambda: service.metric("plimsoll_shared_memory_bytes") > 0, "requests to be there")
        service.process.send_signal(signal.SIGTERM)
        assert {caller.recv(15) for caller in callers} == {b"HTTP/1.1 200 OK"}
    assert service.process.wait(60) == 0
    assert not any(Path(f"/proc/{process}").exists() for process in everybody)


def test_limits_are_shared_and_the_largest_request_still_fits() -> None:
    settings = Settings(web_processes=4)
    share = settings.of_process()
    assert (share.max_connections, share.max_unsent_bytes) == (1024, settings.max_unsent_bytes // 4)
    assert share.max_received_bytes == 128 * 1024 * 1024
    crowded = Settings(web_processes=64).of_process()
    assert crowded.max_received_bytes >= crowded.max_body_bytes
    assert crowded.shared_bytes >= crowded.max_body_bytes
    assert Settings().of_process() == Settings()


@pytest.mark.parametrize("reuse_port", [True, False])
def test_sockets_of_several_processes_lead_to_one_address(reuse_port: bool) -> None:
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("the system has no SO_REUSEPORT")
    sockets = open_sockets(Address(port=0))
    name = sockets[0].getsockname()
    shared = SharedSockets(sockets, reuse_port=reuse_port)
    first, second = shared.open(), shared.open()
    try:
        assert {opened.getsockname() for opened in (*first, *second)} == {name}
        close_sockets(first)
        with socket.create_connection(name):
            second[0].setblocking(True)
            second[0].accept()[0].close()
    finally:
        close_sockets(second)
        shared.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(name)
