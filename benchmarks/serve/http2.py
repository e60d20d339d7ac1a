"""What servers that speak HTTP/2 cost, and which of our guards they have: hypercorn and granian beside uvicorn.

    python3 -m venv ENVIRONMENT && ENVIRONMENT/bin/pip install hypercorn granian uvicorn httptools uvloop
    python benchmarks/serve/http2.py ENVIRONMENT/bin/python --h2load h2load      # h2load: Debian's nghttp2-client

Each answers a POST of 100 kB with 250 bytes. The cost is processor time of the server, so a busy machine disturbs it
little. Then each is asked badly: a head that never ends, one of a megabyte, and answers that nobody reads.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from processes import memory_mb, processor_seconds

PORT = 18700
APP = """
ANSWER = b"x" * 250
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    body = b"x" * 64_000_000 if scope["path"] == "/large" else ANSWER
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "app:app", "--port", str(PORT), "--no-access-log", "--log-level", "error"],
    "hypercorn": ["-m", "hypercorn", "app:app", "--bind", f"127.0.0.1:{PORT}", "--worker-class", "uvloop"],
    "granian": ["-m", "granian", "--interface", "asginl", "app:app", "--port", str(PORT), "--no-ws"],
}


@contextmanager
def serving(program: Path, arguments: Sequence[str]) -> Iterator[int]:
    """Run a server, and give its process."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(APP)
        process = subprocess.Popen(
            [str(program), *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", PORT)).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()
            process.wait()


def cost(pid: int, h2load: str, photo: Path, *, http2: bool, requests: int) -> str:
    """Return the processor time of a request, in words."""
    command = [h2load, "-n", str(requests), "-c", "16", "-m", "1", "-d", str(photo), f"http://127.0.0.1:{PORT}/"]
    if not http2:
        command.insert(1, "--h1")
    subprocess.run([*command[:2], "200", *command[3:]] if http2 else command, capture_output=True, check=True)
    before = processor_seconds(pid)
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = processor_seconds(pid) - before
    answered = re.search(r"(\d+) succeeded", done)
    count = int(answered[1]) if answered else 0
    return f"{1e3 * spent / count:.3f} ms" if count else "none answered"


def closed_after(data: bytes, patience: float) -> str:
    """Return how long a connection stays open that sends this and nothing more."""
    with socket.create_connection(("127.0.0.1", PORT)) as caller:
        started = time.monotonic()
        caller.settimeout(patience)
        try:
            caller.sendall(data)
            answer = caller.recv(4096)
        except TimeoutError:
            return f"open after {patience:g} s"
        except OSError:
            answer = b""
        status = answer.partition(b"\r\n")[0].decode()
        return f"{status or 'closed'} after {time.monotonic() - started:.1f} s"


def unread(pid: int, seconds: float) -> str:
    """Return what 16 callers cost who never read their answers of 64 MB."""
    before = memory_mb(pid)
    callers = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(16)]
    for caller in callers:
        caller.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(seconds)
    held = memory_mb(pid) - before
    for caller in callers:
        caller.close()
    return f"{held:,.0f} MB after {seconds:g} s"


def main() -> int:
    """Parse the arguments, measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("python", type=Path, help="of the environment that has the servers")
    parser.add_argument("--h2load", default="h2load")
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--patience", type=float, default=40)
    arguments = parser.parse_args()
    with tempfile.NamedTemporaryFile() as photo:
        photo.write(os.urandom(100_000))
        photo.flush()
        for name, command in SERVERS.items():
            with serving(arguments.python, command) as pid:
                for http2 in (False, True) if name != "uvicorn" else (False,):
                    taken = cost(pid, arguments.h2load, Path(photo.name), http2=http2, requests=arguments.requests)
                    print(f"{name} HTTP/{2 if http2 else 1.1}: {taken} of processor time a request", flush=True)
                probes: dict[str, Callable[[], str]] = {
                    "half a head": lambda: closed_after(b"GET / HTTP/1.1\r\nHost: x\r\n", arguments.patience),
                    "a head of 1 MB": lambda: closed_after(
                        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1_000_000, arguments.patience
                    ),
                    "answers that nobody reads": partial(unread, pid, arguments.patience),
                }
                for what, ask in probes.items():
                    print(f"  {what}: {ask()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
