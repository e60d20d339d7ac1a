"""What is told of requests over gRPC, as of those over HTTP: a line in the log, counts for Prometheus, a span in the
caller's trace."""

from __future__ import annotations

import time
from typing import Any

import grpc

from plimsoll.serve.grpc.call import Call
from plimsoll.serve.grpc.status import OUR_FAULT
from plimsoll.serve.log import PROBES, LineHandler, timestamp
from plimsoll.serve.request_line import LONGEST_PATH, client, told, worth_a_line
from plimsoll.serve.service import Service
from plimsoll.serve.tracing import HEADERS, Tracing


class GrpcTelemetry:
    """Writes down what came of each request."""

    def __init__(self, service: Service, lines: LineHandler | None, tracing: Tracing | None) -> None:
        self._metrics = service.metrics
        self._settings = service.settings.log
        self._lines = lines if self._settings.requests else None
        self._tracing = tracing

    def begin(self, call: Call) -> None:
        """Begin the span of a request that was let in, where it is traced."""
        if self._tracing is None or call.path in PROBES:
            return
        name = call.path[1 : LONGEST_PATH + 1]
        service, _, method = name.rpartition("/")
        carrier = {
            HEADERS[name.encode()]: value.decode("latin-1") for name, value in call.metadata if name.encode() in HEADERS
        }
        call.began_ns = time.time_ns()
        call.span = self._tracing.begin(
            name, carrier, {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        )
        call.state["trace_id"] = f"{call.span.get_span_context().trace_id:032x}"

    def end(self, call: Call) -> None:
        """Write down a request that is over."""
        if call.span is not None:
            self._end_span(call)
        model = call.state.get("model", "")
        self._metrics.requests.labels(model, "grpc", call.outcome.code.name).inc()
        self._metrics.request_seconds.labels(model, "grpc").observe(time.perf_counter() - call.began)
        if self._lines is not None and worth_a_line(
            self._settings, call.path, good=call.outcome.code is grpc.StatusCode.OK
        ):
            self._lines.put(self._fields(call))

    def _fields(self, call: Call) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "time": timestamp(),
            "status": call.outcome.code.name,
            "method": "gRPC",
            "path": call.path[:LONGEST_PATH],
            "milliseconds": round(1e3 * (time.perf_counter() - call.began), 2),
            "request_id": call.id,
            "bytes_in": call.bytes_in,
            "bytes_out": call.bytes_out,
        }
        fields |= told(call.state)
        if call.address:
            fields |= client(call.address, self._settings)
        if call.gone:
            fields["gone"] = True  # the caller gave up before the answer
        if call.failure is not None:
            fields["error"] = type(call.failure).__name__
        return fields

    def _end_span(self, call: Call) -> None:
        from opentelemetry.trace import StatusCode

        assert self._tracing is not None  # noqa: S101 - else there is no span
        assert call.span is not None  # noqa: S101
        if call.span.is_recording():
            call.span.set_attribute("rpc.grpc.status_code", call.outcome.code.value[0])
            if call.failure is not None:
                call.span.record_exception(call.failure)
            if call.outcome.code in OUR_FAULT:
                call.span.set_status(StatusCode.ERROR)
            received = (call.began_ns, call.received_ns) if call.received_ns is not None else None
            self._tracing.tell(call.span, call.state, received, time.time_ns())
        call.span.end()
