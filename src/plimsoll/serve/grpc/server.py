"""Serves `inference.GRPCInferenceService`, gRPC's health check and its reflection beside HTTP, in the same event loop:
the procedures, the right that each needs, and the server that listens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format
from pydantic import BaseModel

from plimsoll.errors import InputError
from plimsoll.serve.access.authorizer import Right
from plimsoll.serve.grpc import conversion, oip_pb2, reflection
from plimsoll.serve.grpc.handler import GrpcHandler, GrpcRequest, Outcome, Procedure
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.oip import models
from plimsoll.serve.oip.datatypes import quoted
from plimsoll.serve.oip.inference import infer
from plimsoll.serve.pipeline import Pipeline
from plimsoll.serve.service import Service

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"

_Message = TypeVar("_Message")
_Act = Callable[[Any, GrpcRequest], Awaitable[Any]]


class Procedures:
    """What callers may call; each method takes a request and returns the response, or raises PlimsollError."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def server_live(self, _: oip_pb2.ServerLiveRequest, __: GrpcRequest) -> oip_pb2.ServerLiveResponse:
        """Whether it answers at all."""
        return oip_pb2.ServerLiveResponse(live=True)

    async def server_ready(self, _: oip_pb2.ServerReadyRequest, __: GrpcRequest) -> oip_pb2.ServerReadyResponse:
        """Whether all models answer, and the service isn't about to end."""
        return oip_pb2.ServerReadyResponse(ready=self._service.ready)

    async def model_ready(self, request: oip_pb2.ModelReadyRequest, _: GrpcRequest) -> oip_pb2.ModelReadyResponse:
        """Whether a model answers."""
        return oip_pb2.ModelReadyResponse(ready=models.find_model(self._service, request.name, request.version).ready)

    async def server_metadata(
        self, _: oip_pb2.ServerMetadataRequest, __: GrpcRequest
    ) -> oip_pb2.ServerMetadataResponse:
        """What server this is."""
        return oip_pb2.ServerMetadataResponse(**models.server_metadata().model_dump())

    async def model_metadata(
        self, request: oip_pb2.ModelMetadataRequest, _: GrpcRequest
    ) -> oip_pb2.ModelMetadataResponse:
        """What a model takes and gives."""
        return _filled(
            oip_pb2.ModelMetadataResponse(),
            models.describe(models.find_model(self._service, request.name, request.version)),
        )

    async def model_config(self, request: oip_pb2.ModelConfigRequest, _: GrpcRequest) -> oip_pb2.ModelConfigResponse:
        """A model's configuration as Triton writes it."""
        config = models.configuration(
            models.find_model(self._service, request.name, request.version), self._service.settings.max_items
        )
        return _filled(oip_pb2.ModelConfigResponse(), config, "config")

    async def model_statistics(
        self, request: oip_pb2.ModelStatisticsRequest, _: GrpcRequest
    ) -> oip_pb2.ModelStatisticsResponse:
        """What a model did, or for an empty name all of them."""
        named = (
            [models.find_model(self._service, request.name, request.version)]
            if request.name
            else models.all_models(self._service)
        )
        return _filled(oip_pb2.ModelStatisticsResponse(), models.statistics(named))

    async def repository_index(
        self, request: oip_pb2.RepositoryIndexRequest, _: GrpcRequest
    ) -> oip_pb2.RepositoryIndexResponse:
        """All models and their states."""
        return _filled(oip_pb2.RepositoryIndexResponse(), models.index(self._service, ready=request.ready), "models")

    async def repository_model_load(
        self, request: oip_pb2.RepositoryModelLoadRequest, _: GrpcRequest
    ) -> oip_pb2.RepositoryModelLoadResponse:
        """Load a model again."""
        await models.load(self._service, request.model_name, request.parameters)
        return oip_pb2.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, request: oip_pb2.RepositoryModelUnloadRequest, _: GrpcRequest
    ) -> oip_pb2.RepositoryModelUnloadResponse:
        """Unload a model."""
        await models.unload(self._service, request.model_name)
        return oip_pb2.RepositoryModelUnloadResponse()

    async def model_infer(self, request: oip_pb2.ModelInferRequest, call: GrpcRequest) -> oip_pb2.ModelInferResponse:
        """Run a model. The call's own deadline limits the wait as the parameter `timeout` does."""
        named = models.choose_model(self._service, request.model_name, request.model_version)
        call.model = named.model.name
        question = conversion.read_request(request)
        limit = self._service.settings.max_items
        call.pictures = question.rows(limit)
        result = await infer(named, question, question.options(call.time_remaining()), limit)
        call.milliseconds = result.milliseconds
        return conversion.write_response(result)

    async def health(self, request: oip_pb2.HealthCheckRequest, _: GrpcRequest) -> oip_pb2.HealthCheckResponse:
        """Readiness, for Kubernetes' gRPC probe. It says nothing of models, since it needs no key."""
        if request.service not in ("", INFERENCE):
            raise RequestError(
                Problem("input", f"there is no service {quoted(request.service)}", f"There is {INFERENCE}.", 404)
            )
        return oip_pb2.HealthCheckResponse(status="SERVING" if self._service.ready else "NOT_SERVING")


