"""Traces, with OpenTelemetry's own SDK and its exporter that keeps spans in memory."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from helpers.asgi_servers import endpoint, http_app
from plimsoll.errors import BackendMissingError, InputError
from plimsoll.serve.http.endpoints import context_of
from plimsoll.serve.request import Operation, RequestContext
from plimsoll.serve.tracing import Tracing, TracingSettings, is_enabled

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

needs_sdk = pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry") is None, reason="OpenTelemetry is not installed"
)

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def spans_of(
    pictures: Sequence[Mapping[str, float]] = (),
    headers: Sequence[tuple[bytes, bytes]] = (),
    path: str = "/v1/predict",
    status: int = 200,
    **settings: Any,
) -> tuple[list[ReadableSpan], RequestContext]:
    """Send a request through; return the spans that were exported, and the request's context."""
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracing = Tracing(TracingSettings(**settings), exporter)
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"x-request-id", b"abc"), *headers],
    }

    async def handler(request: Request) -> Response:
        await request.body()
        await asyncio.sleep(0.02)
        context = context_of(request)
        context.model, context.pictures, context.milliseconds = "open_nsfw", len(pictures), pictures
        if status == 0:
            raise ZeroDivisionError
        return Response(status_code=status)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x"}

    async def send(message: Any) -> None:
        pass

    operation = Operation(path, "native", None, probe=path == "/readyz")
    app = http_app([endpoint(operation, handler, "POST")], tracing=tracing)

    async def run() -> None:
        await app(scope, receive, send)
        tracing.flush()
        await tracing.close()

    asyncio.run(run())
    return list(exporter.get_finished_spans()), scope["state"]["context"]


def named(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans}


@needs_sdk
def test_a_request_is_a_span_with_its_stages_as_children() -> None:
    spans, context = spans_of([{"queue": 1.0, "decode": 2.0, "infer": 4.0, "answer": 0.5}])
    by_name = named(spans)
    assert set(by_name) == {"POST /v1/predict", "receive", "queue", "decode", "infer", "answer"}
    request = by_name["POST /v1/predict"]
    assert request.parent is None
    assert request.context is not None
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "url.path": "/v1/predict",
        "http.route": "/v1/predict",
        "plimsoll.request_id": "abc",
        "plimsoll.model": "open_nsfw",
        "plimsoll.pictures": 1,
        "http.response.status_code": 200,
    }
    assert context.trace_id == f"{request.context.trace_id:032x}"
    lengths = {}
    for name in ("queue", "decode", "infer", "answer"):
        span = by_name[name]
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert span.start_time is not None
        assert span.end_time is not None
        assert request.start_time is not None
        assert request.end_time is not None
        assert request.start_time <= span.start_time <= span.end_time <= request.end_time
        lengths[name] = (span.end_time - span.start_time) / 1e6
    assert lengths == pytest.approx({"queue": 1.0, "decode": 2.0, "infer": 4.0, "answer": 0.5})
    assert by_name["queue"].end_time == by_name["decode"].start_time
    assert by_name["infer"].end_time == by_name["answer"].start_time


@needs_sdk
def test_several_pictures_have_a_span_each_up_to_a_limit() -> None:
    spans, _ = spans_of([{"queue": 1.0, "infer": 2.0}, {"queue": 5.0, "infer": 2.0}])
    pictures = [span for span in spans if span.name == "picture"]
    assert [round(((span.end_time or 0) - (span.start_time or 0)) / 1e6) for span in pictures] == [3, 7]
    assert pictures[0].start_time == pictures[1].start_time
    assert len([span for span in spans if span.name == "queue"]) == 2
    spans, _ = spans_of([{"queue": 0.01}] * 200)
    assert len([span for span in spans if span.name == "picture"]) == 16


@needs_sdk
def test_a_callers_trace_goes_on() -> None:
    spans, context = spans_of(
        headers=[(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode()), (b"tracestate", b"vendor=1")]
    )
    request = named(spans)["POST /v1/predict"]
    assert request.context is not None
    assert request.parent is not None
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, PARENT)
    assert request.context.trace_state.get("vendor") == "1"
    assert context.trace_id == TRACE


