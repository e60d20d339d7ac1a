"""Bodies that are made to keep a service busy: each is answered, and nobody else waits for it.

What is measured is not how long an answer takes, but the longest time for which the event loop could answer nobody; of
that what this process computed, since a crowded machine holds everybody up. The unit is what this processor takes, at
the same time, to copy the longest text that JSON may hold, in one call that nothing can interrupt. A pause counts where
it comes each time.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from helpers.oip_service import LENGTH, ServedProtocols, patient, serving, with_tensors, write_mixed
from plimsoll.serve.http.multipart import boundary_of, parse_parts
from plimsoll.serve.messages import RequestError
from plimsoll.serve.parsing import (
    MAX_JSON_BYTES,
    SMALL_BYTES,
    TENSOR_JSON,
    JsonLimits,
    decode_base64,
    parse_json,
    share_fairly,
)

MEGABYTE = 1_000_000
FLOATS = b"0.12345678901234567,"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=----x"}
NATIVE, OIP, BARE = "/v1/predict", "/v2/models/mixed/infer", "/v2/models/mixed.tensor/infer"
VISION, MISSKEY = "/v1/vision/nsfw", "/v1/detect-images"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProtocols]:
    interval = sys.getswitchinterval()
    share_fairly()  # as the service's own process does
    with serving(patient(), write_mixed(tmp_path_factory.mktemp("mixed"))) as running:
        yield running
    sys.setswitchinterval(interval)


def listed(entry: bytes, count: int, before: bytes = b'{"images":[', after: bytes = b"]}") -> bytes:
    return before + b",".join([entry] * count) + after


def tensor(data: bytes, shape: bytes = b"[1,2,2,3]", more: bytes = b"") -> bytes:
    return b'{"inputs":[{"name":"pixels","datatype":"FP32","shape":%s,"data":%s}%s]}' % (shape, data, more)


def numbers(count: int) -> bytes:
    return b"[" + (FLOATS * count)[:-1] + b"]"


def parts(
    count: int, head: bytes = b'Content-Disposition: form-data; name="file"; filename="a"', data: bytes = b""
) -> bytes:
    return (b"------x\r\n" + head + b"\r\n\r\n" + data + b"\r\n") * count + b"------x--\r\n"


@dataclass(frozen=True)
class Hostile:
    path: str
    body: Callable[[], bytes]
    headers: dict[str, str]
    statuses: tuple[int, ...]


def hostile(path: str, body: Callable[[], bytes], *statuses: int, **headers: str) -> Hostile:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Hostile(path, body, {**JSON, **named}, statuses)


def binary(shape: list[int], data: bytes, datatype: str = "BYTES") -> tuple[bytes, str]:
    entry = {"name": "image", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    return with_tensors({"inputs": [entry]}, data)


LONG = b"a" * 40 * MEGABYTE
INPUT = b'{"name":"%d","datatype":"FP32","shape":[1],"data":[1]}'
EMPTY, EMPTY_LENGTH = binary([256], bytes(8 * MEGABYTE))
BODIES: dict[str, Hostile] = {
    "many pictures": hostile(NATIVE, lambda: listed(b'{"data":"AA"}', 600_000), 413),
    "more pictures than a request may have": hostile(NATIVE, lambda: listed(b'{"data":"AA"}', 257), 413),
    "pictures that are none": hostile(NATIVE, lambda: listed(b"5", 250), 422),
    "a picture of base64": hostile(NATIVE, lambda: listed(b'{"data":"%s"}' % (b"QUJD" * 11_000_000), 1), 415),
    "a picture that is almost base64": hostile(
        NATIVE, lambda: listed(b'{"data":"%s"}' % (b"QUJD" * 11_000_000 + b"!"), 1), 400
    ),
    "base64 in short lines": hostile(NATIVE, lambda: listed(b'{"data":"%s"}' % (b"QUJD\\n" * 900_000), 1), 415),
    "escapes": hostile(NATIVE, lambda: listed(b'{"data":"%s"}' % (b"\\n" * 20 * MEGABYTE), 1), 413),
    "lists": hostile(NATIVE, lambda: listed(b"[]", 5 * MEGABYTE), 413),
    "digits": hostile(NATIVE, lambda: b'{"images":%s}' % (b"1" * 5 * MEGABYTE), 400),
    "blanks": hostile(NATIVE, lambda: b" " * 45 * MEGABYTE + b"{}", 413),
    "a name of many megabytes": hostile(NATIVE, lambda: b'{"%s":1}' % LONG, 413),
    "a name of many megabytes that is not base64": hostile(NATIVE, lambda: b'{",%s":1}' % LONG, 413),
    "a model of many megabytes": hostile(
        NATIVE, lambda: b'{"model":"%s","images":[{"data":"AA"}]}' % LONG, 404
    ),
    "a picture's name of many megabytes": hostile(NATIVE, lambda: listed(b'{"data":"AA","name":"%s"}' % LONG, 1), 422),
    "a number of many megabytes": hostile(
        NATIVE, lambda: b'{"timeout":"%s","images":[{"data":"AA"}]}' % (b"1" * 40 * MEGABYTE), 422
    ),
    "characters of four bytes": hostile(
        NATIVE, lambda: listed(b'{"data":"%s%s"}' % (LONG, "😀".encode()), 1), 413
    ),
    "characters of three bytes": hostile(
        NATIVE, lambda: listed(b'{"data":"%s"}' % ("日".encode() * 15 * MEGABYTE), 1), 413
    ),
    "characters of four bytes, escaped": hostile(
        NATIVE, lambda: listed(b'{"data":"%s\\ud83d\\ude00"}' % LONG, 1), 413
    ),
    "many texts with characters of four bytes": hostile(
        NATIVE, lambda: listed(b'{"data":"%s%s"}' % (b"a" * 160_000, "😀".encode()), 250), 413
    ),
    "a tensor's name of many megabytes": hostile(BARE, lambda: tensor(b"[1]").replace(b"pixels", LONG), 400),
    "JSON that is too large": hostile(NATIVE, lambda: b'"%s"' % (b"a" * 60 * MEGABYTE), 413),
    "a bomb": hostile(NATIVE, lambda: gzip.compress(bytes(200 * MEGABYTE), 1), 413, Content_Encoding="gzip"),
    "a bomb of objects": hostile(
        NATIVE, lambda: gzip.compress(listed(b"{}", 10 * MEGABYTE), 1), 413, Content_Encoding="gzip"
    ),
    "parts": hostile(NATIVE, lambda: parts(600_000), 413, **FORM),
    "parts that almost end": hostile(
        NATIVE, lambda: parts(1, data=b"\r\n-----x" * 7 * MEGABYTE), 415, **FORM
    ),
    "dashes": hostile(NATIVE, lambda: parts(1, data=b"-" * 60 * MEGABYTE), 415, **FORM),
    "large pictures": hostile(NATIVE, lambda: parts(15, data=bytes(4 * MEGABYTE)), 200, **FORM),
    "a part with a long head": hostile(NATIVE, lambda: parts(1, b"a" * 60 * MEGABYTE), 400, **FORM),
    "a part with many parameters": hostile(
        NATIVE, lambda: parts(200, b"Content-Disposition: form-data" + b';a="' * 4000), 400, 413, 422, **FORM
    ),
    "data URLs": hostile(VISION, lambda: listed(b'"data:image/png;base64,QUJD"', 500_000), 413),
    "a data URL": hostile(VISION, lambda: listed(b'"data:image/png;base64,%s"' % (b"QUJD" * 11_000_000), 1), 200, 503),
    "texts": hostile(VISION, lambda: listed(b'""', 700_000), 413),
    "parts for Misskey": hostile(MISSKEY, lambda: parts(400_000), 413, **FORM),
    "numbers": hostile(BARE, lambda: tensor(numbers(TENSOR_JSON.values - 1000)), 400),
    "more numbers": hostile(BARE, lambda: tensor(numbers(2 * TENSOR_JSON.values)), 413),
    "nested numbers": hostile(BARE, lambda: tensor(listed(b"[1.5,2.5,3.5]", 90_000, b"[[", b"]]")), 400),
    "rows of numbers": hostile(BARE, lambda: tensor(listed(numbers(512), 1500, b"[[", b"]]")), 400),
    "numbers in a text": hostile(NATIVE, lambda: b'{"model":"\\u00e9%s"}' % numbers(12_000), 422),
    "numbers under a name twice": hostile(
        BARE, lambda: b'{"inputs":%s,"inputs":%s}' % (numbers(190_000), numbers(190_000)), 400
    ),
    "inputs": hostile(BARE, lambda: listed(INPUT % 1, 300_000, b'{"inputs":['), 413),
    "inputs of one name": hostile(
        BARE,
        lambda: tensor(b"[]", b"[1]", b"".join(b"," + INPUT % number for number in range(1000))),
        400,
    ),
    "outputs": hostile(BARE, lambda: listed(b'{"name":"a"}', 15_000, b'{"inputs":[],"outputs":['), 400),
    "names": hostile(
        BARE, lambda: b'{"inputs":[{}],' + b",".join(b'"%d":1' % number for number in range(300_000)) + b"}", 413
    ),
    "a shape": hostile(BARE, lambda: tensor(b"[1]", numbers(700_000)), 400),
    "texts of unequal length": hostile(
        BARE, lambda: tensor(b'["%s",' % (b"a" * MEGABYTE) + b",".join([b'"a"'] * 2000) + b"]"), 400
    ),
    "pictures in JSON": hostile(
        OIP,
        lambda: b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"data":["%s"]}]}' % (b"QUJD" * 11_000_000),
        415,
    ),
    "elements": hostile(OIP, lambda: EMPTY, 400, **{LENGTH: EMPTY_LENGTH}),
    "tensor bytes": hostile(BARE, lambda: bytes(60 * MEGABYTE), 400, **{LENGTH: "0"}),
    "an inflated tensor": hostile(
        OIP, lambda: gzip.compress(tensor(numbers(700_000)), 1), 400, Content_Encoding="gzip"
    ),
}  # fmt: skip


class LoopWatch:
    """Measures the longest pause of a service's event loop."""

    def __init__(self, service: ServedProtocols) -> None:
        self._loop = service.loop
        self.longest = 0.0

    async def _watch(self) -> None:
        while True:
            wall, computed = time.perf_counter(), time.process_time()
            await asyncio.sleep(0.001)
            pause = min(time.perf_counter() - wall, time.process_time() - computed)
            self.longest = max(self.longest, pause)

    def __enter__(self) -> LoopWatch:
        self._task = asyncio.run_coroutine_threadsafe(self._watch(), self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        self._task.cancel()


def unit() -> float:
    """Return the seconds that the largest call that may be made takes just now."""
    body = bytes(MAX_JSON_BYTES)
    took = []
    for _ in range(3):
        began = time.thread_time()
        body.decode("ascii")
        took.append(time.thread_time() - began)
    return sorted(took)[1]


def check_pauses(service: ServedProtocols, attack: Callable[[], None], calls: float = 1) -> None:
    """Fail where each of three attacks makes the loop stand still for longer than so many of the largest calls."""
    pauses = []
    for _ in range(3):
        with LoopWatch(service) as watch:
            attack()
        largest = unit()
        if watch.longest < 2.5 * calls * largest + 0.01:
            return
        pauses.append(f"{1e3 * watch.longest:.0f} ms (a call takes {1e3 * largest:.0f} ms)")
    pytest.fail(f"the loop stood still for {', '.join(pauses)}")


@pytest.mark.parametrize("name", BODIES)
def test_no_body_holds_up_everybody_else(service: ServedProtocols, name: str) -> None:
    attack = BODIES[name]
    body = attack.body()

    def send() -> None:
        reply = service.client.post(attack.path, content=body, headers=attack.headers)
        assert reply.status_code in attack.statuses, (reply.status_code, reply.text[:300])
        assert len(reply.content) < 100_000

    check_pauses(service, send)
    assert service.get("/healthz").status_code == 200


def test_no_tiny_chunks_hold_up_everybody_else(service: ServedProtocols) -> None:
    host, _, port = service.http.partition(":")
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

    def send() -> None:
        with socket.create_connection((host, int(port)), timeout=60) as caller:
            caller.sendall(head + b"1\r\nA\r\n" * 200_000 + b"0\r\n\r\n")
            assert caller.recv(65536).startswith(b"HTTP/1.1 415")

    check_pauses(service, send, calls=0.4)


@pytest.mark.parametrize("query", ["&".join(f"a{number}=1" for number in range(6000)), "top=" + "1" * 40_000])
def test_a_long_query_is_not_read(service: ServedProtocols, query: str) -> None:
    reply = service.client.post(f"{NATIVE}?{query}", content=b"a", headers={"Content-Type": "image/jpeg"})
    assert reply.status_code == 400
    assert "the query has" in reply.text


MESSAGES: dict[str, tuple[Callable[[], bytes], str]] = {
    "numbers": (lambda: contents("int_contents", 16 * MEGABYTE), "RESOURCE_EXHAUSTED"),
    "floats": (lambda: contents("fp32_contents", 4 * MEGABYTE), "RESOURCE_EXHAUSTED"),
    "numbers that may come": (lambda: contents("int_contents", 700_000), "INVALID_ARGUMENT"),
    "fields": (lambda: b"\x2a\x00" * 8 * MEGABYTE, "INVALID_ARGUMENT"),
    "fields of an input": (lambda: nested(b"\x2a", b"\x1a\x00" * 8 * MEGABYTE), "INVALID_ARGUMENT"),
    "bytes": (lambda: nested(b"\x3a", bytes(16 * MEGABYTE)), "INVALID_ARGUMENT"),
    "more bytes than are allowed": (lambda: nested(b"\x3a", bytes(60 * MEGABYTE)), "RESOURCE_EXHAUSTED"),
}


def nested(tag: bytes, body: bytes) -> bytes:
    length, size = b"", len(body)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return tag + length + bytes([size]) + body


def contents(field: str, count: int) -> bytes:
    """Return a request with so many numbers in one input, as bytes: making it with protobuf would take seconds."""
    number, data = {"int_contents": (2, b"\x01" * count), "fp32_contents": (6, bytes(4 * count))}[field]
    described = nested(b"\x0a", b"pixels") + nested(b"\x12", b"INT32" if number == 2 else b"FP32")
    packed = nested(bytes([number << 3 | 2]), data)
    return nested(b"\x0a", b"mixed.tensor") + nested(b"\x2a", described + nested(b"\x2a", packed))


@pytest.mark.parametrize("name", MESSAGES)
def test_no_message_holds_up_everybody_else(service: ServedProtocols, name: str) -> None:
    grpc = pytest.importorskip("grpc")
    build, code = MESSAGES[name]
    message = build()
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(service.grpc, options) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def send() -> None:
            with pytest.raises(grpc.RpcError) as caught:
                call(message, timeout=120)
            assert caught.value.code().name == code, caught.value.details()

        check_pauses(service, send)


def test_a_squeezed_message_is_limited_by_what_it_becomes(service: ServedProtocols) -> None:
    grpc = pytest.importorskip("grpc")
    message = nested(b"\x3a", bytes(40 * MEGABYTE))
    with grpc.insecure_channel(service.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=120, compression=grpc.Compression.Gzip)
    assert caught.value.code().name in ("RESOURCE_EXHAUSTED", "CANCELLED"), caught.value


def test_memory_stays_level_however_texts_are_sent_as_numbers(service: ServedProtocols) -> None:
    """NumPy makes all texts of an array as long as the longest."""
    body = tensor(b'["%s",' % (b"a" * MEGABYTE) + b",".join([b'"a"'] * 500) + b"]")
    tracemalloc.start()
    try:
        assert service.client.post(BARE, content=body).status_code == 400
        assert tracemalloc.get_traced_memory()[1] < 100 * MEGABYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, SMALL_BYTES, 3_000_000, 3_000_001, 3_000_002])
