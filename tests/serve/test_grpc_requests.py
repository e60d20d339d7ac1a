"""Requests over gRPC have ids, lines in the log and counts, as those over HTTP. With a real service and real
callers."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.oip_service import patient
from plimsoll.serve.log import LogSettings
from plimsoll.serve.oip import models

grpc = pytest.importorskip("grpc")
from helpers.grpc_client import INFER, STREAM, GrpcClient, photo, rows, served  # noqa: E402


def test_a_line_says_what_one_of_http_does(client: GrpcClient) -> None:
    body = rows(2)
    reply = client.call(body, x_request_id="abc-123", authorization="Bearer secret")
    line = client.line
    assert 0 < line.pop("milliseconds") < 60_000
    assert line.pop("time").endswith("Z")
    line.pop("trace_id", None)
    assert list(line.pop("stages")) == ["queue", "decode", "infer", "answer"]
    assert line == {
        "status": "OK",
        "method": "gRPC",
        "path": INFER,
        "request_id": "abc-123",
        "bytes_in": len(body),
        "bytes_out": len(reply.body),
        "model": "mixed",
        "pictures": 2,
        "client": "127.0.0.1",
    }
    assert reply.trailer["x-request-id"] == "abc-123"


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "-x", "<script>", '"}', "x,y"])
def test_an_id_that_is_not_sane_is_replaced(client: GrpcClient, given: str) -> None:
    reply = client.call(rows(), x_request_id=given)
    new_id = client.line["request_id"]
    assert len(new_id) == 32
    assert int(new_id, 16)
    assert reply.trailer["x-request-id"] == new_id


def test_an_error_has_its_line_count_and_id(client: GrpcClient) -> None:
    before = client.counted("INVALID_ARGUMENT", "mixed")
    reply = client.call(photo(b"GIF89a"), x_request_id="bad-1")
    assert (reply.code, reply.trailer["x-request-id"]) == ("INVALID_ARGUMENT", "bad-1")
    line = client.line
    assert (line["status"], line["request_id"], line["model"], line["pictures"], line["bytes_out"]) == (
        "INVALID_ARGUMENT",
        "bad-1",
        "mixed",
        1,
        0,
    )
    assert client.counted("INVALID_ARGUMENT", "mixed") == before + 1


def test_all_calls_are_counted_and_timed_under_their_status(client: GrpcClient) -> None:
    calls = {
        "OK": ("/inference.GRPCInferenceService/RepositoryIndex", b""),
        "NOT_FOUND": (INFER, b"\x0a\x04none"),
        "UNIMPLEMENTED": (f"{INFER}s", b""),
    }
    registry = client.service.service.metrics.registry
    labels = {"model": "", "interface": "grpc"}
    timed = registry.get_sample_value("plimsoll_request_seconds_count", labels) or 0
    for status, (path, body) in calls.items():
        before = client.counted(status)
        assert client.call(body, path).code == status
        assert client.counted(status) == before + 1
        assert (client.line["status"], client.lines) == (status, [])
    assert registry.get_sample_value("plimsoll_request_seconds_count", labels) == timed + len(calls)


def test_what_cannot_be_parsed_is_the_caller_s_fault(client: GrpcClient) -> None:
    assert client.call(b"\xff" * 9, "/inference.GRPCInferenceService/ModelReady").code == "INVALID_ARGUMENT"
    assert client.line["bytes_in"] == 9
    asking = client.channel.stream_stream(INFER)
    with pytest.raises(grpc.RpcError, match="no message"):
        list(asking(iter(()), timeout=60))
    assert client.line["status"] == "INVALID_ARGUMENT"


def test_a_mistake_of_ours_is_told_to_the_log_alone(
    client: GrpcClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, ready: bool) -> None:
        del ready
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(models, "index", broken)
    reply = client.call(b"", "/inference.GRPCInferenceService/RepositoryIndex")
    assert (reply.code, "secret" in reply.details, "bug" in reply.details) == ("INTERNAL", False, True)
    line = client.line
    assert (line["status"], line["error"]) == ("INTERNAL", "ZeroDivisionError")
    assert "a secret" in caplog.text


def test_probes_and_samples_are_quiet_but_errors_are_not(tmp_path: Path) -> None:
    log = LogSettings(sample=0, clients="network")
    with served(tmp_path, patient(log=log)) as client:
        for path in (
            "/grpc.health.v1.Health/Check",
            "/inference.GRPCInferenceService/ServerLive",
            "/inference.GRPCInferenceService/ServerReady",
            INFER,
        ):
            assert client.call(rows() if path == INFER else b"", path).code == "OK"
        assert client.lines == []
        assert client.call(b"\x0a\x07nothing", "/grpc.health.v1.Health/Check").code == "NOT_FOUND"
        assert client.line["client"] == "127.0.0.0/24"
        assert {span.name for span in client.spans() if span.parent is None} <= {INFER[1:]}


def test_each_request_of_a_stream_is_told_by_itself(client: GrpcClient) -> None:
    bodies = [rows(), rows(3, model_version="99"), rows(2)]
    asking = client.channel.stream_stream(STREAM)
    answers = list(asking(iter(bodies), timeout=60, metadata=[("x-request-id", "stream-1")]))
    assert [(line["status"], line["bytes_in"], line["bytes_out"], line.get("pictures")) for line in client.lines] == [
        (status, len(body), len(answer), pictures)
        for status, body, answer, pictures in zip(("OK", "NOT_FOUND", "OK"), bodies, answers, (1, None, 2), strict=True)
    ]
    assert {(line["request_id"], line["path"]) for line in client.lines} == {("stream-1", STREAM)}
    client.lines.clear()
    unnamed = asking(iter(bodies), timeout=60)
    assert len(list(unnamed)) == 3
    assert {line["request_id"] for line in client.lines} == {dict(unnamed.trailing_metadata())["x-request-id"]}
