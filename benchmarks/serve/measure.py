"""One measurement of one running server: a load for some seconds, what came of it, and what the server spent on it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from request_formats import write_requests
from servers import Running
from set_up import HERE, peers_folder

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Measurement:
    """What came of one load on one server."""

    seconds: float
    latencies: tuple[float, ...]
    """Milliseconds, of the answers with status 200."""
    errors: Mapping[str, int]
    """By status, or `unanswered`."""
    server_cpu_seconds: float
    web_cpu_seconds: float
    """Of them, those of the processes that speak with the network."""
    generator_cpu_seconds: float
    memory_mb: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Processor milliseconds of the server for one answer."""
        return 1e3 * self.server_cpu_seconds / len(self.latencies) if self.latencies else math.nan

    @property
    def web_cpu_ms(self) -> float:
        """Processor milliseconds for one answer of what speaks with the network."""
        return 1e3 * self.web_cpu_seconds / len(self.latencies) if self.latencies else math.nan

    def percentile(self, rank: float) -> float:
        """Return a percentile of the latencies; a request with an error counts as infinitely late."""
        return percentile(self.latencies, rank, sum(self.errors.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: percentiles in place of every latency."""
        figures = asdict(self)
        del figures["latencies"]
        return (
            figures
            | {"answers": len(self.latencies), "rate": self.rate, "cpu_ms": self.cpu_ms, "web_cpu_ms": self.web_cpu_ms}
            | {f"p{rank}": self.percentile(rank) for rank in PERCENTILES}
        )


def percentile(latencies: Sequence[float], rank: float, failed: int = 0) -> float:
    """Return the smallest latency that `rank` percent don't exceed (nearest rank); `failed` more count as infinitely
    late."""
    every = np.concatenate([np.asarray(latencies, np.float64), np.full(failed, math.inf)])
    return float(np.percentile(every, rank, method="inverted_cdf")) if every.size else math.nan


def wrk() -> Path | None:
    """Return the wrk that `set_up.py` made, if it did."""
    program = peers_folder() / "wrk" / "usr" / "bin" / "wrk"
    return program if program.exists() else None


class Load:
    """Makes loads of the given photos; use it in a `with` block: the requests lie in a temporary folder."""

    def __init__(self, photos: Sequence[bytes], clients: int, own_generator: bool = False) -> None:
        self.photos, self.clients = photos, clients
        self.wrk = None if own_generator else wrk()
        self._folder = tempfile.TemporaryDirectory(prefix="plimsoll-load-")
        self._written: dict[tuple[str, int], Path] = {}

    def close(self) -> None:
        """Remove the requests."""
        self._folder.cleanup()

    def closed(self, running: Running, seconds: float) -> Measurement:
        """Let so many clients ask again as soon as they are answered; with wrk where it is set up."""
        folder = self._requests(running)
        if self.wrk is None:
            return self._measured(
                running,
                self._own("closed", folder, running, ["--clients", str(self.clients), "--seconds", str(seconds)]),
            )
        listed = folder / "list.txt"
        listed.write_text("".join(f"{file}\n" for file in sorted(folder.glob("*.http"))))
        url, times = f"http://127.0.0.1:{running.port}", [f"-d{max(1, round(seconds))}", "--timeout", "60"]
        return self._measured(
            running,
            [str(self.wrk), "-t1", f"-c{self.clients}", *times, "-s", str(HERE / "wrk.lua"), url, "--", str(listed)],
        )

    def arriving(self, running: Running, rate: float, seconds: float) -> Measurement:
        """Let requests arrive at random moments (Poisson), whatever the server does."""
        return self._measured(
            running,
            self._own("open", self._requests(running), running, ["--rate", str(rate), "--seconds", str(seconds)]),
        )

    def _own(self, loop: str, folder: Path, running: Running, options: Sequence[str]) -> list[str]:
        return [sys.executable, str(HERE / "traffic.py"), loop, str(folder), str(running.port), *options]

    def _requests(self, running: Running) -> Path:
        key = (running.server.name, running.port)
        if key not in self._written:
            self._written[key] = Path(self._folder.name) / str(len(self._written))
            write_requests(running.server.request_format, self.photos, running.port, self._written[key])
        return self._written[key]

    def _measured(self, running: Running, command: Sequence[str]) -> Measurement:
        libraries = str(peers_folder() / "wrk" / "usr" / "lib" / "x86_64-linux-gnu")
        before, web, own = running.cpu_seconds(), running.web_seconds(), _children_seconds()
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | {"LD_LIBRARY_PATH": libraries}
        )
        result = json.loads(
            (done.stdout if self.wrk is None or "traffic.py" in command[1] else done.stderr).splitlines()[-1]
        )
        spent, web_spent = running.cpu_seconds() - before, running.web_seconds() - web
        return Measurement(
            result["seconds"],
            tuple(result["latencies"]),
            result["errors"],
            spent,
            web_spent,
            result["cpu_seconds"] or _children_seconds() - own,
            running.memory_mb(),
        )


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system
