"""Traces for OpenTelemetry: a span for each request, with what happened in it as its children.

```
POST /v1/predict
├─ receive        the body
├─ queue          waiting for a worker
├─ decode
├─ infer
└─ answer
```

Of several pictures each has a span `picture` of its own with these. A caller's `traceparent` (W3C Trace Context) makes
the request part of its trace. Nothing of OpenTelemetry is imported unless traces are enabled, by a setting or by the
environment variables that OpenTelemetry defines.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from plimsoll.core.version import __version__
from plimsoll.core.wording import printable
from plimsoll.errors import BackendMissingError, InputError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from plimsoll.serve.request import RequestContext

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_CLOSE_S = 3.0
_STAGES = ("queue", "decode", "infer", "answer")
_MAX_PICTURES = 16
"""Pictures of one request that get spans; a request may have hundreds."""
HEADERS = {b"traceparent": "traceparent", b"tracestate": "tracestate"}
"""What a caller sends of its trace, over HTTP and as metadata over gRPC. https://www.w3.org/TR/trace-context/"""


class TracingSettings(BaseModel):
    """Whether traces are sent, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str | None = Field(None, pattern="^https?://")
    """A collector's address, for example `http://localhost:4318`; by default OTEL_EXPORTER_OTLP_ENDPOINT, and no traces
    without one."""
    protocol: Literal["http/protobuf", "grpc"] | None = None
    """How the collector is spoken with; by default what OTEL_EXPORTER_OTLP_TRACES_PROTOCOL or
    OTEL_EXPORTER_OTLP_PROTOCOL says, else `http/protobuf`."""
    name: str | None = None
    """The service's name in traces; by default OTEL_SERVICE_NAME, else plimsoll."""
    share: float | None = Field(None, ge=0, le=1)
    """The share of requests that are traced where the caller doesn't say; by default what OTEL_TRACES_SAMPLER says,
    else all."""


def is_enabled(settings: TracingSettings, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether traces are asked for."""
    if (
        environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    ):
        return False
    return settings.endpoint is not None or any(environment.get(name) for name in _ENDPOINTS)


class Tracing:
    """Makes spans and sends them, in a thread of its own. Close it."""

    def __init__(self, settings: TracingSettings, exporter: SpanExporter | None = None) -> None:
        _require("opentelemetry.sdk.trace")
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        about = {"service.version": __version__}
        if settings.name or "OTEL_SERVICE_NAME" not in os.environ:
            about["service.name"] = settings.name or "plimsoll"
        sampler = ParentBased(TraceIdRatioBased(settings.share)) if settings.share is not None else None
        self._provider = TracerProvider(resource=Resource.create(about), sampler=sampler)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _exporter(settings)))
        self._tracer = self._provider.get_tracer("plimsoll.serve", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, context: RequestContext) -> Span:
        """Begin the span of a request, in its caller's trace where it names one."""
        from opentelemetry.trace import SpanKind

        carrier = {HEADERS[name]: value.decode("latin-1") for name, value in context.headers if name in HEADERS}
        parent = self._propagator.extract(carrier) if carrier else None
        span = self._tracer.start_span(
            context.span_name,
            parent or self._no_context(),
            SpanKind.SERVER,
            context.attributes,
            start_time=context.started_ns,
        )
        context.trace_id = f"{span.get_span_context().trace_id:032x}"
        return span

    def end(self, span: Span, context: RequestContext) -> None:
        """End the span of a request with what is known of it, and with its stages as children."""
        from opentelemetry.trace import StatusCode

        if span.is_recording():
            span.set_attributes(context.attributes)
            for name in ("request_id", "model", "pictures"):
                if value := getattr(context, name):
                    span.set_attribute(f"plimsoll.{name}", value)
            if context.failure is not None:
                span.record_exception(context.failure)
            if context.server_fault:
                span.set_status(StatusCode.ERROR)
            if context.received_ns is not None:
                self.add(span, "receive", context.started_ns, context.received_ns)
            self.add_pictures(span, context.milliseconds, context.answered_ns or time.time_ns())
        span.end()

    def add(self, parent: Span, name: str, began_ns: int, ended_ns: int) -> None:
        """Add a child that is over; times are nanoseconds since 1970."""
        self._child(parent, name, began_ns).end(ended_ns)

    def add_pictures(self, parent: Span, pictures: Sequence[Mapping[str, float]], ended_ns: int) -> None:
        """Add what was done for a request's pictures, from their milliseconds. They were handed over together, and the
        last was done at `ended_ns`."""
        if not pictures:
            return
        began_ns = ended_ns - _ns(max(map(_total, pictures)))
        if len(pictures) == 1:
            self._add_stages(parent, pictures[0], began_ns)
            return
        for milliseconds in pictures[:_MAX_PICTURES]:
            span = self._child(parent, "picture", began_ns)
            self._add_stages(span, milliseconds, began_ns)
            span.end(began_ns + _ns(_total(milliseconds)))

    def flush(self, seconds: float = 5.0) -> None:
        """Send what waits."""
        self._provider.force_flush(int(1e3 * seconds))

    async def close(self) -> None:
        """Send what waits and end the thread, for at most a few seconds: a collector may be down, or hang."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True, name="traces")
        ending.start()
        await asyncio.to_thread(ending.join, _CLOSE_S)

    def _add_stages(self, parent: Span, milliseconds: Mapping[str, float], began_ns: int) -> None:
        at = began_ns
        for stage in _STAGES:
            if stage in milliseconds:
                until = at + _ns(milliseconds[stage])
                self.add(parent, stage, at, until)
                at = until

    def _child(self, parent: Span, name: str, began_ns: int) -> Span:
        from opentelemetry.trace import set_span_in_context

        return self._tracer.start_span(name, set_span_in_context(parent, self._no_context()), start_time=began_ns)

    @staticmethod
    def _no_context() -> Context:
        from opentelemetry.context import Context

        return Context()  # not the span that this task may be inside of


def _total(milliseconds: Mapping[str, float]) -> float:
    return sum(milliseconds.get(stage, 0.0) for stage in _STAGES)


def _ns(milliseconds: float) -> int:
    return int(1e6 * milliseconds)


def _exporter(settings: TracingSettings) -> SpanExporter:
    said = (os.environ.get(name, "") for name in _PROTOCOLS)
    protocol: str = settings.protocol or next(filter(None, said), "http/protobuf")
    if protocol == "grpc":
        return _grpc_exporter(settings.endpoint)
    if protocol != "http/protobuf":
        raise InputError(f"unknown protocol for traces '{printable(protocol, 40)}'", "Known: http/protobuf, grpc.")
    _require("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    if settings.endpoint is None:
        return OTLPSpanExporter()  # reads the environment
    endpoint = settings.endpoint.rstrip("/")
    return OTLPSpanExporter(endpoint=endpoint if endpoint.endswith("/v1/traces") else f"{endpoint}/v1/traces")


def _grpc_exporter(endpoint: str | None) -> SpanExporter:
    """Return what sends spans over gRPC: encrypted where the endpoint begins with https, as the environment says
    without one."""
    name = "opentelemetry.exporter.otlp.proto.grpc"
    _require(name, "opentelemetry-exporter-otlp-proto-grpc")
    exporter: SpanExporter = importlib.import_module(f"{name}.trace_exporter").OTLPSpanExporter(endpoint=endpoint)
    return exporter


def _require(name: str, package: str = "'plimsoll-line[otel]'") -> None:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        raise BackendMissingError(f"{name} is not installed; traces need it", f"Install it: pip install {package}")
