"""The procedures of `inference.GRPCInferenceService`, and gRPC's health check."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format

from plimsoll.errors import PlimsollError
from plimsoll.serve.access.doorkeeper import Doorkeeper, Need, Ticket
from plimsoll.serve.grpc import conversion, oip_pb2
from plimsoll.serve.grpc.call import Call, caller_of
from plimsoll.serve.grpc.status import code_of, details_of, problem_of, trailer_of
from plimsoll.serve.messages import Problem, Refused
from plimsoll.serve.oip import description, repository
from plimsoll.serve.oip.inference import infer
from plimsoll.serve.oip.models import all_served, served
from plimsoll.serve.oip.request import asked, shown
from plimsoll.serve.oip.statistics import statistics
from plimsoll.serve.service import Service

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"

_Message = TypeVar("_Message")


_Act = Callable[[Any, Call], Awaitable[Any]]


class Procedures:
    """What callers may call; each method takes a request and returns the response, or raises PlimsollError."""

    def __init__(self, service: Service, door: Doorkeeper | None) -> None:
        self._service = service
        self._door = door

    async def admit(self, call: Call, need: Need) -> Ticket:
        """Let a caller in; raises Refused."""
        return await self._door.admit(caller_of(call), need) if self._door is not None else Ticket()

    async def server_live(self, _: oip_pb2.ServerLiveRequest, __: Call) -> oip_pb2.ServerLiveResponse:
        """Whether it answers at all."""
        return oip_pb2.ServerLiveResponse(live=True)

    async def server_ready(self, _: oip_pb2.ServerReadyRequest, __: Call) -> oip_pb2.ServerReadyResponse:
        """Whether all models answer, and it isn't about to end."""
        return oip_pb2.ServerReadyResponse(ready=self._service.ready)

    async def model_ready(self, request: oip_pb2.ModelReadyRequest, _: Call) -> oip_pb2.ModelReadyResponse:
        """Whether a model answers."""
        return oip_pb2.ModelReadyResponse(ready=served(self._service, request.name, request.version).ready)

    async def server_metadata(self, _: oip_pb2.ServerMetadataRequest, __: Call) -> oip_pb2.ServerMetadataResponse:
        """What server this is."""
        return oip_pb2.ServerMetadataResponse(**description.server())

    async def model_metadata(self, request: oip_pb2.ModelMetadataRequest, _: Call) -> oip_pb2.ModelMetadataResponse:
        """What a model takes and gives."""
        return _filled(oip_pb2.ModelMetadataResponse(), description.metadata(served(self._service, request.name, request.version)))

    async def model_config(self, request: oip_pb2.ModelConfigRequest, _: Call) -> oip_pb2.ModelConfigResponse:
        """A model's configuration as Triton writes it."""
        config = description.configuration(served(self._service, request.name, request.version), self._service.settings.max_items)
        return _filled(oip_pb2.ModelConfigResponse(), {"config": config})

    async def model_statistics(self, request: oip_pb2.ModelStatisticsRequest, _: Call) -> oip_pb2.ModelStatisticsResponse:
        """What a model did, or for an empty name all of them."""
        models = [served(self._service, request.name, request.version)] if request.name else all_served(self._service)
        return _filled(oip_pb2.ModelStatisticsResponse(), statistics(models))

    async def repository_index(self, request: oip_pb2.RepositoryIndexRequest, _: Call) -> oip_pb2.RepositoryIndexResponse:
        """All models and their states."""
        return _filled(oip_pb2.RepositoryIndexResponse(), {"models": repository.index(self._service, request.ready)})

    async def repository_model_load(self, request: oip_pb2.RepositoryModelLoadRequest, _: Call) -> oip_pb2.RepositoryModelLoadResponse:
        """Load a model again."""
        await repository.load(self._service, request.model_name, dict(request.parameters))
        return oip_pb2.RepositoryModelLoadResponse()

    async def repository_model_unload(self, request: oip_pb2.RepositoryModelUnloadRequest, _: Call) -> oip_pb2.RepositoryModelUnloadResponse:
        """Unload a model."""
        await repository.unload(self._service, request.model_name)
        return oip_pb2.RepositoryModelUnloadResponse()

    async def model_infer(self, body: bytes, context: Call) -> oip_pb2.ModelInferResponse:
        """Run a model. The call's own deadline limits the wait as the parameter `timeout` does."""
        started, model, status = time.perf_counter(), "", grpc.StatusCode.INTERNAL.name
        try:
            ticket = await self.admit(context, "predict")
            request = conversion.parse(body)
            found = served(self._service, request.model_name, request.model_version)
            model = found.deployment.name
            question = conversion.read_request(request)
            ticket.settle(question.rows(self._service.settings.max_items))
            answer = await infer(found, question, asked(question.parameters, context.time_remaining()), self._service.settings.max_items)
            status = grpc.StatusCode.OK.name
            return conversion.write_answer(answer)
        except PlimsollError as error:
            status = code_of(problem_of(error)).name
            raise
        except asyncio.CancelledError:
            status = grpc.StatusCode.CANCELLED.name
            raise
        finally:
            metrics = self._service.metrics
            metrics.requests.labels(model, "grpc", status).inc()
            metrics.request_seconds.labels(model, "grpc").observe(time.perf_counter() - started)

    async def model_stream_infer(self, bodies: AsyncIterator[bytes], context: Call) -> AsyncIterator[oip_pb2.ModelStreamInferResponse]:
        """Run one request of a stream after another; one that fails is answered with its error, and the stream goes on."""
        async for body in bodies:
            try:
                yield oip_pb2.ModelStreamInferResponse(infer_response=await self.model_infer(body, context))
            except PlimsollError as error:
                told = oip_pb2.ModelInferResponse(id=conversion.identity(body))
                yield oip_pb2.ModelStreamInferResponse(error_message=details_of(problem_of(error)), infer_response=told)

    async def health(self, request: oip_pb2.HealthCheckRequest, _: Call) -> oip_pb2.HealthCheckResponse:
        """Readiness, for Kubernetes' gRPC probe. Nothing of models is told here, as no key is asked for."""
        if request.service not in ("", INFERENCE):
            raise Refused(Problem("input", f"there is no service {shown(request.service)}", f"There is {INFERENCE}.", 404))
        return oip_pb2.HealthCheckResponse(status="SERVING" if self._service.ready else "NOT_SERVING")


