"""Where the service listens: `Address`, its sockets, its TLS certificate, and how uvicorn answers there."""

from __future__ import annotations

import errno
import logging
import re
import socket
import ssl
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from plimsoll.errors import InputError
from plimsoll.serve.http import sockets
from plimsoll.serve.http.protocol import limited
from plimsoll.serve.settings import Settings
from plimsoll.system import files

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

_log = logging.getLogger("plimsoll.serve")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")
_KEEP_ALIVE_S = 75
_BACKLOG = 2048
_MAX_PEM_BYTES = 4 * 1024 * 1024
_OTHER_DESCRIPTORS = 256
"""Open files beside connections: workers' pipes, shared memory, the bundle's files."""


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    """PEM file of the certificate and those between it and the root; it may hold the key too."""
    key: Path | None = None
    grpc_port: int | None = None
    """Speak the Open Inference Protocol over gRPC on this port; None for not at all."""
    unix_socket: Path | None = None
    """Listen here in place of host and port."""
    root_path: str = ""
    """The prefix below which a proxy shows the service: `/vision`."""

    def __post_init__(self) -> None:
        """Raise InputError for a prefix that is none."""
        if self.root_path and not _PREFIX.fullmatch(self.root_path):
            raise InputError(
                f"--root-path {self.root_path!r}: expected a path such as /vision",
                "It begins with a slash, and has letters, digits and ._~- between slashes.",
            )

    @property
    def key_file(self) -> Path | None:
        """The file that holds the private key: the certificate's own where no other is named."""
        return self.key or self.certificate

    def url(self, sockets: Sequence[socket.socket]) -> str:
        """Return where the service is reached that listens on these sockets."""
        if self.unix_socket is not None:
            return f"unix:{self.unix_socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{sockets[0].getsockname()[1]}"


