"""Drive headless Chromium over its debugging pipe: real navigation, real keys, real dropped files, and no driver."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plimsoll.export.web import chromium

_PATIENCE_S = 60.0
_KEYS = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    " ": 32,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}


class Browser:
    """One page. `evaluate` runs JavaScript in it and returns what it gives."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._numbers = itertools.count(1)
        self._left = b""
        self._session: str | None = None
        self.said: list[dict[str, Any]] = []
        """What the page complained about: exceptions, errors in its console, and what its policy forbade."""

    def attach(self) -> None:
        """Open a page and listen to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol, and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | (
            {"sessionId": self._session} if self._session else {}
        )
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            more = os.read(self._read, 1 << 20)
            assert more, "Chromium has ended"
            self._left += more
        message, _, self._left = self._left.partition(b"\0")
        event: dict[str, Any] = json.loads(message)
        if event.get("method") == "Runtime.exceptionThrown" or (
            event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error"
        ):
            self.said.append(event["params"])
        return event

    def view(self, width: int, height: int, scale: float = 1.0, *, dark: bool = False) -> None:
        """Set the size of the page in CSS pixels, and its colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def open(self, url: str) -> None:
        """Go to a page, and wait until its script says that it is ready."""
        self.call("Page.navigate", url=url)
        self.until("document.documentElement?.dataset.ready === 'true'")

    def evaluate(self, expression: str) -> Any:
        """Run an expression in the page; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + _PATIENCE_S
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, (
                f"waited for {expression}; the page says {self.evaluate('document.body?.innerText')!r}"
            )
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
            common = {
                "key": key,
                "code": {" ": "Space"}.get(key, key),
                "windowsVirtualKeyCode": _KEYS.get(key, ord(key[0].upper())),
            }
            self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def drop(self, *files: Path) -> None:
        """Drop files onto the page, as a file manager does."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=100, y=100, data=data)

    def choose(self, selector: str, *files: Path) -> None:
        """Put files into a file field."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def shot(self, *, whole: bool = False) -> bytes:
        """Return a PNG of what is seen, or of the whole page."""
        return base64.b64decode(
            self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, fromSurface=True)["data"]
        )


@contextmanager
def browser(*flags: str) -> Iterator[Browser]:
    """Run Chromium until the block ends."""
    executable = chromium.find()
    assert executable is not None
    to_child, from_parent = (_high(end) for end in os.pipe())
    to_parent, from_child = (_high(end) for end in os.pipe())

    def join() -> None:
        os.dup2(to_child, 3)
        os.dup2(from_child, 4)

    with tempfile.TemporaryDirectory(prefix="plimsoll-chromium-", ignore_cleanup_errors=True) as profile:
        command = [
            executable, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-extensions", "--mute-audio", "--hide-scrollbars", *flags,
            "--remote-debugging-pipe", f"--user-data-dir={profile}",
        ]  # fmt: skip
        silent = subprocess.DEVNULL
        process = subprocess.Popen(
            command,
            stdin=silent,
            stdout=silent,
            stderr=silent,
            preexec_fn=join,
            pass_fds=(3, 4),
            start_new_session=True,
        )
        os.close(to_child)
        os.close(from_child)
        try:
            driven = Browser(from_parent, to_parent)
            driven.attach()
            yield driven
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(from_parent)
            os.close(to_parent)


def _high(end: int) -> int:
    """Move a pipe's end away from the numbers that Chromium expects."""
    moved = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(end)
    return moved