@pytest.mark.parametrize("lines", [0, 76, 77])
def test_base64_is_read_however_it_is_written(size: int, lines: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode().rstrip("=")):
        broken = "\r\n".join(text[at : at + lines] for at in range(0, len(text), lines)) if lines else text
        assert decode_base64(broken) == data


@pytest.mark.parametrize("text", ["A", "AAAAA", "AA=A", "=", "AA==AA==", "A===", "é", "AAA!", "AA\x00A", "\ud800AAA"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    for whole in (text, "A" * 4_000_000 + text):
        with pytest.raises(ValueError, match=r"."):
            decode_base64(whole)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"[[],[],[]]", "lists"),
        (b"[1,2,3,4,5,6,7,8]", "values"),
        (b'{"a":1,"b":2,"c":3}', "named"),
        (rb'["\n\n\n"]', "escaped"),
    ],
)
def test_json_is_counted_before_it_is_built(body: bytes, word: str) -> None:
    limits = JsonLimits(values=6, lists=3, members=2, escapes=2)
    with pytest.raises(RequestError, match=word) as caught:
        parse_json(body, "", limits)
    assert caught.value.problem.status == 413
    parse_json(b'[{"a":1},2,"\\n"]', "", limits)


@pytest.mark.parametrize(
    "written",
    [
        b"QUJD" * 100_000,
        b"QUJD" * 100_000 + b"QQ==",
        b"data:image/png;base64," + b"QUJD" * 100_000,
        rb"QU\/D" * 100_000,
        rb"Q\u002BJD" * 100_000,
        rb"QUJDQUJD\r\n" * 50_000,
        b"QUJD" * 10_000 + rb"\\n" * 100_000,
        b"QUJD" * 100_000 + rb"\\",
        b"QUJD" * 100_000 + rb"\"",
        b",QUJ" * 100_000,
        "日本".encode() * 100_000,
        rb"\u65e5" * 100_000,
    ],
    ids=range(12),
)
@pytest.mark.parametrize("around", [b'[%b,1,"a"]', b'{"a":"b","c":%b,"d":[1.5,%b]}', b'  [[%b,%b,"",[%b]],"%%"]'])
def test_long_texts_are_read_as_in_any_json(written: bytes, around: bytes) -> None:
    body = around.replace(b"%b", b'"' + written + b'"')
    assert parse_json(body) == json.loads(body)


