"""Run a small page in headless Chromium and get what it reports: no driver, no further package.

The page is served from this machine, and posts its answer back to the same server, so nothing leaves it.
"""

from __future__ import annotations

import contextlib
import json
import mimetypes
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

from plimsoll.errors import BackendMissingError, RunError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm", ".webp": "image/webp"}
_REPORT_LIMIT = 500_000_000
# The picture arrives with the report: until then the page counts as loading, so that a screenshot shows what the
# program did.
_PAGE = """<!DOCTYPE html><meta charset="utf-8"><title>Plimsoll</title><style>body {{ margin: 0 }}</style>
<img src="{hold}" hidden><script type="module">
const report = (body) => fetch("{report}", {{ method: "POST", body: JSON.stringify(body) }});
try {{
  const {{ default: run }} = await import("{program}");
  await report({{ result: await run() }});
}} catch (error) {{
  await report({{ error: String(error?.stack ?? error) }});
}}
</script>"""


def find() -> str | None:
    """Return Chromium's path, or None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def run(
    program: str,
    folder: Path,
    files: Mapping[str, Path] = MappingProxyType({}),
    *,
    seconds: float = 300,
    screenshot: Path | None = None,
    flags: Sequence[str] = (),
) -> Any:
    """Serve `folder`, and `files` by further paths, run the JavaScript module `program` in Chromium, and return what
    its default function returns.

    The module lies at the folder's root as far as its imports go. `screenshot` is where a PNG of the page goes, as the
    program left it; `flags` are Chromium's (its window's size …). Raises BackendMissingError where there is no
    Chromium, RunError where the program throws or gives no answer in time.
    """
    chromium = find()
    if chromium is None:
        raise BackendMissingError("Chromium is not installed", "Install it (Debian: apt-get install chromium)")
    with (
        _Server(program, folder, files) as server,
        tempfile.TemporaryDirectory(prefix="plimsoll-chromium-", ignore_cleanup_errors=True) as profile,
    ):
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-extensions", "--enable-unsafe-swiftshader",
            "--mute-audio", "--hide-scrollbars", *flags,
            *([f"--screenshot={screenshot}"] if screenshot else []), f"--user-data-dir={profile}",
            f"http://127.0.0.1:{server.port}{server.start}",
        ]  # fmt: skip
        with _started(command, Path(profile) / "log.txt") as process:
            if not server.answered.wait(seconds):
                raise RunError(f"Chromium gave no answer in {seconds:.0f} s", "Is the machine very busy? Try again.")
            if screenshot:
                process.wait(seconds)
    answer = server.answer
    if "error" in answer:
        raise RunError(f"the page failed in Chromium: {answer['error'][:1000]}")
    return answer.get("result")  # absent where the program returns nothing


@contextlib.contextmanager
def _started(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield process
        finally:
            if hasattr(os, "killpg"):
                with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left (macOS says the latter)
                    os.killpg(process.pid, signal.SIGKILL)  # its helpers, too
            process.kill()
            process.wait()


class _Server:
    """A web server on this machine's own address; the page's path and the report's are secret, so that nobody else
    reports."""

    def __init__(self, program: str, folder: Path, files: Mapping[str, Path]) -> None:
        key = secrets.token_hex(16)
        self.start = f"/_{key}.html"
        self._report, self._hold = f"/_{key}.report", f"/_{key}.svg"
        self._folder = folder.resolve()
        self._files = dict(files)
        script = f"/_{key}.js"
        page = _PAGE.format(report=self._report, hold=self._hold, program=script)
        self._made = {self.start: ("text/html", page.encode()), script: ("text/javascript", program.encode())}
        self.answered = threading.Event()
        self.answer: dict[str, Any] = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self._http.server_address[1]

    def file_at(self, path: str) -> tuple[str, bytes] | None:
        """Return the type and the bytes at a path; None where there is nothing, or where it leads out of the folder."""
        if path in self._made:
            return self._made[path]
        if path == self._hold:
            self.answered.wait()
            return "image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"/>'
        name = path.lstrip("/") or "index.html"
        file = self._files.get(name) or (self._folder / name).resolve()
        if name not in self._files and not file.is_relative_to(self._folder):
            return None
        if not file.is_file():
            return None
        return (
            _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream",
            file.read_bytes(),
        )

    def take(self, path: str, body: bytes) -> bool:
        """Take the page's report; tells whether it came to the right place."""
        if path != self._report:
            return False
        self.answer = json.loads(body)
        self.answered.set()
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(server.file_at(self.path.partition("?")[0]))

            def do_POST(self) -> None:
                body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), _REPORT_LIMIT))
                self._send(("text/plain", b"") if server.take(self.path, body) else None)

            def _send(self, file_at: tuple[str, bytes] | None) -> None:
                kind, body = file_at or ("text/plain", b"not here")
                with contextlib.suppress(ConnectionError):  # Chromium has been closed meanwhile.
                    self.send_response(200 if file_at else 404)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                del format, args

        return Handler

    def __enter__(self) -> _Server:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answered.set()
        self._http.shutdown()
        self._http.server_close()
