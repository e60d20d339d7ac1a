"""Requests over gRPC have what those over HTTP have: ids, lines in the log, counts, spans, limits. With a real service and real callers."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from http_services import running
from oip_service import Speaking, element, patient, speaking, write_mixed
from plimsoll.serve.access import keys
from plimsoll.serve.access.doorkeeper import Doorkeeper
from plimsoll.serve.access.rate import Rate
from plimsoll.serve.access.settings import AccessSettings
from plimsoll.serve.log import LogSettings
from plimsoll.serve.oip import repository
from plimsoll.serve.settings import Settings
from plimsoll.serve.tracing import Tracing, TracingSettings
from running import start, until

grpc = pytest.importorskip("grpc")
from plimsoll.serve.grpc import oip_pb2  # noqa: E402

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

needs_sdk = pytest.mark.skipif(importlib.util.find_spec("opentelemetry") is None, reason="OpenTelemetry is not installed")

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
MOST = 2_000_000


@dataclass
class Reply:
    """What a caller got."""

    code: str
    body: bytes
    details: str
    trailer: dict[str, str]


@dataclass
class Place:
    """A service, and what it tells of its requests."""

    speaking: Speaking
    channel: Any
    lines: list[dict[str, Any]]
    spans: Callable[[], list[ReadableSpan]]

    def call(self, body: bytes = b"", path: str = INFER, **metadata: str) -> Reply:
        """Make a call with metadata; names' underscores are hyphens."""
        named = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        try:
            answer, call = self.channel.unary_unary(path).with_call(body, timeout=60, metadata=named)
        except grpc.RpcError as error:
            call, answer = error, b""
        return Reply(call.code().name, answer, call.details(), {one.key: one.value for one in call.trailing_metadata()})

    @property
    def line(self) -> dict[str, Any]:
        """The only line since the last look."""
        [line] = self.lines
        self.lines.clear()
        return line

    def counted(self, status: str, model: str = "") -> float:
        """How many requests there were."""
        registry = self.speaking.service.metrics.registry
        return registry.get_sample_value("plimsoll_requests_total", {"model": model, "interface": "grpc", "status": status}) or 0.0


@dataclass
class Kept:
    """Takes the lines as they are put, in place of the thread that writes them."""

    fields: list[dict[str, Any]] = field(default_factory=list)

    def put(self, fields: dict[str, Any]) -> None:
        self.fields.append(fields)


@contextmanager
def served(folder: Path, settings: Settings | None = None, door: Doorkeeper | None = None) -> Iterator[Place]:
    kept = Kept()
    tracing: Tracing | None = None
    if importlib.util.find_spec("opentelemetry") is not None:
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        exporter = InMemorySpanExporter()
        tracing = Tracing(TracingSettings(), exporter)

    def spans() -> list[ReadableSpan]:
        if tracing is None:
            return []
        tracing.flush()
        found = list(exporter.get_finished_spans())
        exporter.clear()
        return found

    with (
        speaking(settings or patient(max_body_bytes=MOST), write_mixed(folder), door=door, lines=kept, tracing=tracing) as service,
        grpc.insecure_channel(service.grpc) as channel,
    ):
        yield Place(service, channel, kept.fields, spans)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with served(tmp_path_factory.mktemp("requests")) as place:
        yield place


@pytest.fixture
def place(shared: Place) -> Place:
    shared.lines.clear()
    shared.spans()
    return shared


def rows(count: int = 1, **fields: Any) -> bytes:
    """Return a request for the bare network."""
    request = oip_pb2.ModelInferRequest(model_name="mixed.tensor", **fields)
    request.inputs.add(name="gain", datatype="INT64", shape=[count, 1]).contents.int64_contents.extend([1] * count)
    request.inputs.add(name="pixels", datatype="FP32", shape=[count, 2, 2, 3]).contents.fp32_contents.extend([2.0] * 12 * count)
    return bytes(request.SerializeToString())


def photo(data: bytes) -> bytes:
    """Return a request with a picture."""
    request = oip_pb2.ModelInferRequest(model_name="mixed", raw_input_contents=[element(data)])
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    return bytes(request.SerializeToString())