@pytest.mark.parametrize("ending", [b"", b'"', b'":', b'"}', b'"a"]', b'" "]', b'\\"]'])
def test_a_long_text_that_ends_wrongly_is_no_json(ending: bytes) -> None:
    with pytest.raises(RequestError, match="not JSON"):
        parse_json(b'["' + b"QUJD" * 100_000 + ending)


@pytest.mark.parametrize("between", [b"," + b"1," * 200_000, b":" + b" " * 300_000, b" " * 300_000 + b","])
def test_what_stands_between_texts_is_none(between: bytes) -> None:
    body = b'["a:"' + between + b'"b"]'
    if between[:1] == b":":
        body = b'{"a"' + between + b'"b"}'
    assert parse_json(body) == json.loads(body)


LISTED = b",".join([b"1.5"] * 100_000)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":[' + LISTED + b"]}",
        b"[[" + LISTED + b"],[" + b"true,null, -1e9,\n" * 50_000 + b"2],[]]",
        b"[" + b",".join([b"[" + numbers(300) + b"]"] * 300) + b"]",
        b'{"a":"\\u00e9[' + LISTED + b']","b":[' + LISTED + b"]}",
        b'{"a":[' + LISTED + b'],"a":[' + LISTED + b",1]}",
        b'{"a":"\\"' + b"QUJD" * 100_000 + b'"}',
        b"[" + b" " * 300_000 + b"]",
        b'["a","[' + LISTED + b']"]',
    ],
    ids=range(8),
)
def test_long_lists_of_numbers_are_read_as_in_any_json(body: bytes) -> None:
    assert parse_json(body) == json.loads(body)


