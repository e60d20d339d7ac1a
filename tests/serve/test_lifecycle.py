"""From its first moment to its last: signals while it loads, what it says meanwhile, where it listens, its certificate,
the files that it leaves, and a machine that has no room for it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from helpers.service_process import children, start, until
from plimsoll.serve.folders import PREFIX, ServiceFolder


def launch(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "plimsoll", "serve", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(url: str, path: str) -> httpx.Response | None:
    try:
        return httpx.get(url + path, timeout=5)
    except httpx.TransportError:
        return None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_loads_ends_it_at_once(nsfw_model_path: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Its worker is stopped, so that it would load for ever; meanwhile it says so."""
    del nsfw_model_path
    config = tmp_path / "settings.toml"
    config.write_text("start_heartbeat_timeout = 3600\nstart_timeout = 3600\ngrace = 0\n")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = launch("open_nsfw", "--workers", "1", "--port", str(port), "--config", str(config))
    try:
        until(lambda: children(process.pid), "a worker")
        (worker,) = children(process.pid)
        os.kill(worker, signal.SIGSTOP)
        until(lambda: answers(url, "/healthz"), "it to listen")
        ready = answers(url, "/readyz")
        assert ready is not None
        assert (ready.status_code, ready.json()["models"]["open_nsfw"]["state"]) == (503, "loading")
        refused = httpx.post(f"{url}/v1/predict", content=b"x")
        assert (refused.status_code, "loading" in refused.text, int(refused.headers["retry-after"])) == (503, True, 2)
        process.send_signal(signal.SIGHUP)  # loads it after the first time, and ends nothing
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(20) == 0
        assert not Path(f"/proc/{worker}").exists()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_a_signal_before_anything_has_begun_is_heard(delay: float) -> None:
    process = launch("open_nsfw", "--port", "0", "--grace", "0")
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    ended = process.wait(60)
    process.communicate()
    assert ended in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


def test_a_unix_socket_and_a_prefix(nsfw_model_path: Path, tmp_path: Path, example_photos: list[Path]) -> None:
    del nsfw_model_path
    path = tmp_path / "plimsoll.sock"
    arguments = ("open_nsfw", "--workers", "1", "--grace", "0")
    process = launch(*arguments, "--unix-socket", str(path), "--root-path", "/vision")
    try:
        until(path.exists, "the socket")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
            until(lambda: client.get("/readyz").status_code == 200, "the model")
            for prefix in ("", "/vision"):
                reply = client.post(f"{prefix}/v1/predict", content=example_photos[0].read_bytes())
                assert reply.status_code == 200, reply.text
                assert client.get(f"{prefix}/v1/models/").headers["location"] == "/vision/v1/models"
                assert "date" in reply.headers
        second = launch(*arguments, "--unix-socket", str(path))
        output, _ = second.communicate(timeout=60)
        assert (second.returncode, "another service listens there" in output) == (2, True), output
        process.terminate()
        assert process.wait(60) == 0
        assert not path.exists()
    finally:
        process.kill()
        process.communicate()


def test_a_port_in_use_is_said_in_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = launch("open_nsfw", "--port", str(listener.getsockname()[1]))
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert "in use" in output
    assert "--port" in output
    assert len(output.splitlines()) <= 4, output


def certificate(folder: Path, name: str) -> Path:
    """Write a certificate with its key into one file."""
    file = folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run([*command, "-keyout", f"{file}.key", "-out", f"{file}.crt"], check=True, capture_output=True)
    file.write_bytes(Path(f"{file}.crt").read_bytes() + Path(f"{file}.key").read_bytes())
    return file


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_one_file_is_enough_for_tls_and_is_read_again(nsfw_model_path: Path, tmp_path: Path) -> None:
    del nsfw_model_path
    grpc = pytest.importorskip("grpc")
    served = tmp_path / "both.pem"
    first, second = certificate(tmp_path, "first"), certificate(tmp_path, "second")
    shutil.copy(first, served)
    port = free_port()
    with start(
        "open_nsfw", "--workers", "1", "--grace", "0", "--certificate", str(served), "--grpc-port", str(port)
    ) as running:
        host, http_port = running.url.removeprefix("https://").split(":")

        def shown(at: int) -> str:
            return ssl.get_server_certificate((host, at))

        assert {shown(int(http_port)), shown(port)} == {Path(f"{first}.crt").read_text()}
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=5)
        shutil.copy(second, served)
        running.process.send_signal(signal.SIGHUP)
        until(lambda: shown(int(http_port)) == Path(f"{second}.crt").read_text(), "the new certificate")
        until(lambda: shown(port) == Path(f"{second}.crt").read_text(), "the new certificate over gRPC")
        served.write_text("no certificate")
        running.process.send_signal(signal.SIGHUP)
        until(lambda: any("stays as it was" in line for line in running.log), "the log to say so")
        assert shown(int(http_port)) == Path(f"{second}.crt").read_text()


def test_workers_that_can_t_be_started_are_tried_again(
    nsfw_model_path: Path, tmp_path: Path, example_photos: list[Path]
) -> None:
    """The machine has no room for another process's files, then it has again."""
    del nsfw_model_path
    folder = tmp_path / "files"
    config = tmp_path / "settings.toml"
    config.write_text(f"folder = {str(folder)!r}\n")
    with start("open_nsfw", "--workers", "1", "--config", str(config), "--grace", "0") as running:
        score = running.score(example_photos[0])
        soft, hard = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
        opened = len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (opened + 2, hard))
        os.kill(running.workers()[0], signal.SIGKILL)
        until(lambda: any("can't be started" in line for line in running.log), "the log to say so")
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert running.score(example_photos[0]) == score
        shutil.rmtree(folder)
        os.kill(running.workers()[0], signal.SIGKILL)
        assert running.score(example_photos[0]) == score
        assert running.get("/readyz").status_code == 200


def test_what_a_killed_service_left_is_removed_by_the_next(tmp_path: Path) -> None:
    living, dead = ServiceFolder(tmp_path), tmp_path / f"{PREFIX}dead"
    (living.path() / "bundle").mkdir()
    (dead / "bundle").mkdir(parents=True)
    for folder in (living.path(), dead):
        os.utime(folder, (1, 1))
    fresh = tmp_path / f"{PREFIX}fresh"
    fresh.mkdir()
    other = ServiceFolder(tmp_path)
    other.remove_abandoned()
    assert (living.path().is_dir(), dead.exists(), fresh.exists()) == (True, False, True)
    before = living.path()
    shutil.rmtree(before)
    assert living.path().is_dir()
    living.remove()
    assert not living.path().parent.joinpath(before.name).exists()
    living.remove()
