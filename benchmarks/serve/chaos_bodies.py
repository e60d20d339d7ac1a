"""Requests that are wrong in every way that we could think of, without end: pictures, heads, sizes, JSON, and lies
about binary tensors."""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from chaos_checks import post_request


@dataclass(frozen=True)
class Source:
    """What a bad request is made of."""

    draw: random.Random
    photo: bytes
    """A good one."""


Build = Callable[[Source], bytes]
"""Makes a whole request."""


@dataclass(frozen=True)
class BadRequest:
    """A bad request."""

    kind: str
    request: bytes
    incomplete: bool = False
    """Whether less was sent than the head says: the other side is then to be told that no more comes."""


def bad_requests(photos: Sequence[bytes], seed: int = 11) -> Iterator[BadRequest]:
    """Yield bad requests without end, every kind as often as any other."""
    draw, kinds = random.Random(seed), list(KINDS)
    while True:
        for kind in draw.sample(kinds, len(kinds)):
            request = KINDS[kind](Source(draw, draw.choice(photos)))
            yield BadRequest(kind, request, kind in INCOMPLETE)


def _picture(data: bytes, kind: str = "image/jpeg") -> bytes:
    return post_request(data, {"Content-Type": kind})


def flipped(source: Source) -> bytes:
    """Return a photo with some bytes changed anywhere."""
    data = bytearray(source.photo)
    for _ in range(source.draw.choice([1, 4, 30, 300])):
        data[source.draw.randrange(len(data))] = source.draw.randrange(256)
    return _picture(bytes(data))


def flipped_head(source: Source) -> bytes:
    """Return a photo with bytes changed in its first 700: markers, tables, sizes."""
    data = bytearray(source.photo)
    for _ in range(source.draw.randint(1, 20)):
        data[source.draw.randrange(2, min(700, len(data)))] = source.draw.randrange(256)
    return _picture(bytes(data))


def cut(source: Source) -> bytes:
    """Return a photo without its end."""
    return _picture(source.photo[: source.draw.randrange(1, len(source.photo))])


def noise(source: Source) -> bytes:
    """Return noise behind the magic bytes of some format."""
    magic = source.draw.choice(
        [
            b"\xff\xd8\xff\xe0",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"RIFF\xff\xff\xff\x7fWEBPVP8 ",
            b"BM",
            b"II*\0",
            b"%PDF-1.7",
            b"\0\0\0 ftypavif",
            b"",
        ]
    )
    return _picture(
        magic + source.draw.randbytes(source.draw.randrange(1, 5000)),
        source.draw.choice(["image/jpeg", "image/png", "application/octet-stream"]),
    )


def png(width: int, height: int, data: bytes) -> bytes:
    """Return a PNG that says it is so large; `data` is its compressed pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


_ZEROS = zlib.compress(bytes(20_000_000), 9)


def bomb(source: Source) -> bytes:
    """Return a small PNG that says it is huge."""
    side = source.draw.choice([30_000, 65_500, 2**31 - 1, 2**32 - 1, 0])
    return _picture(png(side, source.draw.choice([1, side]), _ZEROS), "image/png")


def active(source: Source) -> bytes:
    """Return what is never to be opened as a picture: SVG, HTML, PostScript, a pickle, a zip."""
    harmful = [
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ]
    return _picture(
        source.draw.choice(
            [*harmful, b"<html></html>", b"\x80\x04cos\nsystem\n(S'true'\ntR.", b"PK\x03\x04" + bytes(100)]
        )
    )


def empty(source: Source) -> bytes:
    """Return a request with an empty body."""
    return post_request(
        b"", {"Content-Type": source.draw.choice(["image/jpeg", "application/json", "multipart/form-data; boundary=x"])}
    )


def wrong_type(source: Source) -> bytes:
    """Return a photo under a content type that it hasn't."""
    kinds = [
        "text/plain",
        "application/xml",
        "image/../../etc",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "application/json",
        "\xff\xfe",
        "a" * 3000,
    ]
    return post_request(source.photo, {"Content-Type": source.draw.choice(kinds)})


def bad_length(source: Source) -> bytes:
    """Return a head with a content length that is none."""
    length = source.draw.choice(["-1", "1e3", "0x10", "9" * 40, "", "12 13", "+5", "½"])
    return (
        f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n".encode()
        + source.photo[:100]
    )


def two_lengths(source: Source) -> bytes:
    """Return a head that says the length twice, or in two ways (request smuggling)."""
    extra = source.draw.choice(
        [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
        ]
    )
    return (
        f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n{extra}\r\n".encode()
        + b"0\r\n\r\n"
        + source.photo[:5]
    )


