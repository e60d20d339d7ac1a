"""Run a command where there is no network but a name server of ours, and learn which names it asked for.

The name server sees what native code looks up, too, which a hook in Python would not: in a network namespace of its
own, the loopback is up, `/etc/resolv.conf` names 127.0.0.1, and every query is written down and answered with "no such
name". As a script: `network_namespace.py LOG COMMAND…`, inside the namespaces.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

NOT_POSSIBLE = 77
"""The exit status where this system doesn't allow it."""
_MS_BIND = 4096
_IFF_UP, _GET_FLAGS, _SET_FLAGS = 1, 0x8913, 0x8914


def run(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], timeout: float = 300.0
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Return what came of a command without a network, and the names that it looked up.

    `folder` is the working directory, where the log is written, too. No `unshare` is in the command's PATH, so that
    what it starts stays in this namespace. Skips the test where the system doesn't allow it.
    """
    import pytest

    unshare = shutil.which("unshare") if sys.platform == "linux" else None
    if unshare is None:
        pytest.skip("there is no unshare: network namespaces are Linux's")
    log, programs = folder / "names.txt", folder / "programs"
    log.write_text("")
    programs.mkdir(exist_ok=True)
    stub = programs / "unshare"
    stub.write_text("#!/bin/sh\nexit 1\n")
    stub.chmod(0o755)
    done = subprocess.run(
        [unshare, "--map-root-user", "--net", "--mount", "--", sys.executable, "-I", __file__, log, *command],
        cwd=folder,
        env={**environment, "PATH": f"{programs}{os.pathsep}{environment.get('PATH', os.defpath)}"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode == NOT_POSSIBLE or "unshare" in done.stderr.partition("\n")[0]:
        pytest.skip(f"this system allows no network namespace of one's own: {done.stderr.strip()[-200:]}")
    return done, log.read_text().split()


def _main() -> int:
    log, command = Path(sys.argv[1]), sys.argv[2:]
    try:
        _raise_loopback()
        _use_own_name_server()
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return NOT_POSSIBLE
    threading.Thread(target=_serve, args=(server, log), daemon=True).start()
    return subprocess.run(command, check=False).returncode


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _GET_FLAGS, request))[1]
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def _use_own_name_server() -> None:
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    libc = ctypes.CDLL(None, use_errno=True)
    real = os.path.realpath("/etc/resolv.conf").encode()
    if libc.mount(file.name.encode(), real, None, _MS_BIND, None):
        raise OSError(ctypes.get_errno(), "resolv.conf can't be replaced")


def _serve(server: socket.socket, log: Path) -> None:
    while True:
        query, sender = server.recvfrom(4096)
        with log.open("a") as file:
            file.write(f"{_name(query)}\n")
        # The question again, as an answer: a response, recursion available, no such name.
        server.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:], sender)


def _name(query: bytes) -> str:
    parts, at = [], 12
    while query[at]:
        parts.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    return ".".join(parts)


if __name__ == "__main__":
    sys.exit(_main())
