"""Servers on this machine that hand out pictures, well or badly; and the way there that no setting opens."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from plimsoll.serve.http.urls import Network

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class ServerRecord:
    """What a server received."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    """For TLS: the names that were asked for (SNI)."""


@asynccontextmanager
async def serve_pictures(answer: bytes | Handler, secure: ssl.SSLContext | None = None) -> AsyncIterator[ServerRecord]:
    """Answer every request with the same bytes, or as a handler does, until the block ends."""
    record = ServerRecord()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            record.heads.append(head)
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(head, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    if secure is not None:
        secure.sni_callback = lambda _object, name, _context: record.names.append(name)
    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=secure)
    record.port = server.sockets[0].getsockname()[1]
    try:
        yield record
    finally:
        server.close()


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return an HTTP answer."""
    lines = [f"HTTP/1.1 {status}", *(headers or (f"Content-Length: {len(body)}",)), "", ""]
    return "\r\n".join(lines).encode() + body


def local_network(trust: ssl.SSLContext | None = None, addresses: Sequence[str] = ("127.0.0.1",)) -> Network:
    """Return the way to this machine: every name leads to `addresses`, and they may be record."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        del host, port
        return addresses

    return Network(
        resolve,
        lambda address: address in ipaddress.ip_network("127.0.0.0/8"),
        lambda: trust or ssl.create_default_context(),
    )


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a certificate for a name with OpenSSL; return a server's context, and that of a client that trusts it."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={name}",
    ]
    subprocess.run(
        [*command, "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))
