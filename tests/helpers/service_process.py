"""Start `plimsoll serve` in a process of its own, and look at it from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

_PATIENCE_S = 90.0


@dataclass
class ServiceProcess:
    """A service that runs."""

    process: subprocess.Popen[str]
    url: str = ""
    log: list[str] = field(default_factory=list)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        """Send a request, and wait for its answer."""
        return httpx.post(self.url + path, timeout=_PATIENCE_S, **arguments)

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        """Ask."""
        return httpx.get(self.url + path, timeout=_PATIENCE_S, **arguments)

    def score(self, photo: Path) -> float:
        """Return what the service says of a photo."""
        answer = self.post("/v1/predict", content=photo.read_bytes(), headers={"Content-Type": "image/jpeg"})
        assert answer.status_code == 200, answer.text
        return float(answer.json()["results"][0]["answer"]["score"])

    @contextmanager
    def load(self, photo: Path, clients: int = 6) -> Iterator[list[httpx.Response]]:
        """Have so many clients ask again and again until the block ends; give the answers, as they come."""
        answers: list[httpx.Response] = []
        over = threading.Event()

        def client() -> None:
            with httpx.Client(base_url=self.url, timeout=_PATIENCE_S) as asking:
                while not over.is_set():
                    answers.append(asking.post("/v1/predict", content=photo.read_bytes()))

        with ThreadPoolExecutor(clients) as pool:
            futures = [pool.submit(client) for _ in range(clients)]
            try:
                yield answers
            finally:
                over.set()
            for future in futures:
                future.result()

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels; fails where there is no such metric, whose sum
        would be 0."""
        text = self.get("/metrics").text
        assert re.search(rf"^# TYPE {re.sub('_(sum|count)$', '', name)} ", text, re.MULTILINE), (
            f"there is no metric {name}"
        )
        total = 0.0
        for line in text.splitlines():
            if re.match(rf"{name}[ {{]", line) and all(f'{label}="{value}"' in line for label, value in labels.items()):
                total += float(line.rpartition(" ")[2])
        return total

    def workers(self) -> list[int]:
        """Return the worker processes."""
        return children(self.process.pid)

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_PATIENCE_S)


@contextmanager
def start(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[ServiceProcess]:
    """Run `plimsoll serve` on a port that the system chooses, until the block ends."""
    command = [sys.executable, "-m", "plimsoll", "serve", *arguments, "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(environment or {})}
    )
    running = ServiceProcess(process)
    listener = threading.Thread(target=_listen, args=(running,), daemon=True)
    listener.start()
    try:
        until(lambda: running.url or process.poll() is not None, "the service to start")
        assert running.url, "\n".join(running.log)
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        listener.join()
        assert process.stdout is not None
        process.stdout.close()


def _listen(running: ServiceProcess) -> None:
    assert running.process.stdout is not None
    for line in running.process.stdout:
        running.log.append(line.rstrip())
        if match := re.match(r"plimsoll: .* at (https?://[^\s,]+)", line):
            running.url = match[1]


def children(process: int | None = None) -> list[int]:
    """Return the worker processes of a service; by default of one that runs in this process."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(process or os.getpid())], capture_output=True, text=True, check=False
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "plimsoll.serve.worker" in line]


def until(true: Callable[[], object], what: str, seconds: float = _PATIENCE_S) -> None:
    """Wait until something is true; fails where it never is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)
