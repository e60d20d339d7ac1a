"""Listen for gRPC beside HTTP, in the same event loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from plimsoll.errors import InputError
from plimsoll.serve.grpc.handler import GrpcHandler
from plimsoll.serve.grpc.service import procedures
from plimsoll.serve.pipeline import Pipeline
from plimsoll.serve.service import Service

INSTALL = "pip install 'plimsoll-line[grpc]'"


@dataclass(frozen=True)
class GrpcAddress:
    """Where to listen; with TLS where both files are given."""

    host: str = "127.0.0.1"
    port: int = 8001
    """0 lets the system choose one."""
    certificate: Path | None = None
    key: Path | None = None


class GrpcServer:
    """A server that listens. `stop` it before the service is closed."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self._server = server
        self.port = port

    async def stop(self, seconds: float) -> None:
        """Take no new calls, finish what was accepted, and after so many seconds break off the rest."""
        await self._server.stop(seconds)


async def start(service: Service, address: GrpcAddress, pipeline: Pipeline) -> GrpcServer:
    """Listen; the service must have been started in this event loop. Raises InputError where the address can't be
    had."""
    settings = service.settings
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # Else a second server would share the port in silence.
        ],
        maximum_concurrent_rpcs=settings.max_connections,
    )
    server.add_generic_rpc_handlers((GrpcHandler(service, procedures(service), pipeline),))
    port = _bind(server, address)
    await server.start()
    return GrpcServer(server, port)


def _bind(server: grpc.aio.Server, address: GrpcAddress) -> int:
    where = f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
    try:
        if address.certificate is None or address.key is None:
            return int(server.add_insecure_port(where))
        pair = (address.key.read_bytes(), address.certificate.read_bytes())
        return int(server.add_secure_port(where, grpc.ssl_server_credentials([pair])))
    except OSError as error:
        raise InputError(f"{error.filename}: can't read it: {error.strerror}") from error
    except RuntimeError as error:
        hint = (
            "Is something else listening there? Choose another port."
            if address.certificate is None
            else "Is the port free, and are the TLS files in order?"
        )
        raise InputError(f"can't listen for gRPC at {where}: {error}", hint) from error
