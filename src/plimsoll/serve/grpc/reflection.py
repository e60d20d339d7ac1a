"""Server reflection: tells grpcurl and its like what can be called, and with which messages.

The messages of `oip_pb2` are described under the names that the protocol's authors gave them, one file for each
package. https://grpc.io/docs/guides/reflection/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from google.protobuf import descriptor_pb2

from plimsoll.serve.grpc import oip_pb2
from plimsoll.serve.grpc.handler import GrpcRequest, Outcome, Procedure

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_OWN = f".{oip_pb2.DESCRIPTOR.package}."
_FILES = {
    "inference": "grpc_service.proto",
    "grpc.health.v1": "grpc/health/v1/health.proto",
    "grpc.reflection.v1": "grpc/reflection/v1/reflection.proto",
    "grpc.reflection.v1alpha": "grpc/reflection/v1alpha/reflection.proto",
}
"""What the authors call the file of each package."""
_MESSAGES = {
    "ModelStreamInfer": ("ModelInferRequest", "ModelStreamInferResponse"),
    "Check": ("HealthCheckRequest", "HealthCheckResponse"),
    "Watch": ("HealthCheckRequest", "HealthCheckResponse"),
    "ServerReflectionInfo": ("ServerReflectionRequest", "ServerReflectionResponse"),
}
"""What a procedure takes and gives, where that isn't called as the procedure is."""
_NOT_FOUND = 5


class Reflection:
    """Answers what the procedures are that were described to it."""

    def __init__(self) -> None:
        self._services: list[str] = []
        self._files: Mapping[str, bytes] = {}
        self._of_symbol: Mapping[str, str] = {}

    def describe(self, procedures: Iterable[Procedure]) -> None:
        """Know these procedures from now on."""
        services: dict[str, list[Procedure]] = {}
        for procedure in procedures:
            services.setdefault(procedure.path.split("/")[1], []).append(procedure)
        self._services = sorted(services)
        described = [_file(service, rows) for service, rows in services.items()]
        self._files = {file.name: file.SerializeToString() for file in described}
        self._of_symbol = {
            f"{file.package}.{part.name}": file.name
            for file in described
            for part in (*file.service, *file.message_type, *file.enum_type)
        }

    async def answer(
        self, request: oip_pb2.ServerReflectionRequest, _: GrpcRequest
    ) -> oip_pb2.ServerReflectionResponse:
        """Answer a question; what there isn't is an error inside the answer."""
        response = oip_pb2.ServerReflectionResponse(valid_host=request.host, original_request=request)
        question = request.WhichOneof("message_request")
        if question == "list_services":
            named = [oip_pb2.ServiceResponse(name=name) for name in self._services]
            response.list_services_response.CopyFrom(oip_pb2.ListServiceResponse(service=named))
            return response
        name = request.file_by_filename
        if question == "file_containing_symbol":
            name = self._file_of(request.file_containing_symbol)
        if (file := self._files.get(name)) is None:
            return _refuse(response, _NOT_FOUND, "there is no such file, symbol or extension")
        response.file_descriptor_response.file_descriptor_proto.append(file)
        return response

    def _file_of(self, symbol: str) -> str:
        """Return the file that has a symbol: a service, a message, or what is inside of one."""
        parts = symbol[:500].lstrip(".").split(".")
        outer = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((self._of_symbol[name] for name in outer if name in self._of_symbol), "")


def in_stream(
    message: bytes, response: oip_pb2.ServerReflectionResponse | None, outcome: Outcome
) -> oip_pb2.ServerReflectionResponse:
    """Return what the stream answers to a question."""
    del message
    if response is not None:
        return response
    return _refuse(oip_pb2.ServerReflectionResponse(), int(outcome.code.value[0]), outcome.details)


def _refuse(response: oip_pb2.ServerReflectionResponse, code: int, reason: str) -> oip_pb2.ServerReflectionResponse:
    response.error_response.error_code = code
    response.error_response.error_message = reason
    return response


def _file(service: str, procedures: Iterable[Procedure]) -> descriptor_pb2.FileDescriptorProto:
    """Return the description of a service and of the messages that it needs."""
    package, _, name = service.rpartition(".")
    own = descriptor_pb2.FileDescriptorProto()
    oip_pb2.DESCRIPTOR.CopyToProto(own)
    types = {part.name: part for part in (*own.message_type, *own.enum_type)}
    file = descriptor_pb2.FileDescriptorProto(name=_FILES[package], package=package, syntax="proto3")
    described = file.service.add(name=name)
    needed: dict[str, None] = {}
    for procedure in procedures:
        method = procedure.path.rpartition("/")[2]
        takes, gives = _MESSAGES.get(method, (f"{method}Request", f"{method}Response"))
        described.method.add(
            name=method,
            input_type=f".{package}.{takes}",
            output_type=f".{package}.{gives}",
            client_streaming=procedure.in_stream is not None,
            server_streaming=procedure.in_stream is not None or procedure.watched,
        )
        for message in (takes, gives):
            _need(message, types, needed)
    for part in map(types.__getitem__, needed):
        if isinstance(part, descriptor_pb2.EnumDescriptorProto):
            file.enum_type.append(part)
        else:
            file.message_type.append(_renamed(part, package))
    return file


_Type: TypeAlias = descriptor_pb2.DescriptorProto | descriptor_pb2.EnumDescriptorProto


def _need(name: str, types: Mapping[str, _Type], needed: dict[str, None]) -> None:
    """Note a type, and those that its fields are of."""
    if name in needed:
        return
    needed[name] = None
    for field in _fields(types[name]):
        if field.type_name:
            _need(field.type_name.removeprefix(_OWN).partition(".")[0], types, needed)


def _renamed(message: descriptor_pb2.DescriptorProto, package: str) -> descriptor_pb2.DescriptorProto:
    """Return a message whose fields' types are in another package."""
    renamed = descriptor_pb2.DescriptorProto()
    renamed.CopyFrom(message)
    for field in _fields(renamed):
        if field.type_name:
            field.type_name = field.type_name.replace(_OWN, f".{package}.")
    return renamed


def _fields(part: _Type) -> Iterable[descriptor_pb2.FieldDescriptorProto]:
    """Yield the fields of a message, and of those inside of it."""
    if isinstance(part, descriptor_pb2.DescriptorProto):
        yield from part.field
        for inner in part.nested_type:
            yield from _fields(inner)
