"""The other side of a toolchain's job: runs in the toolchain's own Python, with nothing but the standard library.

`plimsoll.system.toolchains.job` starts it with the job's folder; by hand, the same command repeats the job. A job
script may `from plimsoll_job import RefusedError`.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

_LOOPBACK = ("localhost", "127.", "::1")


class RefusedError(Exception):
    """The model can't or must not be converted; `hint` says what to do instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def main() -> None:
    """Run the job that a folder's `job.json` describes and leave the result in its `result.json`."""
    sys.modules.setdefault("plimsoll_job", sys.modules["__main__"])
    folder = Path(sys.argv[1])
    work = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    os.environ.clear()
    os.environ.update(work["environment"])
    if os.getppid() == work["parent"]:
        threading.Thread(target=_leave_with_parent, args=(work["parent"],), daemon=True).start()
    os.chdir(folder / "tmp")
    _forbid_network(folder / "network.txt")
    answer = _answer(work, folder)
    if work["own_network"]:
        _count_attempts(folder / "network.txt")
    written = folder / "result.json.part"
    written.write_text(json.dumps(answer), encoding="utf-8")
    written.replace(folder / "result.json")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # The answer is there: a framework that crashes while it is unloaded must not spoil it.


def _answer(work: dict[str, Any], folder: Path) -> dict[str, Any]:
    inputs = {key: Path(path) for key, path in work["inputs"].items()}
    try:
        return {"result": _load(Path(work["script"])).run(work["request"], inputs, folder / "out")}
    except RefusedError as refused:
        return {"refused": refused.message, "hint": refused.hint}
    except Exception as error:  # noqa: BLE001 - a converter raises anything: reported in the answer
        traceback.print_exc()
        text = " ".join(str(error).split())
        kind = "" if type(error) is RuntimeError and text else f"{type(error).__name__}: "
        return {"error": f"{kind}{text[:400]}{' …' if len(text) > 400 else ''}"}


def _load(script: Path) -> Any:
    """Import a job script by its path; it may import the scripts beside it, which come after all installed packages."""
    sys.path.append(str(script.parent))
    spec = importlib.util.spec_from_file_location(f"plimsoll_job_{script.stem}", script)
    if spec is None or spec.loader is None:
        raise ImportError(f"{script}: can't be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _forbid_network(record: Path) -> None:
    """Block Python code from the network and record its attempts; native code is cut off by a network namespace, if
    available."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        host = _destination(event, arguments)
        if host:
            with record.open("a", encoding="utf-8") as file:
                file.write(f"{host}\n")
            raise OSError(errno.ENETUNREACH, "a toolchain's job has no network")

    sys.addaudithook(watch)


def _destination(event: str, arguments: tuple[Any, ...]) -> str:
    """Return the host that an audit event is about to reach, or an empty string."""
    if event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        host = arguments[0]
    elif event in {"socket.connect", "socket.sendto"} and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return ""
    name = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")
    return "" if not name or name.startswith(_LOOPBACK) else name


def _count_attempts(record: Path) -> None:
    """Record what native code tried: the kernel counts packets that found no route out of the job's own network."""
    counted = _no_routes()
    if counted:
        with record.open("a", encoding="utf-8") as file:
            file.write(f"{counted} packets of native code\n")


def _no_routes() -> int:
    heading, values = [
        line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines() if line.startswith("Ip:")
    ]
    version_6 = dict(line.split() for line in Path("/proc/self/net/snmp6").read_text().splitlines())
    return int(values[heading.index("OutNoRoutes")]) + int(version_6.get("Ip6OutNoRoutes", 0))


def _leave_with_parent(parent: int) -> None:
    """End this process when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