def test_a_line_says_what_one_of_http_does(place: Place) -> None:
    body = rows(2)
    reply = place.call(body, x_request_id="abc-123", authorization="Bearer secret")
    line = place.line
    assert 0 < line.pop("milliseconds") < 60_000
    assert line.pop("time").endswith("Z")
    line.pop("trace_id", None)
    assert list(line.pop("stages")) == ["queue", "decode", "infer", "answer"]
    assert line == {
        "status": "OK", "method": "gRPC", "path": INFER, "request_id": "abc-123", "bytes_in": len(body), "bytes_out": len(reply.body), "model": "mixed",
        "pictures": 2, "client": "127.0.0.1",
    }  # fmt: skip
    assert reply.trailer["x-request-id"] == "abc-123"


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "-x", "<script>", '"}', "x,y"])
def test_an_id_that_is_not_sane_is_replaced(place: Place, given: str) -> None:
    reply = place.call(rows(), x_request_id=given)
    made = place.line["request_id"]
    assert len(made) == 32
    assert int(made, 16)
    assert reply.trailer["x-request-id"] == made


def test_an_error_has_its_line_count_and_id(place: Place) -> None:
    before = place.counted("INVALID_ARGUMENT", "mixed")
    reply = place.call(photo(b"GIF89a"), x_request_id="bad-1")
    assert (reply.code, reply.trailer["x-request-id"]) == ("INVALID_ARGUMENT", "bad-1")
    line = place.line
    assert (line["status"], line["request_id"], line["model"], line["pictures"], line["bytes_out"]) == ("INVALID_ARGUMENT", "bad-1", "mixed", 1, 0)
    assert place.counted("INVALID_ARGUMENT", "mixed") == before + 1


def test_all_calls_are_counted_and_timed_under_their_status(place: Place) -> None:
    seen = {"OK": ("/inference.GRPCInferenceService/RepositoryIndex", b""), "NOT_FOUND": (INFER, b"\x0a\x04none"), "UNIMPLEMENTED": (f"{INFER}s", b"")}
    registry = place.speaking.service.metrics.registry
    labels = {"model": "", "interface": "grpc"}
    timed = registry.get_sample_value("plimsoll_request_seconds_count", labels) or 0
    for status, (path, body) in seen.items():
        before = place.counted(status)
        assert place.call(body, path).code == status
        assert place.counted(status) == before + 1
        assert (place.line["status"], place.lines) == (status, [])
    assert registry.get_sample_value("plimsoll_request_seconds_count", labels) == timed + len(seen)


def test_what_cannot_be_parsed_is_the_caller_s_fault(place: Place) -> None:
    assert place.call(b"\xff" * 9, "/inference.GRPCInferenceService/ModelReady").code == "INVALID_ARGUMENT"
    assert place.line["bytes_in"] == 9
    asking = place.channel.stream_stream(INFER)
    with pytest.raises(grpc.RpcError, match="no message"):
        list(asking(iter(()), timeout=60))
    assert place.line["status"] == "INVALID_ARGUMENT"


def test_a_mistake_of_ours_is_told_to_the_log_alone(place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(repository, "index", broken)
    reply = place.call(b"", "/inference.GRPCInferenceService/RepositoryIndex")
    assert (reply.code, "secret" in reply.details, "mistake" in reply.details) == ("INTERNAL", False, True)
    line = place.line
    assert (line["status"], line["error"]) == ("INTERNAL", "ZeroDivisionError")
    assert "a secret" in caplog.text


def test_probes_and_samples_are_quiet_but_errors_are_not(tmp_path: Path) -> None:
    log = LogSettings(sample=0, clients="network")
    with served(tmp_path, patient(log=log)) as place:
        for path in ("/grpc.health.v1.Health/Check", "/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady", INFER):
            assert place.call(rows() if path == INFER else b"", path).code == "OK"
        assert place.lines == []
        assert place.call(b"\x0a\x07nothing", "/grpc.health.v1.Health/Check").code == "NOT_FOUND"
        assert place.line["client"] == "127.0.0.0/24"
        assert {span.name for span in place.spans() if span.parent is None} <= {INFER[1:]}


def test_each_request_of_a_stream_is_told_by_itself(place: Place) -> None:
    bodies = [rows(), rows(3, model_version="99"), rows(2)]
    asking = place.channel.stream_stream(STREAM)
    answers = list(asking(iter(bodies), timeout=60, metadata=[("x-request-id", "stream-1")]))
    assert [(line["status"], line["bytes_in"], line["bytes_out"], line.get("pictures")) for line in place.lines] == [
        (status, len(body), len(answer), pictures)
        for status, body, answer, pictures in zip(("OK", "NOT_FOUND", "OK"), bodies, answers, (1, None, 2), strict=True)
    ]
    assert {(line["request_id"], line["path"]) for line in place.lines} == {("stream-1", STREAM)}
    place.lines.clear()
    unnamed = asking(iter(bodies), timeout=60)
    assert len(list(unnamed)) == 3
    assert {line["request_id"] for line in place.lines} == {dict(unnamed.trailing_metadata())["x-request-id"]}


def test_a_message_that_is_too_large_is_refused_and_told(place: Place) -> None:
    reply = place.call(b"\x3a\xff\xff\xff\x01" + bytes(MOST + 1), x_request_id="large")
    assert reply.code == "RESOURCE_EXHAUSTED"
    until(lambda: place.lines, "the line")
    line = place.line
    assert (line["status"], line["request_id"], line["bytes_in"]) == ("CANCELLED", "large", 0)
    assert place.call(rows()).code == "OK"


def test_what_is_being_received_is_limited_over_both_protocols_together(tmp_path: Path) -> None:
    with served(tmp_path, patient(max_received_bytes=1_500_000, max_body_bytes=MOST)) as place:
        received = place.speaking.service.received
        large = photo(bytes(1_000_000))
        assert place.call(large).code == "INVALID_ARGUMENT"  # it is no picture, but it may come
        host, _, port = place.speaking.http.partition(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + bytes(800_000))
            until(lambda: received.bytes == 800_000, "the body to come")
            place.lines.clear()
            reply = place.call(large)
            assert (reply.code, reply.trailer["grpc-retry-pushback-ms"]) == ("RESOURCE_EXHAUSTED", "1000")
            line = place.line
            assert (line["status"], line["bytes_in"]) == ("RESOURCE_EXHAUSTED", len(large))
            asking = place.channel.stream_stream(STREAM)
            [answer] = asking(iter([large]), timeout=60)
            assert "too much is being received" in oip_pb2.ModelStreamInferResponse.FromString(answer).error_message
            assert place.call(rows()).code == "OK"
        until(lambda: received.bytes == 0, "the caller to be gone")
        assert place.call(large).code == "INVALID_ARGUMENT"


def workers() -> set[int]:
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True).stdout
    return {int(line.split()[0]) for line in listed.splitlines() if "plimsoll.serve.worker" in line}


