"""What happens on a connection: clients that would rather speak HTTP/2, that don't read, or that are too many."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from helpers.asgi_servers import endpoint, http_app
from helpers.service_process import until
from plimsoll.errors import InputError
from plimsoll.serve.http.listener import Address, ServiceServer, open_sockets, uvicorn_config
from plimsoll.serve.request import Operation
from plimsoll.serve.settings import MEBIBYTE, Settings


@contextmanager
def served(app: ASGIApp, settings: Settings) -> Iterator[tuple[str, int]]:
    """Serve with these settings; give host and port."""
    address = Address(port=0)
    sockets = open_sockets(address)
    server = ServiceServer(uvicorn_config(app, settings.model_copy(update={"drain_timeout": 1}), address))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets)), daemon=True)
    thread.start()
    until(lambda: server.started, "the server")
    try:
        yield sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join()


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def large(_: Request) -> Response:
    return Response(bytes(20 * MEBIBYTE))


async def headers(request: Request) -> Response:
    await request.body()
    return Response(",".join(name for name, _ in request.headers.items()))


APP = http_app(
    [
        endpoint(Operation("/headers", "native", None), headers, "POST"),
        endpoint(Operation("/echo", "native", None), echo, "POST"),
        endpoint(Operation("/large", "native", None), large),
        endpoint(Operation("/healthz", "operations", None, True), large),
    ]
)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with served(APP, Settings()) as where:
        yield where


def exchange(address: tuple[str, int], *pieces: bytes) -> bytes:
    """Send bytes piece by piece; return all that comes until the connection is closed."""
    with socket.create_connection(address, timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
            threading.Event().wait(0.05)
        answer = b""
        with suppress(ConnectionResetError):  # where the service closes while it is still sent to
            while more := connection.recv(65536):
                answer += more
    return answer


UPGRADE = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
LAST = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlast"
BODIES = {
    "of a length": (b"Content-Length: 5\r\n", b"hello"),
    "in chunks": (b"Transfer-Encoding: chunked\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"h2c, websocket", b"TLS/1.0"])
@pytest.mark.parametrize("framing", BODIES)
@pytest.mark.parametrize("split", ["at once", "after the head", "byte by byte"])
def test_a_request_to_upgrade_keeps_its_body(
    address: tuple[str, int], protocol: bytes, framing: str, split: str
) -> None:
    header, body = BODIES[framing]
    head = b"POST /echo HTTP/1.1\r\n" + UPGRADE.replace(b"h2c", protocol) + header + b"\r\n"
    pieces = {
        "at once": [head + body + LAST],
        "after the head": [head, body, LAST],
        "byte by byte": [head[:-3], head[-3:], *(bytes([byte]) for byte in body), LAST],
    }[split]
    answer = exchange(address, *pieces)
    assert answer.count(b"HTTP/1.1 200") == 2, answer
    assert answer.count(b"\r\n\r\nhello") == 1, answer
    assert answer.endswith(b"\r\n\r\nlast")


def test_a_request_to_upgrade_without_a_body(address: tuple[str, int]) -> None:
    answer = exchange(address, b"POST /echo HTTP/1.1\r\n" + UPGRADE + b"Content-Length: 0\r\n\r\n" + LAST)
    assert answer.count(b"HTTP/1.1 200") == 2, answer
    answer = exchange(address, b"GET /nothing HTTP/1.1\r\n" + UPGRADE + b"\r\n" + LAST)
    assert (answer.count(b"HTTP/1.1 404"), answer.endswith(b"\r\n\r\nlast")) == (1, True), answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("option", ["--http1.1", "--http2", "--http1.0"])
def test_curl_s_body_arrives_whatever_it_would_rather_speak(address: tuple[str, int], option: str) -> None:
    url = f"http://{address[0]}:{address[1]}/echo"
    command = ["curl", "-sS", option, "--data-binary", "@-", url]
    done = subprocess.run(command, input=b"x" * 300_000, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"x" * 300_000), done.stderr


JAVA = """
import java.net.URI;
import java.net.http.*;
public class Ask {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int round = 0; round < 3; round++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .POST(HttpRequest.BodyPublishers.ofByteArray(new byte[200000])).build();
            HttpResponse<byte[]> answer = client.send(request, HttpResponse.BodyHandlers.ofByteArray());
            System.out.println(answer.statusCode() + " " + answer.body().length);
        }
    }
}
"""


@pytest.mark.skipif(shutil.which("java") is None, reason="no JDK is installed")
def test_java_s_own_client(address: tuple[str, int], tmp_path: Path) -> None:
    """Over plain HTTP it asks for HTTP/2 with its first request."""
    file = tmp_path / "Ask.java"
    file.write_text(JAVA)
    command = ["java", str(file), f"http://{address[0]}:{address[1]}/echo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout.split("\n")[:3] == ["200 200000"] * 3, done.stderr


def asking(address: tuple[str, int], path: bytes = b"/large") -> socket.socket:
    connection = socket.socket()
    connection.settimeout(30)
    connection.connect(address)
    connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


def is_cut(connection: socket.socket) -> bool:
    """Read all that comes; whether the answer broke off."""
    size = 0
    try:
        while size < 20 * MEBIBYTE and (more := connection.recv(1_000_000)):
            size += len(more)
    except ConnectionError:
        pass
    return size < 20 * MEBIBYTE


def test_who_doesn_t_read_is_cut_and_who_reads_slowly_isn_t() -> None:
    with served(APP, Settings(write_timeout=1.0)) as address:
        silent, slow = asking(address), asking(address)
        size = 0
        while size < 20 * MEBIBYTE and (more := slow.recv(524_288)):  # far longer than the limit, in all
            size += len(more)
            threading.Event().wait(0.05)
        assert size >= 20 * MEBIBYTE
        assert is_cut(silent)
        silent.close()
        slow.close()


def test_what_nobody_reads_has_a_limit_in_all() -> None:
    with served(APP, Settings(max_unsent_bytes=50 * MEBIBYTE)) as address:
        connections = [asking(address) for _ in range(6)]
        threading.Event().wait(1.0)
        cut = [is_cut(connection) for connection in connections]
        assert cut.count(False) in (2, 3), cut
        for connection in connections:
            connection.close()


def test_beyond_the_limit_of_connections_those_that_watch_are_still_answered() -> None:
    with served(APP, Settings(max_connections=3)) as address:
        held = [socket.create_connection(address) for _ in range(3)]
        threading.Event().wait(0.2)
        answer = exchange(address, LAST)
        assert answer.startswith(b"HTTP/1.1 503"), answer
        assert b"retry-after: 1\r\n" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["kind"] == "overloaded"
        probe = asking(address, b"/healthz")
        assert not is_cut(probe)
        probe.close()
        for connection in held:
            connection.close()
        until(lambda: exchange(address, LAST).startswith(b"HTTP/1.1 200"), "room for others")


def test_a_damaged_framing_after_a_request_to_upgrade_is_refused(address: tuple[str, int]) -> None:
    answer = exchange(address, b"POST /echo HTTP/1.1\r\n" + UPGRADE + b"Transfer-Encoding: gzip\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 400"), answer


CHUNKED = b"POST /headers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"


def test_trailers_are_no_headers_and_have_a_limit(address: tuple[str, int]) -> None:
    answer = exchange(address, CHUNKED + b"X-API-Key: k\r\nX-Forwarded-Host: a\r\n\r\n" + LAST)
    assert answer.count(b"HTTP/1.1 200") == 2, answer
    assert b"host,transfer-encoding" in answer
    assert b"x-api-key" not in answer
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(CHUNKED)
        with pytest.raises(ConnectionError):
            connection.sendall(b"a" * 30 * MEBIBYTE)


def test_blank_lines_hold_no_connection() -> None:
    with served(APP, Settings(header_timeout=1.0)) as address, socket.create_connection(address, timeout=20) as other:
        other.sendall(LAST.replace(b"Connection: close\r\n", b""))
        until(lambda: other.recv(65536).endswith(b"last"), "the answer")
        other.sendall(b"\r\n")
        assert other.recv(10) == b""


def test_the_end_of_an_answer_that_nobody_reads_holds_no_connection() -> None:
    """Its last bytes are too few for the connection to count as one that is not read."""
    address, size = Address(port=0), 100_000
    sockets = open_sockets(address)
    sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    server = ServiceServer(uvicorn_config(APP, Settings(write_timeout=1.0, drain_timeout=1), address))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets)), daemon=True)
    thread.start()
    until(lambda: server.started, "the server")
    head = f"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.settimeout(20)
        caller.connect(sockets[0].getsockname())
        caller.sendall(head.encode() + bytes(size))
        connections = server.server_state.connections
        until(lambda: any(each.transport.get_write_buffer_size() for each in connections), "an answer")
        connection = next(iter(connections))
        while connection.transport.get_write_buffer_size() > 16_384:
            caller.recv(1024)
        assert connection.transport.get_write_buffer_size() > 0
        until(lambda: not connections, "the end of the connection")
    server.should_exit = True
    thread.join()


def test_every_address_of_a_name_is_listened_on() -> None:
    for host in ("localhost", "127.0.0.1", "0.0.0.0", *(["::"] if socket.has_dualstack_ipv6() else [])):
        sockets = open_sockets(Address(host=host, port=0))
        assert len({opened.getsockname()[1] for opened in sockets}) == 1
        with socket.create_connection(("127.0.0.1", sockets[0].getsockname()[1]), timeout=5):
            pass
        for opened in sockets:
            opened.close()
    sockets = [socket.create_server(("::1", 0), family=socket.AF_INET6)] if socket.has_ipv6 else []
    for opened in sockets:
        assert Address(host="::1").url([opened]) == f"http://[::1]:{opened.getsockname()[1]}"
        opened.close()


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1\r\n\r\na", b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"]
)
def test_requests_that_come_before_their_answers_are_answered_in_turn(address: tuple[str, int], framing: bytes) -> None:
    request = b"POST /echo HTTP/1.1\r\n" + framing
    answer = exchange(address, request * 2_000 + LAST)
    assert answer.count(b"HTTP/1.1 200") == 2_001
    assert answer.endswith(b"last")
    large = b"POST /echo HTTP/1.1\r\nContent-Length: 500000\r\n\r\n" + b"b" * 500_000
    answer = exchange(address, (large + request) * 3 + LAST)
    assert (answer.count(b"HTTP/1.1 200"), answer.count(b"b" * 500_000)) == (7, 3)


def test_no_more_is_read_while_requests_wait() -> None:
    """Else each answer would let thousands of others in."""
    held: list[asyncio.Event] = []

    async def waits(_: Request) -> Response:
        held.append(asyncio.Event())
        await held[-1].wait()
        return Response(b"answered")

    app = http_app([endpoint(Operation("/waits", "native", None), waits)])
    with served(app, Settings()) as address, socket.create_connection(address, timeout=20) as connection:
        connection.sendall(b"GET /waits HTTP/1.1\r\n\r\n" * 20)
        until(lambda: len(held) == 1, "the first request")
        connection.sendall(b"GET /waits HTTP/1.1\r\n\r\n" * 60)
        for _ in range(79):
            before = len(held)
            held[-1].set()
            until(partial(_has_grown, held, before), "the next one")
        held[-1].set()


def _has_grown(values: list[asyncio.Event], before: int) -> bool:
    return len(values) > before


@pytest.mark.parametrize("garbage", [b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\nA\r\n\r\n"])
def test_garbage_behind_a_request_does_not_take_its_answer(address: tuple[str, int], garbage: bytes) -> None:
    request = LAST.replace(b"Connection: close\r\n", b"")
    for pieces in ((request + garbage,), (request * 3 + garbage,)):
        answer = exchange(address, *pieces)
        assert answer.count(b"HTTP/1.1 200") == pieces[0].count(b"last"), answer
        assert answer.endswith(b"last")
    assert exchange(address, garbage).startswith(b"HTTP/1.1 400")
    assert exchange(address, request, garbage).count(b"HTTP/1.1 400") == 1


def test_who_begins_with_http_2_is_told_to_speak_another(address: tuple[str, int]) -> None:
    """As RFC 9113, 7 has it: GOAWAY with HTTP_1_1_REQUIRED, behind the settings that come first."""
    answer = exchange(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
    settings, goaway = answer[:9], answer[9:]
    assert settings == bytes(3) + b"\x04" + bytes(5)
    assert (goaway[3], int.from_bytes(goaway[13:17])) == (7, 0xD)
    assert len(goaway) == 9 + int.from_bytes(goaway[:3])
    assert b"nginx" in goaway


@pytest.mark.parametrize("header", [b"Host: y", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity"])
def test_what_others_may_read_differently_is_refused(address: tuple[str, int], header: bytes) -> None:
    """A proxy before this service may see another host, or another body."""
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\n" + header
    assert exchange(address, head + b"\r\n\r\n0\r\n\r\n").startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("prefix", ["vision", "/a b", "/a?b", "//a", "/a//b", "/é", "/%2F"])
def test_a_prefix_is_a_path(prefix: str) -> None:
    for good in ("", "/", "/vision", "/vision/", "/a/b-c.d_e~"):
        assert Address(root_path=good).root_path == good
    with pytest.raises(InputError, match="root-path"):
        Address(root_path=prefix)
