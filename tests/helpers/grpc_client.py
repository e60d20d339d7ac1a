"""A service that is asked over gRPC, and what it tells of its requests: lines, counts, spans."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from helpers.oip_service import ServedProtocols, element, patient, serving, write_mixed
from plimsoll.serve.access.authorizer import Authorizer
from plimsoll.serve.grpc import oip_pb2
from plimsoll.serve.settings import Settings
from plimsoll.serve.tracing import Tracing, TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

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
class GrpcClient:
    """A service, and what it tells of its requests."""

    service: ServedProtocols
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
        return Reply(
            call.code().name, answer, call.details(), {entry.key: entry.value for entry in call.trailing_metadata()}
        )

    @property
    def line(self) -> dict[str, Any]:
        """The only line since the last look."""
        [line] = self.lines
        self.lines.clear()
        return line

    def counted(self, status: str, model: str = "") -> float:
        """How many requests there were."""
        registry = self.service.service.metrics.registry
        return (
            registry.get_sample_value(
                "plimsoll_requests_total", {"model": model, "interface": "grpc", "status": status}
            )
            or 0.0
        )


@dataclass
class RecordedLines:
    """Takes the lines as they are put, by the thread that writes them."""

    fields: list[dict[str, Any]] = field(default_factory=list)

    def put(self, fields: dict[str, Any]) -> None:
        self.fields.append(fields)


@contextmanager
def served(
    folder: Path, settings: Settings | None = None, authorizer: Authorizer | None = None
) -> Iterator[GrpcClient]:
    lines = RecordedLines()
    tracing: Tracing | None = None
    if importlib.util.find_spec("opentelemetry") is not None:
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        exporter = InMemorySpanExporter()
        tracing = Tracing(TracingSettings(), exporter)

    def spans() -> list[ReadableSpan]:
        if tracing is None:
            return []
        tracing.flush()
        finished = list(exporter.get_finished_spans())
        exporter.clear()
        return finished

    with (
        serving(
            settings or patient(max_body_bytes=MOST),
            write_mixed(folder),
            authorizer=authorizer,
            lines=lines,
            tracing=tracing,
        ) as service,
        grpc.insecure_channel(service.grpc) as channel,
    ):
        yield GrpcClient(service, channel, lines.fields, spans)


def rows(count: int = 1, **fields: Any) -> bytes:
    """Return a request for the bare network."""
    request = oip_pb2.ModelInferRequest(model_name="mixed.tensor", **fields)
    request.inputs.add(name="gain", datatype="INT64", shape=[count, 1]).contents.int64_contents.extend([1] * count)
    request.inputs.add(name="pixels", datatype="FP32", shape=[count, 2, 2, 3]).contents.fp32_contents.extend(
        [2.0] * 12 * count
    )
    return bytes(request.SerializeToString())


def photo(data: bytes) -> bytes:
    """Return a request with a picture."""
    request = oip_pb2.ModelInferRequest(model_name="mixed", raw_input_contents=[element(data)])
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    return bytes(request.SerializeToString())