def test_a_message_counts_until_it_is_answered_or_given_up(tmp_path: Path) -> None:
    """While the worker stands still, what it was asked over gRPC leaves no room for a body over HTTP."""
    others = workers()
    with served(tmp_path, patient(max_received_bytes=1_500_000, max_body_bytes=MOST)) as place:
        received = place.speaking.service.received
        large = photo(bytes(1_000_000))
        (worker,) = workers() - others
        os.kill(worker, signal.SIGSTOP)
        try:
            asking = place.channel.unary_unary(INFER).future(large, metadata=[("x-request-id", "given-up")])
            until(lambda: received.bytes == len(large), "the message to come")
            assert place.speaking.post("/v1/predict", bytes(1_000_000)).status_code == 503
            asking.cancel()
            until(lambda: place.lines, "the line")
            line = place.line
            assert (line["status"], line["gone"], line["request_id"], line["pictures"]) == ("CANCELLED", True, "given-up", 1)
            with pytest.raises(grpc.RpcError):
                place.channel.unary_unary(INFER)(large, timeout=0.3)
            until(lambda: place.lines, "the line")
            assert place.line["status"] == "DEADLINE_EXCEEDED"
            assert received.bytes == 0
        finally:
            os.kill(worker, signal.SIGCONT)
        assert place.call(rows()).code == "OK"


def test_a_message_that_never_comes_is_not_waited_for(tmp_path: Path) -> None:
    leave = threading.Event()

    def never() -> Iterator[bytes]:
        leave.wait(60)
        yield from ()

    with served(tmp_path, Settings(body_seconds=0.5)) as place:
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            list(place.channel.stream_stream(INFER)(never(), timeout=60))
        leave.set()
        assert (caught.value.code().name, "0.5 s" in caught.value.details()) == ("DEADLINE_EXCEEDED", True)
        assert time.monotonic() - began < 30
        assert place.line["status"] == "DEADLINE_EXCEEDED"
        assert place.call(rows()).code == "OK"


def test_strangers_are_refused_before_their_messages_are_read(tmp_path: Path) -> None:
    token, asker = keys.issue("asker", keys.Terms(role="predict"))
    keys.write(tmp_path / "keys.toml", [asker])
    with served(tmp_path, door=Doorkeeper(AccessSettings(keys=tmp_path / "keys.toml"))) as place:
        refused = place.call(rows())
        line = place.line
        assert (refused.code, line["status"], line["bytes_in"], "key" in line) == ("UNAUTHENTICATED", "UNAUTHENTICATED", 0, False)
        with pytest.raises(grpc.RpcError) as caught:
            list(place.channel.stream_stream(STREAM)(iter([rows()]), timeout=60))
        assert (caught.value.code().name, place.line["status"]) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        assert place.counted("UNAUTHENTICATED") == 2
        assert place.spans() == []
        assert place.call(rows(), x_api_key=token).code == "OK"
        assert place.line["key"] == "asker"
        asking = place.channel.stream_stream(STREAM)
        assert len(list(asking(iter([rows()] * 2), timeout=60, metadata=[("x-api-key", token)]))) == 2
        assert [line["key"] for line in place.lines] == ["asker"] * 2
        assert token not in json.dumps(place.lines)