@pytest.mark.parametrize("end", [b",]", b",,1]", b" 1]", b",tru]", b"", b",1]]", b",[1}"])
def test_a_long_list_that_is_written_wrongly_is_no_json(end: bytes) -> None:
    with pytest.raises(RequestError, match="not JSON"):
        parse_json(b"[" + LISTED + end)


def single(head: bytes, data: bytes = b"x") -> bytes:
    return b"--b\r\n" + head + b"\r\n\r\n" + data + b"\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("head", "name", "filename"),
    [
        (b'Content-Disposition: form-data; name="file"; filename="a b.jpg"', "file", "a b.jpg"),
        (b"content-disposition:form-data;name=file;filename=a.jpg", "file", "a.jpg"),
        (b"Content-Disposition: form-data; name=file; filename*=UTF-8''%e2%82%ac.jpg", "file", "€.jpg"),
        (b"Content-Disposition: form-data; name=f; filename=x; filename*=iso-8859-1'en'%A3", "f", "£"),
        (b"Content-Disposition: form-data; name=f; filename*=nothing''%A3", "f", ""),
        (b"Content-Disposition: form-data; name=f; filename*=punycode''a-b.jpg", "f", "a-b.jpg"),
        (b'Content-Disposition: form-data; name="a\\"b;c"; filename="x\\\\y"', 'a"b;c', "x\\y"),
        ('Content-Disposition: form-data; name="é"; filename="日本.png"'.encode(), "é", "日本.png"),
        (b'Content-Disposition: form-data; name="a', "a", None),
        (b"Content-Disposition: form-data", "", None),
        (b"X-Other: form-data; name=a", "", None),
    ],
)
def test_the_head_of_a_part(head: bytes, name: str, filename: str | None) -> None:
    [part] = parse_parts(single(head), b"b", 3)
    assert (part.name, part.filename, part.data) == (name, filename, b"x")