def handlers(service: Service, door: Doorkeeper | None) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return what a server is given. Liveness, readiness and health are told to everybody, as those who ask them have no key."""
    own = Procedures(service, door)
    open_to_all: Mapping[str, _Act] = {"ServerLive": own.server_live, "ServerReady": own.server_ready}
    guarded: Mapping[str, _Act] = {
        "ModelReady": own.model_ready,
        "ServerMetadata": own.server_metadata,
        "ModelMetadata": own.model_metadata,
        "ModelConfig": own.model_config,
        "ModelStatistics": own.model_statistics,
        "RepositoryIndex": own.repository_index,
    }
    control: Mapping[str, _Act] = {"RepositoryModelLoad": own.repository_model_load, "RepositoryModelUnload": own.repository_model_unload}
    acts = {
        **open_to_all,
        **{name: _admitted(own, act, "predict") for name, act in guarded.items()},
        **{name: _admitted(own, act, "control") for name, act in control.items()},
    }
    procedures = {name: _unary(act, getattr(oip_pb2, f"{name}Request").FromString) for name, act in acts.items()}
    procedures["ModelInfer"] = _unary(own.model_infer, None)
    procedures["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        own.model_stream_infer, response_serializer=oip_pb2.ModelStreamInferResponse.SerializeToString
    )
    health = {"Check": _unary(own.health, oip_pb2.HealthCheckRequest.FromString)}
    return (grpc.method_handlers_generic_handler(INFERENCE, procedures), grpc.method_handlers_generic_handler(HEALTH, health))


def _unary(act: _Act, read: Callable[[bytes], Any] | None) -> grpc.RpcMethodHandler:
    async def answered(message: Any, context: Call) -> Any:
        try:
            return await act(message, context)
        except PlimsollError as error:
            problem = problem_of(error)
            await context.abort(code_of(problem), details_of(problem), trailer_of(problem))

    return grpc.unary_unary_rpc_method_handler(answered, read, lambda response: response.SerializeToString())


def _admitted(own: Procedures, act: _Act, need: Need) -> _Act:
    async def acted(message: Any, context: Call) -> Any:
        await own.admit(context, need)
        return await act(message, context)

    return acted


def _filled(message: _Message, data: Mapping[str, Any]) -> _Message:
    """Fill a message with the JSON that HTTP would answer."""
    json_format.ParseDict(data, message)
    return message