def open_sockets(address: Address) -> list[socket.socket]:
    """Return sockets that are bound to the address, all with one port; raises InputError where that can't be had."""
    if address.unix_socket is not None:
        return [_unix_socket(address.unix_socket)]
    try:
        addresses = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _cannot_listen(address, error) from error
    sockets: list[socket.socket] = []
    failures: list[OSError] = []
    for family, _, _, _, bound_to in dict.fromkeys(addresses):
        port = sockets[0].getsockname()[1] if sockets else address.port
        both = family == socket.AF_INET6 and address.host == "::" and socket.has_dualstack_ipv6()
        try:
            opened = socket.create_server(
                (str(bound_to[0]), port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
            )
        except OSError as error:
            failures.append(error)
        else:
            opened.setblocking(False)
            sockets.append(opened)
    missing = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # a name may have addresses that this machine hasn't
    severe = [error for error in failures if not sockets or error.errno not in missing]
    if severe:
        close_sockets(sockets)
        raise _cannot_listen(address, severe[0]) from severe[0]
    return sockets


def close_sockets(sockets: Sequence[socket.socket]) -> None:
    """Close them all."""
    for opened in sockets:
        opened.close()


class SharedSockets:
    """The sockets of several processes that listen at one address.

    On Linux each process has its own (SO_REUSEPORT), among which the kernel divides new connections evenly; elsewhere,
    and for a Unix socket, all wait at the same ones.
    """

    def __init__(self, sockets: Sequence[socket.socket], *, reuse_port: bool | None = None) -> None:
        """`sockets`: those that `open_sockets` opened, to whom nobody else listens."""
        inet = all(opened.family in (socket.AF_INET, socket.AF_INET6) for opened in sockets)
        self._own = inet and (sys.platform == "linux" if reuse_port is None else reuse_port)
        self._shared = [] if self._own else list(sockets)
        self._names = [(opened.family, opened.getsockname()[:2], _takes_ipv4(opened)) for opened in sockets if inet]
        if self._own:
            close_sockets(sockets)

    def open(self) -> list[socket.socket]:
        """Return the sockets for another process; raises OSError."""
        if not self._own:
            return [opened.dup() for opened in self._shared]
        sockets = []
        try:
            for family, name, both in self._names:
                sockets.append(
                    socket.create_server(name, family=family, backlog=_BACKLOG, reuse_port=True, dualstack_ipv6=both)
                )
        except OSError:
            close_sockets(sockets)
            raise
        return sockets

    def close(self) -> None:
        """Close what it has itself."""
        close_sockets(self._shared)


def _takes_ipv4(opened: socket.socket) -> bool:
    ipv6 = opened.family == socket.AF_INET6
    return ipv6 and not opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _cannot_listen(address: Address, error: OSError) -> InputError:
    return InputError(f"can't listen on {address.host} port {address.port}: {error.strerror or error}", _hint(error))


def _hint(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "Something else listens there. Stop it, or choose another port with --port; 0 picks a free one."
    if error.errno in (errno.EACCES, errno.EPERM):
        return "Ports below 1024 need rights that this user doesn't have: choose another with --port."
    return "--host is an address or a name of this machine; 0.0.0.0 or :: listens on all."


def _unix_socket(path: Path) -> socket.socket:
    """Return a socket in the file system, which callers of the same user and group may use."""
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise InputError(f"{path}: is there already, and is not a socket", "Choose another path.")
            with socket.socket(socket.AF_UNIX) as other:
                if other.connect_ex(str(path)) == 0:
                    raise InputError(f"{path}: another service listens there", "Stop it, or choose another path.")
            path.unlink()
        opened = socket.socket(socket.AF_UNIX)
        opened.bind(str(path))
        path.chmod(0o660)
        opened.listen(_BACKLOG)
        opened.setblocking(False)
    except OSError as error:
        raise InputError(f"{path}: can't listen there: {error.strerror or error}") from error
    return opened


class Certificate:
    """The TLS certificate of a service, which can be read anew; connections that are open keep the old one."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.context = self._read(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))

    def reload(self) -> None:
        """Read the files again; where they are no pair, says so in the log and keeps what was read before."""
        try:
            self._read(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
            self._read(self.context)
        except InputError as error:
            _log.error("the certificate stays as it was: %s", error)
        else:
            _log.info("%s: read again", self._address.certificate)

    def _read(self, context: ssl.SSLContext) -> ssl.SSLContext:
        certificate, key = self._address.certificate, self._address.key_file
        assert certificate is not None  # noqa: S101 - made only where there is one
        assert key is not None  # noqa: S101
        for file in (certificate, key):
            try:
                files.read_bytes(file, _MAX_PEM_BYTES, regular=True)
            except OSError as error:
                reason = "no such file" if error.errno == errno.ENOENT else f"can't read it: {error.strerror}"
                raise InputError(
                    f"{file}: {reason}", "TLS needs a certificate and its private key, as PEM files."
                ) from error
        try:
            context.load_cert_chain(certificate, key, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise InputError(
                f"{certificate} and {key} are not a certificate and its private key: {error}",
                "Both are PEM files; the key is not encrypted. One file may hold both.",
            ) from error
        return context


def certificate_of(address: Address) -> Certificate | None:
    """Return the certificate of an address, None where it has none; raises InputError for half of a pair."""
    if address.certificate is None:
        if address.key is not None:
            raise InputError("TLS needs both a certificate and its private key", "Give both: --certificate and --key.")
        return None
    return Certificate(address)


def room_for_connections(settings: Settings) -> Settings:
    """Have as many open files as the connections need; where the system allows fewer, return settings with as many
    connections as fit, so that callers beyond are refused in words and not dropped."""
    if resource is None:
        return settings
    needed = settings.max_connections + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed:
        allowed = needed if hard == unlimited else min(hard, needed)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
    if soft == unlimited or soft >= needed:
        return settings
    fitting = max(16, soft - _OTHER_DESCRIPTORS)
    _log.warning(
        "this process may open %d files: at most %d connections, not %d (raise `ulimit -n`)",
        soft,
        fitting,
        settings.max_connections,
    )
    return settings.model_copy(update={"max_connections": min(fitting, settings.max_connections)})


def uvicorn_config(
    app: Any, settings: Settings, address: Address, context: ssl.SSLContext | None = None
) -> uvicorn.Config:
    """Return how uvicorn serves the application: our protocol with its limits, and nothing that we don't use."""
    config = uvicorn.Config(
        app,
        host=address.host,
        port=address.port,
        http=limited(settings),
        interface="asgi3",
        ws="websockets-sansio" if sockets.available() else "none",
        ws_max_size=settings.live.max_frame_bytes,
        ws_per_message_deflate=False,  # pictures don't become smaller
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application reads them
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.drain_timeout),
    )
    config.load()
    config.ssl = context
    return config


class ServiceServer(uvicorn.Server):
    """Uvicorn, with signals left to the service."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to who runs it."""
        yield