@needs_sdk
@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"00-xyz",
        b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
        b"\xff" * 1000,
        b"ff-" + TRACE.encode() + b"-" + PARENT.encode() + b"-01",
    ],
)
def test_a_trace_that_is_invalid_begins_a_new_one(header: bytes) -> None:
    spans, _ = spans_of(headers=[(b"traceparent", header)])
    assert named(spans)["POST /v1/predict"].parent is None


@needs_sdk
def test_a_caller_may_leave_a_request_out_and_a_share_is_kept() -> None:
    assert spans_of(headers=[(b"traceparent", f"00-{TRACE}-{PARENT}-00".encode())])[0] == []
    assert spans_of(share=0.0)[0] == []


@needs_sdk
def test_probes_are_not_traced() -> None:
    assert spans_of(path="/readyz")[0] == []


@needs_sdk
@pytest.mark.parametrize(("status", "error"), [(200, False), (429, False), (503, True), (0, True)])
def test_failures_are_marked(status: int, error: bool) -> None:
    request = named(spans_of(status=status)[0])["POST /v1/predict"]
    assert (request.status.status_code.name == "ERROR") is error
    assert (request.attributes or {})["http.response.status_code"] == (status or 500)


@pytest.mark.parametrize(
    ("settings", "environment", "enabled"),
    [
        ({}, {}, False),
        ({"endpoint": "http://localhost:4318"}, {}, True),
        ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, True),
        ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"endpoint": "http://localhost:4318"}, {"OTEL_SDK_DISABLED": "true"}, False),
        ({}, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_when_traces_are_asked_for(settings: dict[str, Any], environment: dict[str, str], enabled: bool) -> None:
    assert is_enabled(TracingSettings(**settings), environment) is enabled


def test_nothing_is_imported_until_then() -> None:
    code = (
        "import plimsoll.serve.tracing, plimsoll.serve.http.app, sys;"
        " sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_opentelemetry_the_command_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BackendMissingError) as raised:
        Tracing(TracingSettings())
    assert "plimsoll-line[otel]" in raised.value.hint


@needs_sdk
def test_spans_reach_a_collector() -> None:
    """Over HTTP, in OTLP, at the path that collectors have."""
    from helpers.asgi_servers import serve_app

    received: list[tuple[str, bytes, bytes]] = []

    async def collector(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        received.append((scope["path"], dict(scope["headers"])[b"content-type"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    with serve_app(collector) as url:
        tracing = Tracing(TracingSettings(endpoint=url, name="guardian"))
        span = tracing.begin(RequestContext(Operation("/", "native"), "POST", "/", []))
        tracing.add_pictures(span, [{"infer": 1.0}], 10**18)
        span.end()
        tracing.flush()
        asyncio.run(tracing.close())
    [(path, kind, body)] = received
    assert (path, kind) == ("/v1/traces", b"application/x-protobuf")
    assert b"guardian" in body
    assert b"infer" in body


@needs_sdk
def test_spans_reach_a_collector_over_grpc() -> None:
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    from concurrent.futures import ThreadPoolExecutor

    received: list[bytes] = []

    def export(message: bytes, _: object) -> bytes:
        received.append(message)
        return b""

    class Collector(grpc.GenericRpcHandler):  # type: ignore[misc,name-defined]  # grpc has no types
        def service(self, details: Any) -> Any:
            assert details.method == "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            return grpc.unary_unary_rpc_method_handler(export)

    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads, handlers=(Collector(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        tracing = Tracing(TracingSettings(endpoint=f"http://127.0.0.1:{port}", protocol="grpc", name="guardian"))
        tracing.begin(RequestContext(Operation("/", "native"), "POST", "/", [])).end()
        tracing.flush(60)
        asyncio.run(tracing.close())
        server.stop(None)
    assert b"guardian" in received[0]


@needs_sdk
def test_how_a_collector_is_spoken_with_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(InputError, match="http/json"):
        Tracing(TracingSettings(endpoint="http://127.0.0.1:1"))
    asyncio.run(Tracing(TracingSettings(endpoint="http://127.0.0.1:1", protocol="http/protobuf")).close())
