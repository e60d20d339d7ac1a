"""Requests over gRPC keep the limits that those over HTTP have: of size, of time, of keys and rates."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.oip_service import patient
from helpers.service_process import children, until
from plimsoll.serve.access import keys
from plimsoll.serve.access.authorizer import AccessSettings, Authorizer
from plimsoll.serve.access.keys import Rate
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.settings import Settings

grpc = pytest.importorskip("grpc")
from helpers.grpc_client import INFER, MOST, STREAM, GrpcClient, photo, rows, served  # noqa: E402
from plimsoll.serve.grpc import oip_pb2  # noqa: E402
from plimsoll.serve.grpc.handler import Outcome  # noqa: E402


def test_a_message_that_is_too_large_is_refused_and_told(client: GrpcClient) -> None:
    reply = client.call(b"\x3a\xff\xff\xff\x01" + bytes(MOST + 1), x_request_id="large")
    assert reply.code == "RESOURCE_EXHAUSTED"
    until(lambda: client.lines, "the line")
    line = client.line
    assert (line["status"], line["request_id"], line["bytes_in"]) == ("CANCELLED", "large", 0)
    assert client.call(rows()).code == "OK"


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(0.0001, "1"), (0.9994, "1000"), (1.0, "1000"), (1.5001, "1501")]
)
def test_clients_that_retry_by_themselves_are_not_called_too_early(seconds: float, milliseconds: str) -> None:
    outcome = Outcome.of(RequestError(Problem("overloaded", "too much waits", "", 503, seconds)))
    assert outcome.trailer == (("grpc-retry-pushback-ms", milliseconds),)


def test_what_is_being_received_is_limited_over_both_protocols_together(tmp_path: Path) -> None:
    with served(tmp_path, patient(max_received_bytes=1_500_000, max_body_bytes=MOST)) as client:
        received = client.service.service.receive_limit
        large = photo(bytes(1_000_000))
        assert client.call(large).code == "INVALID_ARGUMENT"  # it is no picture, but it may come
        host, _, port = client.service.http.partition(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" + bytes(800_000))
            until(lambda: received.bytes == 800_000, "the body to come")
            client.lines.clear()
            reply = client.call(large)
            assert (reply.code, reply.trailer["grpc-retry-pushback-ms"]) == ("RESOURCE_EXHAUSTED", "1000")
            line = client.line
            assert (line["status"], line["bytes_in"]) == ("RESOURCE_EXHAUSTED", len(large))
            asking = client.channel.stream_stream(STREAM)
            [answer] = asking(iter([large]), timeout=60)
            assert "too much is being received" in oip_pb2.ModelStreamInferResponse.FromString(answer).error_message
            assert client.call(rows()).code == "OK"
        until(lambda: received.bytes == 0, "the caller to be gone")
        assert client.call(large).code == "INVALID_ARGUMENT"


def test_a_message_counts_until_it_is_answered_or_given_up(tmp_path: Path) -> None:
    """While the worker stands still, what it was asked over gRPC leaves no room for a body over HTTP."""
    others = set(children())
    with served(tmp_path, patient(max_received_bytes=1_500_000, max_body_bytes=MOST)) as client:
        received = client.service.service.receive_limit
        large = photo(bytes(1_000_000))
        (worker,) = set(children()) - others
        os.kill(worker, signal.SIGSTOP)
        try:
            asking = client.channel.unary_unary(INFER).future(large, metadata=[("x-request-id", "given-up")])
            until(lambda: received.bytes == len(large), "the message to come")
            assert client.service.post("/v1/predict", bytes(1_000_000)).status_code == 503
            asking.cancel()
            until(lambda: client.lines, "the line")
            line = client.line
            assert (line["status"], line["gone"], line["request_id"], line["pictures"]) == (
                "CANCELLED",
                True,
                "given-up",
                1,
            )
            with pytest.raises(grpc.RpcError):
                client.channel.unary_unary(INFER)(large, timeout=5)
            until(lambda: client.lines, "the line")
            assert client.line["status"] in (
                "DEADLINE_EXCEEDED",
                "CANCELLED",
            )  # both sides look at the clock, and either may be first
            until(lambda: received.bytes == 0, "its message to be gone")
        finally:
            os.kill(worker, signal.SIGCONT)
        assert client.call(rows()).code == "OK"


def test_a_message_that_never_comes_is_not_waited_for(tmp_path: Path) -> None:
    leave = threading.Event()

    def never() -> Iterator[bytes]:
        leave.wait(60)
        yield from ()

    with served(tmp_path, Settings(body_timeout=2.5)) as client:
        with pytest.raises(grpc.RpcError) as caught:
            list(client.channel.stream_stream(INFER)(never(), timeout=60))
        leave.set()
        assert (caught.value.code().name, "2.5 s" in caught.value.details()) == ("DEADLINE_EXCEEDED", True)
        assert client.line["status"] == "DEADLINE_EXCEEDED"
        assert client.call(rows()).code == "OK"


def test_strangers_are_refused_before_their_messages_are_read(tmp_path: Path) -> None:
    token, asker = keys.issue("asker", keys.Terms(role="predict"))
    keys.write(tmp_path / "keys.toml", [asker])
    with served(tmp_path, authorizer=Authorizer(AccessSettings(keys=tmp_path / "keys.toml"))) as client:
        refused = client.call(rows())
        line = client.line
        assert (refused.code, line["status"], line["bytes_in"], "key" in line) == (
            "UNAUTHENTICATED",
            "UNAUTHENTICATED",
            0,
            False,
        )
        with pytest.raises(grpc.RpcError) as caught:
            list(client.channel.stream_stream(STREAM)(iter([rows()]), timeout=60))
        assert (caught.value.code().name, client.line["status"]) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        assert client.counted("UNAUTHENTICATED") == 2
        assert client.spans() == []
        assert client.call(rows(), x_api_key=token).code == "OK"
        assert client.line["key"] == "asker"
        asking = client.channel.stream_stream(STREAM)
        assert len(list(asking(iter([rows()] * 2), timeout=60, metadata=[("x-api-key", token)]))) == 2
        assert [line["key"] for line in client.lines] == ["asker"] * 2
        assert token not in json.dumps(client.lines)


def test_each_request_of_a_stream_counts_for_its_key_s_rate_once(tmp_path: Path) -> None:
    token, asker = keys.issue("asker", keys.Terms(rate=Rate.parse("2/h"), burst=2))
    keys.write(tmp_path / "keys.toml", [asker])
    with served(tmp_path, authorizer=Authorizer(AccessSettings(keys=tmp_path / "keys.toml"))) as client:
        list(client.channel.stream_stream(STREAM)(iter([rows()] * 3), timeout=60, metadata=[("x-api-key", token)]))
        assert [line["status"] for line in client.lines] == ["OK", "OK", "RESOURCE_EXHAUSTED"]
        assert int(client.call(rows(), x_api_key=token).trailer["grpc-retry-pushback-ms"]) > 1000