def procedures(service: Service) -> dict[str, Procedure]:
    """Return what can be called, by its path. Liveness, readiness and health are open to everybody, as probes have no
    key."""
    own = Procedures(service)
    acts: Mapping[str, tuple[_Act, Right | None]] = {
        "ServerLive": (own.server_live, None),
        "ServerReady": (own.server_ready, None),
        "ModelReady": (own.model_ready, "predict"),
        "ServerMetadata": (own.server_metadata, "predict"),
        "ModelMetadata": (own.model_metadata, "predict"),
        "ModelConfig": (own.model_config, "predict"),
        "ModelStatistics": (own.model_statistics, "predict"),
        "RepositoryIndex": (own.repository_index, "predict"),
        "RepositoryModelLoad": (own.repository_model_load, "control"),
        "RepositoryModelUnload": (own.repository_model_unload, "control"),
    }
    rows = [
        _procedure(f"/{INFERENCE}/{name}", right, act=act, read=getattr(oip_pb2, f"{name}Request").FromString)
        for name, (act, right) in acts.items()
    ]
    infer = {"act": own.model_infer, "read": conversion.parse}
    health = {"act": own.health, "read": oip_pb2.HealthCheckRequest.FromString}
    rows += [
        _procedure(f"/{INFERENCE}/ModelInfer", "predict", **infer),
        _procedure(f"/{INFERENCE}/ModelStreamInfer", "predict", **infer, in_stream=_in_stream),
        _procedure(f"/{HEALTH}/Check", None, **health),
        _procedure(f"/{HEALTH}/Watch", None, **health, watched=True),
    ]
    own_reflection = reflection.Reflection()
    reflected = {"act": own_reflection.answer, "read": oip_pb2.ServerReflectionRequest.FromString}
    rows += [
        _procedure(f"/{name}/ServerReflectionInfo", "predict", **reflected, in_stream=reflection.in_stream)
        for name in reflection.SERVICES
    ]
    own_reflection.describe(rows)
    return {row.path: row for row in rows}


def _procedure(path: str, right: Right | None, **parts: Any) -> Procedure:
    return Procedure(path, "grpc", right, probe=right is None, **parts)


def _in_stream(
    message: bytes, response: oip_pb2.ModelInferResponse | None, outcome: Outcome
) -> oip_pb2.ModelStreamInferResponse:
    """Return what a stream answers to a request: its response, or its error beside its id."""
    if response is not None:
        return oip_pb2.ModelStreamInferResponse(infer_response=response)
    unanswered = oip_pb2.ModelInferResponse(id=conversion.identity(message))
    return oip_pb2.ModelStreamInferResponse(error_message=outcome.details, infer_response=unanswered)


def _filled(message: _Message, model: BaseModel, field: str | None = None) -> _Message:
    """Fill a message, or a field of it, with the JSON that HTTP would answer."""
    data = model.model_dump(mode="json")
    json_format.ParseDict(data if field is None else {field: data}, message)
    return message


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
            ("grpc.max_receive_message_length", min(settings.max_grpc_bytes, settings.max_body_bytes)),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # Else a second server would share the port in silence.
            # Clients that ping to keep a long call alive are no attackers; more often than this is.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.http2.max_ping_strikes", 0),
        ],
        maximum_concurrent_rpcs=settings.max_connections,
    )
    server.add_generic_rpc_handlers((GrpcHandler(service, procedures(service), pipeline),))
    port = _bind(server, address)
    await server.start()
    return GrpcServer(server, port)


def _certificates(address: GrpcAddress) -> Any:
    """Return what is in the files now; gRPC asks at each connection, so that they can be renewed."""
    assert address.key is not None  # noqa: S101 - they come together
    assert address.certificate is not None  # noqa: S101
    return grpc.ssl_server_certificate_configuration([(address.key.read_bytes(), address.certificate.read_bytes())])


def _bind(server: grpc.aio.Server, address: GrpcAddress) -> int:
    where = f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
    try:
        if address.certificate is None or address.key is None:
            return int(server.add_insecure_port(where))
        credentials = grpc.dynamic_ssl_server_credentials(
            _certificates(address), lambda: _certificates(address), require_client_authentication=False
        )
        return int(server.add_secure_port(where, credentials))
    except OSError as error:
        raise InputError(f"{error.filename}: can't read it: {error.strerror}") from error
    except RuntimeError as error:
        hint = (
            "Is something else listening there? Choose another port."
            if address.certificate is None
            else "Is the port free, and are the TLS files in order?"
        )
        raise InputError(f"can't listen for gRPC at {where}: {error}", hint) from error