def test_parts_are_what_lies_between_the_boundaries() -> None:
    assert [
        part.data for part in parse_parts(b"pre\r\n--b \t\r\n\r\n\r\n--b\r\n\r\n\n--b\r\r\n--b--post", b"b", 3)
    ] == [
        b"",
        b"\n--b\r",
    ]
    assert parse_parts(b"--b--", b"b", 3) == []
    encoded = b"Content-Transfer-Encoding: base64"
    assert parse_parts(single(encoded, b"QUJD\r\nREU="), b"b", 1)[0].data == b"ABCDE"
    broken = [
        b"",
        b"b",
        b"--b",
        b"--b\r\n",
        single(b"A: b")[:-7],
        b"--bb\r\n\r\n\r\n--b--",
        single(b"no header"),
        single(encoded, b"!"),
    ]
    for body in (*broken, single(b"Content-Transfer-Encoding: quoted-printable"), single(b"A: " + b"a" * 20_000)):
        with pytest.raises(RequestError) as caught:
            parse_parts(body, b"b", 3)
        assert caught.value.problem.status == 400


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data; charset=utf-8; boundary="a b:c"', b"a b:c"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary*=undefined''abc", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary=" + "a" * 300, None),
        ("multipart/mixed; boundary=abc", None),
        ("image/jpeg; boundary=abc", None),
        ("", None),
    ],
)
def test_the_boundary_of_a_body(content_type: str, boundary: bytes | None) -> None:
    if boundary is not None:
        assert boundary_of(content_type) == boundary
        return
    with pytest.raises(RequestError):
        boundary_of(content_type)


