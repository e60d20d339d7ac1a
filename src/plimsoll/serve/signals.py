"""What the operating system tells the service, from its first moment on: end, or load the models anew.

Signals that come before the event loop runs are remembered. The first process of a container ignores SIGTERM unless it
asks for it, and SIGHUP ends a process by default, so both are asked for before anything slow.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

_STOP = ("SIGTERM", "SIGINT")
_RELOAD = "SIGHUP"


class Signals:
    """The signals of this process. Made first of all; `attend` hands them to the event loop."""

    def __init__(self) -> None:
        self._stops = 0
        self._reloads = 0
        self._on_stop: Callable[[], None] | None = None
        self._on_reload: Callable[[], None] | None = None
        for name in (*_STOP, _RELOAD):
            if hasattr(signal, name):  # Windows has no SIGHUP
                signal.signal(getattr(signal, name), self._received)

    def attend(self, on_stop: Callable[[], None], on_reload: Callable[[], None]) -> None:
        """Call these in the running event loop from now on, and for what came before."""
        loop = asyncio.get_running_loop()
        self._on_stop, self._on_reload = on_stop, on_reload
        for names, act in ((_STOP, self._stop), ((_RELOAD,), self._reload)):
            for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
                try:
                    loop.add_signal_handler(number, act)
                except NotImplementedError:  # Windows
                    signal.signal(number, lambda *_, act=act: loop.call_soon_threadsafe(act))
        for _ in range(self._stops):
            on_stop()
        if self._reloads:
            on_reload()

    def _received(self, number: int, _: FrameType | None) -> None:
        if signal.Signals(number).name in _STOP:
            self._stops += 1
        else:
            self._reloads += 1

    def _stop(self) -> None:
        if self._on_stop is not None:
            self._on_stop()

    def _reload(self) -> None:
        if self._on_reload is not None:
            self._on_reload()