def bad_chunks(source: Source) -> bytes:
    """Return a chunked body with sizes that are none, or lie."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + source.draw.choice(
        [
            b"zz\r\nabc\r\n0\r\n\r\n",
            b"-5\r\nabc\r\n",
            b"ffffffffffffffffff\r\nabc",
            b"3\r\nabcdef\r\n0\r\n\r\n",
            b"3;" + b"e" * 70_000 + b"\r\nabc\r\n0\r\n\r\n",
        ]
    )


def too_short(source: Source) -> bytes:
    """Return a body that ends before its content length."""
    whole = _picture(source.photo)
    return whole[: source.draw.randrange(whole.index(b"\r\n\r\n") + 4, len(whole) - 1)]


def no_http(source: Source) -> bytes:
    """Return what is no HTTP request."""
    wrong = [
        b"GARBAGE\r\n\r\n",
        b"POST /v1/predict HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),
        b"POST\r\n\r\n",
        b"\0" * 4000,
    ]
    return source.draw.choice(
        [*wrong, b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    )


def odd_path(source: Source) -> bytes:
    """Return a request for something that isn't there."""
    wrong = [
        "/../../etc/passwd",
        "/v1/predict%00",
        "/v1/" + "a" * 8000,
        "/v2/models/..%2f..%2fetc/infer",
        "/page/../../../etc/passwd",
        "/%ff%fe",
        "//",
        "/v1/predict/?x=" + "&x=" * 3000,
    ]
    return post_request(source.photo[:100], {"Content-Type": "image/jpeg"}, source.draw.choice(wrong))


def odd_parameters(source: Source) -> bytes:
    """Return a good photo with parameters that are out of range, or unknown."""
    wrong = [
        "top=0",
        "top=-1",
        "top=1e99",
        "threshold=nan",
        "threshold=2",
        "timeout=0",
        "timeout=-inf",
        "priority=7",
        "model=../..",
        "model=" + "x" * 4000,
        "what=1",
    ]
    return post_request(source.photo, {"Content-Type": "image/jpeg"}, "/v1/predict?" + source.draw.choice(wrong))


def many_headers(source: Source) -> bytes:
    """Return a request with far too many headers, or one that is far too long."""
    headers = source.draw.choice([{f"X-{number}": "v" for number in range(3000)}, {"X-Long": "v" * 300_000}])
    return post_request(source.photo[:50], headers | {"Content-Type": "image/jpeg"})


def too_large(source: Source) -> bytes:
    """Return a head that says that a body of gigabytes follows."""
    length = source.draw.choice([2**26 + 1, 2**31, 2**40, 2**63 - 1])
    return (
        f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n".encode()
        + source.photo[:1000]
    )


def bad_parts(source: Source) -> bytes:
    """Return a multipart body that is broken."""
    part = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + source.photo[:2000] + b"\r\n"
    )
    wrong = [
        part,
        part * 300 + b"--x--\r\n",
        b"--y--\r\n",
        b"--x\r\n\r\n\r\n--x--\r\n",
        part.replace(b"\r\n", b"\n"),
        b"--x\r\n" + b"A: b\r\n" * 5000 + b"\r\n\r\n--x--\r\n",
        b"x" * 5000,
    ]
    return post_request(source.draw.choice(wrong), {"Content-Type": "multipart/form-data; boundary=x"})


def deep_json(source: Source) -> bytes:
    """Return JSON that is nested too deeply, for the native interface or the Open Inference Protocol."""
    depth = source.draw.choice([500, 20_000, 200_000])
    body = source.draw.choice(
        [
            b"[" * depth,
            b"[" * depth + b"]" * depth,
            b'{"a":' * depth + b"1" + b"}" * depth,
            b'{"images":[' + b"[" * depth,
        ]
    )
    return post_request(
        body,
        {"Content-Type": "application/json"},
        source.draw.choice(["/v1/predict", "/v2/models/open_nsfw/infer", "/v2/repository/index"]),
    )


