"""The Open Inference Protocol over gRPC, with a real service; the messages travel under the protocol's own names."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import plimsoll
from helpers.oip_service import ServedProtocols, alone, element, patient, serving, write_mixed
from helpers.service_process import children, until
from plimsoll.errors import InputError
from plimsoll.serve.access import keys
from plimsoll.serve.access.authorizer import AccessSettings, Authorizer
from plimsoll.serve.log import LogSettings
from plimsoll.serve.messages import RequestError
from plimsoll.serve.pipeline import Pipeline

grpc = pytest.importorskip("grpc")
from plimsoll.serve.grpc import oip_pb2, server  # noqa: E402
from plimsoll.serve.grpc.handler import MAX_WATCHERS, GrpcRequest, address_of  # noqa: E402
from plimsoll.serve.grpc.server import Procedures  # noqa: E402


class Stub:
    """Calls procedures by name."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)

    def __call__(
        self, procedure: str, request: Any = None, *, service: str = "inference.GRPCInferenceService", **options: Any
    ) -> Any:
        name = {"Check": "HealthCheck"}.get(procedure, procedure)
        response = getattr(oip_pb2, f"{name}Response")
        asking = self.channel.unary_unary(
            f"/{service}/{procedure}", lambda message: message.SerializeToString(), response.FromString
        )
        return asking(
            getattr(oip_pb2, f"{name}Request")() if request is None else request,
            timeout=options.pop("timeout", 60),
            **options,
        )

    def raw(self, body: bytes) -> Any:
        """Send bytes as a request for inference."""
        return self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(body, timeout=60)


@pytest.fixture(scope="module")
def oip(nsfw_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProtocols]:
    del nsfw_model_path
    with serving(
        patient(max_items=8, max_body_bytes=2_000_000),
        alone("open_nsfw"),
        write_mixed(tmp_path_factory.mktemp("mixed")),
    ) as service:
        yield service


@pytest.fixture(scope="module")
def stub(oip: ServedProtocols) -> Iterator[Stub]:
    stub = Stub(oip.grpc)
    yield stub
    stub.channel.close()


@pytest.fixture(scope="module")
def photos(example_photos: list[Path]) -> list[bytes]:
    return [photo.read_bytes() for photo in sorted(example_photos, key=lambda photo: photo.stat().st_size)[:3]]


@pytest.fixture(scope="module")
def expected(photos: list[bytes]) -> NDArray[np.float32]:
    with plimsoll.load("open_nsfw") as model:
        return np.array([list(model.predict(photo).scores.values()) for photo in photos], np.float32)  # type: ignore[attr-defined]


def pictures(photos: list[bytes], *, raw: bool = True, **fields: Any) -> Any:
    request = oip_pb2.ModelInferRequest(model_name="open_nsfw", **fields)
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[len(photos)])
    if raw:
        request.raw_input_contents.append(b"".join(map(element, photos)))
    else:
        tensor.contents.bytes_contents.extend(photos)
    return request


def mixed(**contents: Any) -> Any:
    request = oip_pb2.ModelInferRequest(model_name="mixed.tensor")
    gain = request.inputs.add(name="gain", datatype="INT64", shape=[1, 1])
    gain.contents.int64_contents.extend(contents.get("gain", [-5]))
    pixels = request.inputs.add(
        name="pixels", datatype=contents.get("datatype", "FP32"), shape=contents.get("shape", [1, 2, 2, 3])
    )
    pixels.contents.fp32_contents.extend(contents.get("pixels", [2.0] * 12))
    return request


def test_pictures_give_the_network_s_answer_whichever_way_they_are_sent(
    stub: Stub, photos: list[bytes], expected: NDArray[np.float32]
) -> None:
    for raw in (True, False):
        answer = stub("ModelInfer", pictures(photos, raw=raw, id="q7"))
        assert (answer.model_name, answer.id, len(answer.raw_output_contents)) == ("open_nsfw", "q7", 1)
        (output,) = answer.outputs
        assert (output.name, output.datatype, list(output.shape)) == ("outputs", "FP32", [3, 2])
        np.testing.assert_allclose(
            np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(3, 2), expected, atol=1e-6
        )


