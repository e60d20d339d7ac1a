"""The procedures of `inference.GRPCInferenceService`, and gRPC's health check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from google.protobuf import json_format

from plimsoll.serve.access.authorizer import Need
from plimsoll.serve.grpc import conversion, oip_pb2
from plimsoll.serve.grpc.call import Call
from plimsoll.serve.grpc.handler import Procedure
from plimsoll.serve.grpc.status import Outcome
from plimsoll.serve.messages import Problem, RequestError
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

    def __init__(self, service: Service) -> None:
        self._service = service

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
        return _filled(
            oip_pb2.ModelMetadataResponse(), description.metadata(served(self._service, request.name, request.version))
        )

    async def model_config(self, request: oip_pb2.ModelConfigRequest, _: Call) -> oip_pb2.ModelConfigResponse:
        """A model's configuration as Triton writes it."""
        config = description.configuration(
            served(self._service, request.name, request.version), self._service.settings.max_items
        )
        return _filled(oip_pb2.ModelConfigResponse(), {"config": config})

    async def model_statistics(
        self, request: oip_pb2.ModelStatisticsRequest, _: Call
    ) -> oip_pb2.ModelStatisticsResponse:
        """What a model did, or for an empty name all of them."""
        models = [served(self._service, request.name, request.version)] if request.name else all_served(self._service)
        return _filled(oip_pb2.ModelStatisticsResponse(), statistics(models))

    async def repository_index(
        self, request: oip_pb2.RepositoryIndexRequest, _: Call
    ) -> oip_pb2.RepositoryIndexResponse:
        """All models and their states."""
        return _filled(oip_pb2.RepositoryIndexResponse(), {"models": repository.index(self._service, request.ready)})

    async def repository_model_load(
        self, request: oip_pb2.RepositoryModelLoadRequest, _: Call
    ) -> oip_pb2.RepositoryModelLoadResponse:
        """Load a model again."""
        await repository.load(self._service, request.model_name, dict(request.parameters))
        return oip_pb2.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, request: oip_pb2.RepositoryModelUnloadRequest, _: Call
    ) -> oip_pb2.RepositoryModelUnloadResponse:
        """Unload a model."""
        await repository.unload(self._service, request.model_name)
        return oip_pb2.RepositoryModelUnloadResponse()

    async def model_infer(self, request: oip_pb2.ModelInferRequest, call: Call) -> oip_pb2.ModelInferResponse:
        """Run a model. The call's own deadline limits the wait as the parameter `timeout` does."""
        found = served(self._service, request.model_name, request.model_version)
        call.state["model"] = found.deployment.name
        question = conversion.read_request(request)
        most = self._service.settings.max_items
        call.state["pictures"] = question.rows(most)
        answer = await infer(found, question, asked(question.parameters, call.time_remaining()), most)
        call.state["milliseconds"] = answer.milliseconds
        return conversion.write_answer(answer)

    async def health(self, request: oip_pb2.HealthCheckRequest, _: Call) -> oip_pb2.HealthCheckResponse:
        """Readiness, for Kubernetes' gRPC probe. Nothing of models is told here, as no key is asked for."""
        if request.service not in ("", INFERENCE):
            raise RequestError(
                Problem("input", f"there is no service {shown(request.service)}", f"There is {INFERENCE}.", 404)
            )
        return oip_pb2.HealthCheckResponse(status="SERVING" if self._service.ready else "NOT_SERVING")


def procedures(service: Service) -> dict[str, Procedure]:
    """Return what can be called, by its path. Liveness, readiness and health are told to everybody, as those who ask
    them have no key."""
    own = Procedures(service)
    acts: Mapping[str, tuple[_Act, Need | None]] = {
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
    found = {
        f"/{INFERENCE}/{name}": Procedure(act, getattr(oip_pb2, f"{name}Request").FromString, need)
        for name, (act, need) in acts.items()
    }
    found[f"/{INFERENCE}/ModelInfer"] = Procedure(own.model_infer, conversion.parse, "predict")
    found[f"/{INFERENCE}/ModelStreamInfer"] = Procedure(own.model_infer, conversion.parse, "predict", _in_stream)
    found[f"/{HEALTH}/Check"] = Procedure(own.health, oip_pb2.HealthCheckRequest.FromString, None)
    return found


def _in_stream(
    message: bytes, response: oip_pb2.ModelInferResponse | None, outcome: Outcome
) -> oip_pb2.ModelStreamInferResponse:
    """Return what a stream answers to a request: its response, or its error beside its id."""
    if response is not None:
        return oip_pb2.ModelStreamInferResponse(infer_response=response)
    told = oip_pb2.ModelInferResponse(id=conversion.identity(message))
    return oip_pb2.ModelStreamInferResponse(error_message=outcome.details, infer_response=told)


def _filled(message: _Message, data: Mapping[str, Any]) -> _Message:
    """Fill a message with the JSON that HTTP would answer."""
    json_format.ParseDict(data, message)
    return message