def bad_json(source: Source) -> bytes:
    """Return JSON that is none, or says something else."""
    good = base64.b64encode(source.photo).decode()
    wrong = [
        "{",
        "nul",
        '{"images": 5}',
        '{"images": []}',
        '{"images": [{"data": "***"}]}',
        '{"images": [{"data": 1e999}]}',
        '{"images": [null]}',
        "NaN",
        '"\\ud800"',
    ]
    wrong += [
        json.dumps({"images": [{"data": good}], "model": source.draw.choice(["\0", "../x", 5, None, [], "x" * 9000])}),
        json.dumps({"images": [{"data": good[:-3]}]}),
    ]
    wrong += [
        json.dumps({"images": [{"data": ""}] * 5000}),
        '{"images": [{"data": "", "name": "' + "n" * 100_000 + '"}]}',
        "1" * 100_000,
        "\xff\xfe",
    ]
    return post_request(source.draw.choice(wrong).encode("latin-1"), {"Content-Type": "application/json"})


def tensor_lie(source: Source) -> bytes:
    """Return a binary tensor whose sizes lie: of the head, of the data, of an element, of the shape."""
    size = source.draw.choice(
        [len(source.photo) + 4, 0, -1, 2**31, 2**63, 2**64, 1e300, "5", None, True, len(source.photo)]
    )
    shape = source.draw.choice([[1], [0], [-1], [2**62, 2**62], [1, 1, 1, 1, 1], [], "x", [1.5], [None], [2**40]])
    kind = source.draw.choice(["BYTES", "FP32", "UINT8", "BOOL", "FP64", "NOPE", None, 5])
    tensor = {
        "name": source.draw.choice(["image", "input:0", "", "x" * 3000, None]),
        "shape": shape,
        "datatype": kind,
        "parameters": {"binary_data_size": size},
    }
    head = json.dumps(
        {
            "inputs": [tensor] * source.draw.choice([1, 1, 2]),
            "outputs": [{"name": source.draw.choice(["outputs", "score", "nope"])}] * source.draw.choice([1, 2]),
        }
    ).encode()
    body = (
        struct.pack("<I", source.draw.choice([len(source.photo), 0, 2**32 - 1, len(source.photo) + 1])) + source.photo
    )
    length = source.draw.choice(
        [len(head), len(head), len(head), len(head) + 1, len(head) + len(body) + 1, -1, 0, "x", 2**70, ""]
    )
    model = source.draw.choice(["open_nsfw", "open_nsfw.tensor"])
    return post_request(
        head + body,
        {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)},
        f"/v2/models/{model}/infer",
    )


def tensor_json(source: Source) -> bytes:
    """Return tensors in JSON that don't fit what they say."""
    data = source.draw.choice(
        [[1, 2], [], "x", [[1], [2, 3]], [1e400], [None], [{"a": 1}], [0.0] * 150_528, [2**70], ["a"]]
    )
    tensor = {
        "name": source.draw.choice(["input:0", "image"]),
        "shape": source.draw.choice([[1, 224, 224, 3], [2], [-1, 2], [2**31, 2**31]]),
        "datatype": source.draw.choice(["FP32", "INT8", "BYTES"]),
        "data": data,
    }
    body = json.dumps(
        {
            "id": source.draw.choice(["1", 5, None]),
            "inputs": source.draw.choice([[tensor], [tensor, tensor], [], None, [None]]),
        }
    ).replace("Infinity", "1e400")
    return post_request(
        body.encode(),
        {"Content-Type": "application/json"},
        f"/v2/models/{source.draw.choice(['open_nsfw', 'open_nsfw.tensor'])}/infer",
    )


def squeezed(source: Source) -> bytes:
    """Return a compressed body: a bomb, or damaged."""
    packed = (
        zlib.compress(bytes(source.draw.choice([100, 200_000_000])), 1)
        if source.draw.random() < 0.02
        else zlib.compress(b'{"inputs":[]}')[: source.draw.randrange(1, 20)]
    )
    headers = {
        "Content-Type": "application/json",
        "Content-Encoding": source.draw.choice(["deflate", "gzip", "br", "zip, gzip", "x"]),
    }
    return post_request(packed, headers, source.draw.choice(["/v2/models/open_nsfw/infer", "/v1/predict"]))


KINDS: dict[str, Build] = {
    build.__name__.replace("_", " "): build
    for build in (
        flipped, flipped_head, cut, noise, bomb, active, empty, wrong_type, bad_length, two_lengths, bad_chunks,
        too_short, no_http, odd_path, odd_parameters, many_headers, too_large, bad_parts, deep_json, bad_json,
        tensor_lie,
        tensor_json, squeezed,
    )
}  # fmt: skip
INCOMPLETE = frozenset({"too short", "bad length", "bad chunks", "no http", "two lengths", "too large"})
"""Kinds after which no more is sent, though the head may say that more comes."""
