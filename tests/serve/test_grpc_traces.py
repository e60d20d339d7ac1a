"""Requests over gRPC are spans of their callers' traces."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers.asgi_servers import serve_app
from helpers.oip_service import write_mixed
from helpers.service_process import start

grpc = pytest.importorskip("grpc")
from helpers.grpc_client import INFER, GrpcClient, photo, rows  # noqa: E402
from plimsoll.serve.grpc import oip_pb2  # noqa: E402

if TYPE_CHECKING:
    pass

needs_sdk = pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry") is None, reason="OpenTelemetry is not installed"
)

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@needs_sdk
def test_a_request_is_a_span_of_its_callers_trace(client: GrpcClient) -> None:
    client.call(rows(), traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1", x_request_id="traced")
    spans = {span.name: span for span in client.spans()}
    request = spans[INFER[1:]]
    assert request.context is not None
    assert request.parent is not None
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, PARENT)
    assert request.context.trace_state.get("vendor") == "1"
    assert request.kind.name == "SERVER"
    assert dict(request.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
        "plimsoll.request_id": "traced",
        "plimsoll.model": "mixed",
        "plimsoll.pictures": 1,
    }
    for stage in ("receive", "queue", "decode", "infer", "answer"):
        parent = spans[stage].parent
        assert parent is not None
        assert parent.span_id == request.context.span_id
    assert client.line["trace_id"] == TRACE


@needs_sdk
def test_traces_are_begun_and_left_out_as_over_http(client: GrpcClient) -> None:
    client.call(rows(), traceparent="00-xyz")
    client.call(rows(), traceparent=f"00-{TRACE}-{PARENT}-00")
    client.call(b"", "/inference.GRPCInferenceService/ServerReady")
    [request] = [span for span in client.spans() if span.name == INFER[1:]]
    assert request.parent is None
    assert request.context is not None
    assert client.lines[0]["trace_id"] == f"{request.context.trace_id:032x}"
    assert client.lines[1]["trace_id"] == TRACE


@needs_sdk
@pytest.mark.parametrize(("timeout", "body", "error"), [(1, rows(), True), (0, photo(b"GIF89a"), False)])
def test_failures_of_the_service_are_marked(client: GrpcClient, timeout: int, body: bytes, error: bool) -> None:
    request = oip_pb2.ModelInferRequest.FromString(body)
    request.parameters["timeout"].int64_param = timeout
    reply = client.call(request.SerializeToString())
    [span] = [span for span in client.spans() if span.name == INFER[1:]]
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
    arguments = (
        f"mixed={model.reference}",
        "--spec",
        str(model.spec),
        "--workers",
        "1",
        "--grace",
        "0",
        "--grpc-port",
        "0",
    )
    with serve_app(collector) as url, start(*arguments, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": url}) as service:
        port = next(match[1] for line in service.log if (match := re.search(r"gRPC on port (\d+)", line)))
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            channel.unary_unary(INFER)(rows(), timeout=60, metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
        assert service.metric("plimsoll_requests_total", interface="grpc", status="OK") == 1
        assert service.stop() == 0
    [line] = [json.loads(line) for line in service.log if INFER in line]
    assert (line["status"], line["trace_id"]) == ("OK", TRACE)
    assert any(INFER[1:].encode() in body and bytes.fromhex(TRACE) in body for body in posted)
