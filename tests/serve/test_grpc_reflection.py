"""What grpcurl does: it learns from the service itself what can be called, and with which messages, and calls it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from helpers.oip_service import ServedProtocols, patient, serving, write_mixed

grpc = pytest.importorskip("grpc")
INFERENCE = "inference.GRPCInferenceService"
NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProtocols]:
    with serving(patient(), write_mixed(tmp_path_factory.mktemp("mixed"))) as running:
        yield running


def reflection_messages() -> tuple[Any, Any]:
    """Return the classes of reflection's messages, as its authors define them: not ours."""
    text, number, message = 9, 5, 11
    file = descriptor_pb2.FileDescriptorProto(name="reflection.proto", package="r", syntax="proto3")

    def add(name: str, *fields: tuple[str, int, int, str, bool]) -> None:
        described = file.message_type.add(name=name)
        for field, at, kind, of, repeated in fields:
            described.field.add(name=field, number=at, type=kind, type_name=of or None, label=3 if repeated else 1)

    add("Request", ("filename", 3, text, "", False), ("symbol", 4, text, "", False), ("services", 7, text, "", False))
    add("Files", ("file", 1, 12, "", True))
    add("Service", ("name", 1, text, "", False))
    add("Services", ("service", 1, message, ".r.Service", True))
    add("Error", ("code", 1, number, "", False), ("message", 2, text, "", False))
    add(
        "Response",
        ("files", 4, message, ".r.Files", False),
        ("services", 6, message, ".r.Services", False),
        ("error", 7, message, ".r.Error", False),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    named = (pool.FindMessageTypeByName(f"r.{name}") for name in ("Request", "Response"))
    request, response = (message_factory.GetMessageClass(descriptor) for descriptor in named)
    return request, response


REQUEST, RESPONSE = reflection_messages()


def questions(channel: Any, reflection: str, *requests: Any) -> list[Any]:
    call = channel.stream_stream(f"/{reflection}/ServerReflectionInfo", REQUEST.SerializeToString, RESPONSE.FromString)
    return list(call(iter(requests), timeout=60))


@pytest.mark.parametrize("reflection", NAMES)
def test_a_client_that_knows_nothing_calls_the_model(service: ServedProtocols, reflection: str) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        (listed, described) = questions(channel, reflection, REQUEST(services="*"), REQUEST(symbol=INFERENCE))
        names = [entry.name for entry in listed.services.service]
        assert names == sorted([INFERENCE, "grpc.health.v1.Health", *NAMES])
        pool = descriptor_pool.DescriptorPool()
        for file in described.files.file:
            pool.AddSerializedFile(file)
        method = pool.FindServiceByName(INFERENCE).FindMethodByName("ModelInfer")
        takes, gives = (message_factory.GetMessageClass(part) for part in (method.input_type, method.output_type))
        pixels = np.arange(12, dtype=np.float32)
        fp32 = {"fp32_contents": pixels.tolist()}
        request = json_format.ParseDict(
            {
                "model_name": "mixed.tensor",
                "inputs": [
                    {"name": "pixels", "datatype": "FP32", "shape": [1, 2, 2, 3], "contents": fp32},
                    {"name": "gain", "datatype": "INT64", "shape": [1, 1], "contents": {"int64_contents": [1]}},
                ],
                "outputs": [{"name": "mean"}],
            },
            takes(),
        )  # fmt: skip
        call = channel.unary_unary(f"/{INFERENCE}/ModelInfer", takes.SerializeToString, gives.FromString)
        response = call(request, timeout=60)
    assert response.model_name == "mixed.tensor"
    assert np.frombuffer(response.raw_output_contents[0], np.float32)[0] == pixels.mean()


def test_every_service_and_each_of_its_messages_is_described(service: ServedProtocols) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        (listed,) = questions(channel, NAMES[0], REQUEST(services=""))
        for entry in listed.services.service:
            (described,) = questions(channel, NAMES[0], REQUEST(symbol=entry.name))
            pool = descriptor_pool.DescriptorPool()
            file = descriptor_pb2.FileDescriptorProto.FromString(described.files.file[0])
            pool.Add(file)
            methods = pool.FindServiceByName(entry.name).methods
            assert methods
            (again,) = questions(channel, NAMES[0], REQUEST(filename=file.name))
            assert again.files == described.files
            for message in (part for method in methods for part in (method.input_type, method.output_type)):
                (of_message,) = questions(channel, NAMES[0], REQUEST(symbol=message.full_name))
                assert of_message.files == described.files


@pytest.mark.parametrize("question", [{"symbol": "no.such.Thing"}, {"filename": "/etc/passwd"}, {}])
def test_what_there_is_not_is_said_in_the_stream(service: ServedProtocols, question: dict[str, str]) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        refused, listed = questions(channel, NAMES[0], REQUEST(**question), REQUEST(services="*"))
    assert refused.error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert listed.services.service