def test_each_request_of_a_stream_counts_for_its_key_s_rate_once(tmp_path: Path) -> None:
    token, asker = keys.issue("asker", keys.Terms(rate=Rate.parse("2/h"), burst=2))
    keys.write(tmp_path / "keys.toml", [asker])
    with served(tmp_path, door=Doorkeeper(AccessSettings(keys=tmp_path / "keys.toml"))) as place:
        list(place.channel.stream_stream(STREAM)(iter([rows()] * 3), timeout=60, metadata=[("x-api-key", token)]))
        assert [line["status"] for line in place.lines] == ["OK", "OK", "RESOURCE_EXHAUSTED"]
        assert int(place.call(rows(), x_api_key=token).trailer["grpc-retry-pushback-ms"]) > 1000


@needs_sdk
def test_a_request_is_a_span_of_its_callers_trace(place: Place) -> None:
    place.call(rows(), traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1", x_request_id="traced")
    spans = {span.name: span for span in place.spans()}
    request = spans[INFER[1:]]
    assert request.context is not None
    assert request.parent is not None
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, PARENT)
    assert request.context.trace_state.get("vendor") == "1"
    assert request.kind.name == "SERVER"
    assert dict(request.attributes or {}) == {
        "rpc.system": "grpc", "rpc.service": "inference.GRPCInferenceService", "rpc.method": "ModelInfer", "rpc.grpc.status_code": 0,
        "plimsoll.request_id": "traced", "plimsoll.model": "mixed", "plimsoll.pictures": 1,
    }  # fmt: skip
    for stage in ("receive", "queue", "decode", "infer", "answer"):
        parent = spans[stage].parent
        assert parent is not None
        assert parent.span_id == request.context.span_id
    assert place.line["trace_id"] == TRACE


@needs_sdk
def test_traces_are_begun_and_left_out_as_over_http(place: Place) -> None:
    place.call(rows(), traceparent="00-xyz")
    place.call(rows(), traceparent=f"00-{TRACE}-{PARENT}-00")
    place.call(b"", "/inference.GRPCInferenceService/ServerReady")
    [request] = [span for span in place.spans() if span.name == INFER[1:]]
    assert request.parent is None
    assert request.context is not None
    assert place.lines[0]["trace_id"] == f"{request.context.trace_id:032x}"
    assert place.lines[1]["trace_id"] == TRACE


@needs_sdk
@pytest.mark.parametrize(("timeout", "body", "error"), [(1, rows(), True), (0, photo(b"GIF89a"), False)])
def test_failures_of_the_service_are_marked(place: Place, timeout: int, body: bytes, error: bool) -> None:
    request = oip_pb2.ModelInferRequest.FromString(body)
    request.parameters["timeout"].int64_param = timeout
    reply = place.call(request.SerializeToString())
    [span] = [one for one in place.spans() if one.name == INFER[1:]]
    assert (span.attributes or {})["rpc.grpc.status_code"] == getattr(grpc.StatusCode, reply.code).value[0]
    assert (span.status.status_code.name == "ERROR") is error


@needs_sdk
def test_the_command_hands_its_log_and_its_traces_to_grpc(tmp_path: Path) -> None:
    posted: list[bytes] = []

    async def collector(_: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            posted.append(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    model = write_mixed(tmp_path)
    arguments = (f"mixed={model.reference}", "--spec", str(model.spec), "--workers", "1", "--grace", "0", "--grpc-port", "0")
    with running(collector) as url, start(*arguments, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": url}) as service:
        port = next(found[1] for line in service.log if (found := re.search(r"gRPC on port (\d+)", line)))
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            channel.unary_unary(INFER)(rows(), timeout=60, metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
        assert service.metric("plimsoll_requests_total", interface="grpc", status="OK") == 1
        assert service.stop() == 0
    [line] = [json.loads(line) for line in service.log if INFER in line]
    assert (line["status"], line["trace_id"]) == ("OK", TRACE)
    assert any(INFER[1:].encode() in body and bytes.fromhex(TRACE) in body for body in posted)