FORMS: dict[str, tuple[bytes, int, str]] = {
    "an option": (b'Content-Disposition: form-data; name="top"', 415, "picture"),
    "an option that is wrong": (b'Content-Disposition: form-data; name="masks"', 422, "masks"),
    "an unknown field": (b'Content-Disposition: form-data; name="image_url"', 422, "image_url"),
    "nothing": (b"X-Y: z", 422, "neither"),
}


@pytest.mark.parametrize("which", FORMS)
def test_no_part_of_a_form_is_dropped_silently(service: ServedProtocols, which: str) -> None:
    head, status, word = FORMS[which]
    picture = b"------x\r\nContent-Disposition: form-data; name=\"a\"; filename*=utf-8''a\r\n\r\nno picture\r\n"
    body = picture + b"------x\r\n" + head + b"\r\n\r\n1\r\n------x--\r\n"
    reply = service.client.post(NATIVE, content=body, headers=FORM)
    assert (reply.status_code, word in reply.text) == (status, True), reply.text


def test_a_compressed_body_is_read_everywhere(service: ServedProtocols) -> None:
    body = json.dumps({"images": [{"data": "QUJD"}]}).encode()
    for encoded, encoding in ((gzip.compress(body), "gzip"), (body, "identity")):
        reply = service.client.post(NATIVE, content=encoded, headers={**JSON, "Content-Encoding": encoding})
        assert reply.status_code == 415, reply.text
        assert reply.json()["results"][0]["error"]["kind"] == "image"
    refused = service.client.post(NATIVE, content=body, headers={**JSON, "Content-Encoding": "br"})
    assert (refused.status_code, "gzip" in refused.text) == (415, True)