def test_the_bare_network_takes_typed_contents_and_gives_what_is_asked_for(stub: Stub) -> None:
    request = mixed()
    request.outputs.add(name="whole")
    request.outputs.add(name="mean").parameters["classification"].int64_param = 1
    answer = stub("ModelInfer", request)
    assert [(output.name, output.datatype) for output in answer.outputs] == [("whole", "INT64"), ("mean", "BYTES")]
    assert np.frombuffer(answer.raw_output_contents[0], "<i8").tolist() == [-4]
    assert answer.raw_output_contents[1] == element(b"-10.000000:0")


def test_a_stream_answers_each_request_and_goes_on_after_a_bad_one(
    stub: Stub, photos: list[bytes], expected: NDArray[np.float32]
) -> None:
    asking = stub.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        lambda message: message.SerializeToString(),
        oip_pb2.ModelStreamInferResponse.FromString,
    )
    requests = [
        pictures(photos[:1], id="a"),
        oip_pb2.ModelInferRequest(model_name="nobody", id="b"),
        pictures(photos[1:2], id="c"),
    ]
    answers = list(asking(iter(requests), timeout=60))
    assert [answer.infer_response.id for answer in answers] == ["a", "b", "c"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert np.frombuffer(answers[2].infer_response.raw_output_contents[0], "<f4") == pytest.approx(
        expected[1], abs=1e-6
    )


def test_the_server_and_its_models_describe_themselves(oip: ServedProtocols, stub: Stub) -> None:
    assert stub("ServerLive").live
    assert stub("ServerReady").ready
    assert "statistics" in stub("ServerMetadata").extensions
    assert stub("ModelReady", oip_pb2.ModelReadyRequest(name="open_nsfw.tensor")).ready
    metadata = stub("ModelMetadata", oip_pb2.ModelMetadataRequest(name="open_nsfw"))
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [
        ("image", "BYTES", [-1])
    ]
    config = stub("ModelConfig", oip_pb2.ModelConfigRequest(name="open_nsfw.tensor")).config
    assert (config.max_batch_size, config.input[0].data_type, list(config.input[0].dims)) == (
        8,
        oip_pb2.DataType.TYPE_FP32,
        [224, 224, 3],
    )
    assert [model.state for model in stub("RepositoryIndex").models] == ["READY"] * 4
    counted = stub("ModelStatistics", oip_pb2.ModelStatisticsRequest(name="open_nsfw")).model_stats[0]
    assert counted.inference_stats.success.count == oip.service.find("open_nsfw").statistics.success.count
    health = {"service": "grpc.health.v1.Health"}
    assert stub("Check", **health).status == oip_pb2.HealthCheckResponse.SERVING
    oip.service.draining = True
    try:
        assert stub("Check", **health).status == oip_pb2.HealthCheckResponse.NOT_SERVING
        assert not stub("ServerReady").ready
    finally:
        oip.service.draining = False


def test_loading_and_unloading(stub: Stub) -> None:
    stub("RepositoryModelUnload", oip_pb2.RepositoryModelUnloadRequest(model_name="mixed"))
    assert not stub("ModelReady", oip_pb2.ModelReadyRequest(name="mixed")).ready
    with pytest.raises(grpc.RpcError) as caught:
        stub("ModelInfer", mixed())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    stub("RepositoryModelLoad", oip_pb2.RepositoryModelLoadRequest(model_name="mixed"))
    assert stub("ModelInfer", mixed()).model_version == "2"


def with_parameter(request: Any, name: str, value: int) -> Any:
    request.parameters[name].int64_param = value
    return request


def both_ways(request: Any) -> Any:
    request.raw_input_contents.extend([b"", b""])
    return request


BAD: dict[str, tuple[Callable[[], Any], str, str]] = {
    "unknown model": (lambda: oip_pb2.ModelInferRequest(model_name="nobody"), "NOT_FOUND", "nobody"),
    "unknown version": (lambda: oip_pb2.ModelInferRequest(model_name="mixed", model_version="99"), "NOT_FOUND", "99"),
    "no inputs": (lambda: oip_pb2.ModelInferRequest(model_name="mixed"), "INVALID_ARGUMENT", "no inputs"),
    "not a picture": (lambda: pictures([b"GIF89a"]), "INVALID_ARGUMENT", "begins like a picture"),
    "too many pictures": (lambda: pictures([b""] * 9), "INVALID_ARGUMENT", "1 to 8"),
    "too few values": (lambda: mixed(pixels=[1.0]), "INVALID_ARGUMENT", "[1]"),
    "another datatype": (lambda: mixed(datatype="FP64"), "INVALID_ARGUMENT", "FP64"),
    "FP16 as values": (lambda: mixed(datatype="FP16"), "INVALID_ARGUMENT", "raw_input_contents"),
    "BF16": (lambda: mixed(datatype="BF16"), "INVALID_ARGUMENT", "BF16"),
    "negative size": (lambda: mixed(shape=[-1, 2, 2, 3]), "INVALID_ARGUMENT", "-1"),
    "bytes and values": (lambda: both_ways(mixed()), "INVALID_ARGUMENT", "both"),
    "negative timeout": (lambda: with_parameter(mixed(), "timeout", -1), "INVALID_ARGUMENT", "timeout"),
    "no time": (lambda: with_parameter(mixed(), "timeout", 1), "DEADLINE_EXCEEDED", "time"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_its_status_and_words(stub: Stub, case: str) -> None:
    make, code, words = BAD[case]
    with pytest.raises(grpc.RpcError) as caught:
        stub("ModelInfer", make())
    assert (caught.value.code().name, words in caught.value.details()) == (code, True), caught.value.details()


def test_a_call_s_deadline_limits_the_wait(oip: ServedProtocols, photos: list[bytes]) -> None:
    class Hurried(GrpcRequest):
        """Its caller gives up at once."""

        def __init__(self) -> None:
            self.model, self.pictures, self.milliseconds = "", 0, ()
            self.time_remaining = lambda: 0.0

    calling = Procedures(oip.service).model_infer(pictures(photos), Hurried())
    with pytest.raises(RequestError, match="time"):
        asyncio.run_coroutine_threadsafe(calling, oip.loop).result(60)


def test_what_a_caller_no_longer_waits_for_is_not_computed(
    oip: ServedProtocols, stub: Stub, photos: list[bytes]
) -> None:
    """The workers are stopped, so that some of the pictures still wait when it is given up."""
    model = oip.service.find("open_nsfw")
    before = model.statistics.inferences
    workers = children()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        asking = stub.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer").future(
            pictures((photos * 3)[:8]).SerializeToString()
        )
        until(lambda: model.scheduler.waiting, "some pictures to wait")
        asking.cancel()
        until(lambda: not model.scheduler.waiting, "them to be dropped")
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
    stub("ModelInfer", pictures(photos[:1]))
    assert model.scheduler.waiting == 0
    assert model.statistics.inferences - before < 8
    assert oip.service.memory.blocks.used == 0


def test_hostile_messages_are_refused(oip: ServedProtocols, stub: Stub) -> None:
    empty_input, empty_raw = b"\x2a\x00", b"\x3a\x00"
    for body in (
        b"\xff" * 100,
        b"\x0a\x05ab",
        empty_input * 900_000,
        empty_raw * 900_000,
        b"\x0a\x02\xff\xff",
        b"\x0b\x0c" * 50,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stub.raw(body)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as caught:
        stub.raw(b"\x3a\xff\xff\xff\x01" + bytes(3_000_000))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub("ModelInfer", mixed()).outputs
    assert oip.service.ready


def spellings(key: str, bearer: str, other: str) -> list[tuple[tuple[tuple[str, Any], ...], str]]:
    """Return what a call may bring beside its message, and what comes of it."""
    refused, let_in = "UNAUTHENTICATED", "OK"
    return [
        ((("authorization", f"bEARER   {key} "),), let_in),  # a scheme's name has no case (RFC 9110, 11.1)
        ((("authorization", bearer), ("authorization", bearer)), let_in),
        ((("authorization", bearer), ("x-api-key", key)), let_in),
        ((("authorization", f"Basic {key}"),), refused),
        ((("authorization", key),), refused),
        ((("authorization", f"Bearer {key}, Bearer {key}"),), refused),
        ((("authorization", bearer), ("authorization", f"Bearer {other}")), refused),
        ((("x-api-key", other), ("authorization", bearer)), refused),
        ((("x-api-key", ""), ("authorization", bearer)), refused),
        ((("x-api-key", f"{key}x"),), refused),
        ((("x-api-key", key.swapcase()),), refused),
        ((("authorization-bin", bearer.encode()),), refused),
        ((("x-api-key-bin", key.encode()),), refused),
        ((("x-api-key-bin", other.encode()), ("x-api-key", key)), let_in),  # another name, which says nothing
        ((("proxy-authorization", bearer), ("cookie", f"key={key}")), refused),
    ]


def test_keys_guard_everything_but_health(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    asking, asker = keys.issue("asker", keys.Terms(role="predict"))
    ruling, ruler = keys.issue("ruler", keys.Terms(role="admin"))
    keys.write(file, [asker, ruler])
    with serving(patient(), write_mixed(tmp_path), authorizer=Authorizer(AccessSettings(keys=file))) as service:
        stub = Stub(service.grpc)

        def code(procedure: str, request: Any, *metadata: tuple[str, Any]) -> str:
            try:
                stub(procedure, request, metadata=metadata)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        assert stub("Check", service="grpc.health.v1.Health").status == oip_pb2.HealthCheckResponse.SERVING
        assert stub("ServerReady").ready
        assert code("ModelInfer", mixed()) == "UNAUTHENTICATED"
        assert code("RepositoryIndex", None) == "UNAUTHENTICATED"
        assert code("ModelInfer", mixed(), ("authorization", "Bearer nonsense")) == "UNAUTHENTICATED"
        assert code("ModelInfer", mixed(), ("authorization", f"Bearer {asking}")) == "OK"
        assert code("ModelInfer", mixed(), ("x-api-key", asking)) == "OK"
        bearer, other = f"Bearer {asking}", keys.issue("stranger", keys.Terms(role="predict"))[0]
        for metadata, expected in spellings(asking, bearer, other):
            assert code("ModelInfer", mixed(), *metadata) == expected, metadata
        unload = oip_pb2.RepositoryModelUnloadRequest(model_name="mixed")
        assert code("RepositoryModelUnload", unload, ("x-api-key", asking)) == "PERMISSION_DENIED"
        assert code("RepositoryModelUnload", unload, ("x-api-key", ruling)) == "OK"
        stub.channel.close()


@pytest.mark.parametrize("header", ["origin", "forwarded", "x-forwarded-for", "x-real-ip", "via"])
def test_without_keys_nobody_else_controls_models(tmp_path: Path, header: str) -> None:
    """By a name or a path that is written in another way neither."""
    unload = oip_pb2.RepositoryModelUnloadRequest(model_name="mixed")
    with (
        serving(patient(), write_mixed(tmp_path), authorizer=Authorizer(AccessSettings())) as service,
        grpc.insecure_channel(service.grpc) as channel,
    ):
        path = "/inference.GRPCInferenceService/RepositoryModelUnload"
        names = ("", "/", "%0A", "%00", "%20", "?", "#", "/x", "x")
        for called, metadata, expected in (
            (path, ((header, "http://127.0.0.1"),), "PERMISSION_DENIED"),
            *((path + end, (), "UNIMPLEMENTED") for end in names[1:]),
            *(
                (other, (), "UNIMPLEMENTED")
                for other in (
                    path.lower(),
                    "/" + path,
                    path.replace("Unload", "%55nload"),
                    path.replace("/R", "%2FR"),
                    path[1:],
                )
            ),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary(called)(unload.SerializeToString(), timeout=60, metadata=metadata)
            assert raised.value.code().name == expected, called
        for name in ("mixed\n", "mixed\0", "mixed\t", "mixed ", "MIXED", "mixed/", "mixed.tensor\n", "./mixed"):
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary(path)(
                    oip_pb2.RepositoryModelUnloadRequest(model_name=name).SerializeToString(), timeout=60
                )
            assert raised.value.code().name == "NOT_FOUND", name
        assert service.service.ready
        assert service.service.models["mixed"].state == "ready"


def test_a_port_that_is_taken_is_reported(oip: ServedProtocols) -> None:
    port = int(oip.grpc.rpartition(":")[2])
    starting = server.start(oip.service, server.GrpcAddress(port=port), Pipeline(oip.service.metrics, LogSettings()))
    with pytest.raises(InputError, match="another port"):
        asyncio.run_coroutine_threadsafe(starting, oip.loop).result(60)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.1.2.3:50000", "10.1.2.3"),
        ("ipv6:%5B::1%5D:50000", "::1"),
        ("ipv6:[fe80::1]:9", "fe80::1"),
        ("unix:", ""),
    ],
)
def test_the_caller_s_address_is_read(peer: str, address: str) -> None:
    assert address_of(peer) == address


PINGS = [
    ("grpc.keepalive_time_ms", 100),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_time_between_pings_ms", 100),
]


def test_health_is_watched(tmp_path: Path) -> None:
    """By a client that pings as often as it can, which gRPC's servers end by themselves."""
    with serving(patient(), write_mixed(tmp_path)) as service, grpc.insecure_channel(service.grpc, PINGS) as channel:
        asking = channel.unary_stream("/grpc.health.v1.Health/Watch")
        states = asking(b"", timeout=60)
        read = oip_pb2.HealthCheckResponse.FromString
        assert read(next(states)).status == oip_pb2.HealthCheckResponse.SERVING
        assert service.post("/v2/repository/models/mixed/unload", b"").status_code == 200
        assert read(next(states)).status == oip_pb2.HealthCheckResponse.NOT_SERVING
        assert service.post("/v2/repository/models/mixed/load", b"").status_code == 200
        assert read(next(states)).status == oip_pb2.HealthCheckResponse.SERVING
        states.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            list(asking(oip_pb2.HealthCheckRequest(service="nothing").SerializeToString(), timeout=60))
        assert caught.value.code().name == "NOT_FOUND"


def test_watching_has_a_limit(tmp_path: Path) -> None:
    with serving(patient(), write_mixed(tmp_path)) as service, grpc.insecure_channel(service.grpc) as channel:
        asking = channel.unary_stream("/grpc.health.v1.Health/Watch")
        watching = [asking(b"", timeout=60) for _ in range(MAX_WATCHERS)]
        for states in watching:
            next(states)
        with pytest.raises(grpc.RpcError) as caught:
            next(asking(b"", timeout=60))
        assert caught.value.code().name in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
        for states in watching:
            states.cancel()
        until(lambda: _watches(asking), "room for another")


def _watches(asking: Any) -> bool:
    states = asking(b"", timeout=60)
    try:
        return bool(next(states) is not None)
    except grpc.RpcError:
        return False
    finally:
        states.cancel()
