"""Hostile and broken requests of the Open Inference Protocol: each gets one answer in words, and the service serves
on."""

from __future__ import annotations

import gzip
import json
import random
import socket
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from helpers.oip_service import LENGTH, ServedProtocols, element, patient, serving, tensors, with_tensors, write_mixed
from plimsoll.serve.parsing import TENSOR_JSON

BODY_LIMIT = 6_000_000
PICTURES = "/v2/models/mixed/infer"
BARE = "/v2/models/mixed.tensor/infer"


@pytest.fixture(scope="module")
def oip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProtocols]:
    """A service whose network needs no weights. After all tests it must still answer, and hold nothing back."""
    settings = patient(max_items=8, max_body_bytes=BODY_LIMIT)
    with serving(settings, write_mixed(tmp_path_factory.mktemp("mixed"))) as service:
        yield service
        healthy(service)
        assert service.service.memory.blocks.used == 0
        assert service.service.find("mixed").scheduler.waiting == 0


def healthy(service: ServedProtocols) -> None:
    reply = service.post(
        BARE,
        {"inputs": [tensor("gain", [1, 1], "INT64", data=[4]), tensor("pixels", [1, 2, 2, 3], "FP32", data=[1] * 12)]},
    )
    assert tensors(reply)["whole"].tolist() == [[5]]


def tensor(name: str, shape: Any, datatype: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, **more}


def picture(shape: Any, data: Any, datatype: Any = "BYTES", **more: Any) -> dict[str, Any]:
    return {"inputs": [tensor("image", shape, datatype, data=data)], **more}


def bare(pixels: dict[str, Any] | None = None, gain: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    first = tensor("pixels", [1, 2, 2, 3], "FP32", data=[1] * 12) | (pixels or {})
    second = tensor("gain", [1, 1], "INT64", data=[1]) | (gain or {})
    return {"inputs": [first, second], **more}


def refused(reply: httpx.Response, *words: str, status: int = 400) -> None:
    assert reply.status_code == status, reply.text
    assert list(reply.json()) == ["error"]
    for word in words:
        assert word in reply.json()["error"]


HEADERS = ["x", "-1", "+5", "1e3", "0x10", "", "9" * 18, "9" * 400, "1_0", "٣", "5;5", "1.0", "40, 40"]


@pytest.mark.parametrize("value", HEADERS)
def test_a_length_of_the_json_that_is_invalid(oip: ServedProtocols, value: str) -> None:
    body = json.dumps(bare()).encode()
    reply = oip.client.post(BARE, content=body, headers=[(LENGTH.encode(), value.encode())])
    refused(reply, LENGTH)


def test_two_lengths_of_the_json(oip: ServedProtocols) -> None:
    body = json.dumps(bare()).encode()
    refused(oip.client.post(BARE, content=body, headers=[(LENGTH, str(len(body))), (LENGTH, "0")]), LENGTH)


@pytest.mark.parametrize("off", [-1, 1, -300])
def test_a_length_of_the_json_that_lies(oip: ServedProtocols, off: int) -> None:
    pixels = tensor("pixels", [1, 2, 2, 3], "FP32", parameters={"binary_data_size": 48})
    body, length = with_tensors({"inputs": [pixels, tensor("gain", [1, 1], "INT64", data=[1])]}, bytes(48))
    refused(oip.post(BARE, body, Inference_Header_Content_Length=str(max(1, int(length) + off))))


@pytest.mark.parametrize(
    "size",
    [47, 49, 0, -48, 2**31, 2**63, 10**30, 48.0, "48", True, [48], {}],
    ids=lambda size: f"{type(size).__name__} {size}",
)
def test_a_size_of_a_tensor_that_lies(oip: ServedProtocols, size: object) -> None:
    pixels = tensor("pixels", [1, 2, 2, 3], "FP32", parameters={"binary_data_size": size})
    body, length = with_tensors({"inputs": [pixels, tensor("gain", [1, 1], "INT64", data=[1])]}, bytes(48))
    refused(oip.post(BARE, body, Inference_Header_Content_Length=length))


def test_bytes_that_are_too_many_or_too_few_behind_the_json(oip: ServedProtocols) -> None:
    pixels = tensor("pixels", [1, 2, 2, 3], "FP32", parameters={"binary_data_size": 48})
    gain = tensor("gain", [1, 1], "INT64", data=[1])
    for behind, words in ((bytes(49), "49 bytes"), (bytes(47), "47 are left"), (b"", "0 are left")):
        body, length = with_tensors({"inputs": [pixels, gain]}, behind)
        refused(oip.post(BARE, body, Inference_Header_Content_Length=length), words)


def test_more_rows_than_a_request_may_have(oip: ServedProtocols) -> None:
    refused(oip.post(PICTURES, picture([9], ["AAAA"] * 9)), "1 to 8")
    body, length = with_tensors(
        {"inputs": [tensor("image", [3, 3], "BYTES", parameters={"binary_data_size": 45})]}, element(b"x") * 9
    )
    refused(oip.post(PICTURES, body, Inference_Header_Content_Length=length), "1 to 8")
    refused(
        oip.post(BARE, bare({"shape": [9, 2, 2, 3], "data": [1] * 108}, {"shape": [9, 1], "data": [1] * 9})),
        "at most 8",
    )


SHAPES: list[Any] = [
    [-1, 2, 2, 3],
    [0, 2, 2, 3],
    [1, 2, 2, -3],
    [2**62, 2**62, 2**62, 3],
    [2**64, 2, 2, 3],
    [1, 2, 2],
    [1, 2, 2, 3, 1],
    [12],
    [],
    [1] * 1000,
    [[1, 2, 2, 3]],
    "1,2,2,3",
    None,
    {},
    12,
    [1, 2, 2, "3"],
    [1, 2, 2, 3.0],
    [True, 2, 2, 3],
    [1, 2, 2, None],
    [9, 2, 2, 3],
    [10**4000, 2, 2, 3],
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape)[:30])
def test_a_shape_that_can_t_be(oip: ServedProtocols, shape: object) -> None:
    refused(oip.post(BARE, bare({"shape": shape})), "shape")
    if not (isinstance(shape, list) and shape in ([12], [1] * 1000, [])):
        request = {
            "inputs": [
                tensor("pixels", shape, "FP32", parameters={"binary_data_size": 48}),
                tensor("gain", [1, 1], "INT64", data=[1]),
            ]
        }
        body, length = with_tensors(request, bytes(48))
        refused(oip.post(BARE, body, Inference_Header_Content_Length=length), "shape")


@pytest.mark.parametrize(
    "shape",
    [[0], [-1], [-1, -1], [9], [2**62], [2, 2**62], [2**32, 2**32], [10**4000], [3], [2, 2]],
    ids=lambda shape: str(shape)[:30],
)
def test_a_shape_of_pictures_that_can_t_be(oip: ServedProtocols, shape: list[int]) -> None:
    refused(oip.post(PICTURES, picture(shape, ["AAAA"])), "shape")
    for elements in (element(b"x"), element(b""), b""):
        request = {"inputs": [tensor("image", shape, "BYTES", parameters={"binary_data_size": len(elements)})]}
        body, length = with_tensors(request, elements)
        refused(oip.post(PICTURES, body, Inference_Header_Content_Length=length), "shape")


DATA: list[tuple[Any, dict[str, Any]]] = [
    ("FP32", {"data": [1] * 11}),
    ("FP32", {"data": [1] * 13}),
    ("FP32", {"data": []}),
    ("FP32", {"data": None}),
    ("FP32", {"data": "1" * 12}),
    ("FP32", {"data": {"0": 1}}),
    ("FP32", {}),
    ("FP32", {"data": [[1] * 6, [1] * 5]}),
    ("FP32", {"data": [[1] * 6] * 2}),
    ("FP32", {"data": ["1"] * 12}),
    ("FP32", {"data": [None] * 12}),
    ("FP32", {"data": [True] * 12}),
    ("FP32", {"data": [1e300] * 12}),
    ("FP32", {"data": [10**400] * 12}),
    ("FP32", {"data": [{}] * 12}),
    ("FP64", {"data": [1] * 12}),
    ("BYTES", {"data": ["x"] * 12}),
    ("BF16", {"data": [1] * 12}),
    ("fp32", {"data": [1] * 12}),
    ("", {"data": [1] * 12}),
    (None, {"data": [1] * 12}),
    (["FP32"], {"data": [1] * 12}),
    ("FP32" * 10**5, {"data": [1] * 12}),
]


@pytest.mark.parametrize(("datatype", "more"), DATA, ids=lambda part: str(part)[:40])
def test_data_that_doesn_t_fit(oip: ServedProtocols, datatype: object, more: dict[str, Any]) -> None:
    request = bare()
    request["inputs"][0] = tensor("pixels", [1, 2, 2, 3], datatype, **more)
    refused(oip.post(BARE, request), "pixels")


@pytest.mark.parametrize(
    "value", [2**63, -(2**63) - 1, 1.5, 1e400, "1", True, None, 10**4000], ids=lambda value: str(value)[:20]
)
def test_whole_numbers_that_are_invalid_or_too_large(oip: ServedProtocols, value: object) -> None:
    refused(oip.post(BARE, json.dumps(bare(gain={"data": [value]}))))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "no base64!",
        "AAAA" * 10,
        "=",
        "\x00",
        5,
        None,
        ["AAAA", "AAAA"],
        {"b64": 5},
        {"b64": "AAAA", "x": 1},
        {"url": "http://x"},
    ],
    ids=str,
)
def test_pictures_that_are_invalid(oip: ServedProtocols, data: object) -> None:
    reply = oip.post(PICTURES, picture([1], [data]))
    assert reply.status_code in (400, 415)
    assert list(reply.json()) == ["error"]


LENGTHS = {
    "too long": b"\xff\xff\xff\xff" + b"x" * 20,
    "one too long": b"\x15\x00\x00\x00" + b"x" * 20,
    "one too short": b"\x13\x00\x00\x00" + b"x" * 20,
    "cut off": b"\x01\x00\x00",
    "second missing": element(b"x"),
    "third too much": element(b"x") * 3,
    "all empty and more": b"\x00" * 4_000_000,
}


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_of_elements_that_lie(oip: ServedProtocols, name: str) -> None:
    shape = [2] if "second" in name or "third" in name or "all" in name else [1]
    body, length = with_tensors(
        {"inputs": [tensor("image", shape, "BYTES", parameters={"binary_data_size": len(LENGTHS[name])})]},
        LENGTHS[name],
    )
    refused(
        oip.post(PICTURES, body, Inference_Header_Content_Length=length),
        "image",
        "is said to have" if "too long" in name else "",
    )


REQUESTS: dict[str, Any] = {
    "two inputs of one name": {"inputs": [tensor("image", [1], "BYTES", data=["AAAA"])] * 2},
    "two outputs of one name": picture([1], ["AAAA"], outputs=[{"name": "mean"}, {"name": "mean"}]),
    "unknown input": {"inputs": [tensor("x" * 10_000, [1], "BYTES", data=["AAAA"])]},
    "unknown output": picture([1], ["AAAA"], outputs=[{"name": "mean\r\nX: y"}]),
    "no inputs": {"inputs": []},
    "nothing": {},
    "inputs that are no list": {"inputs": {"name": "image"}},
    "an input that is no object": {"inputs": [5]},
    "outputs that are no list": picture([1], ["AAAA"], outputs="mean"),
    "a name that is no text": {"inputs": [tensor(5, [1], "BYTES", data=["AAAA"])]},  # type: ignore[arg-type]
    "an id that is no text": picture([1], ["AAAA"], id=5),
    "parameters that are no object": picture([1], ["AAAA"], parameters=[1]),
    "priority": picture([1], ["AAAA"], parameters={"priority": "high"}),
    "timeout": picture([1], ["AAAA"], parameters={"timeout": -5}),
    "timeout that is NaN": picture([1], ["AAAA"], parameters={"timeout": float("nan")}),
    "binary_data_output": picture([1], ["AAAA"], parameters={"binary_data_output": 1}),
    "classification": picture([1], ["AAAA"], outputs=[{"name": "mean", "parameters": {"classification": -1}}]),
    "shared memory in": {
        "inputs": [
            tensor(
                "image", [1], "BYTES", parameters={"shared_memory_region": "/etc/passwd", "shared_memory_byte_size": 5}
            )
        ]
    },
    "shared memory out": picture(
        [1], ["AAAA"], outputs=[{"name": "mean", "parameters": {"shared_memory_region": "x"}}]
    ),
    "data twice": {"inputs": [tensor("image", [1], "BYTES", data=["AAAA"], parameters={"binary_data_size": 0})]},
    "a missing input": {"inputs": bare()["inputs"][:1]},
    "rows that differ": bare(gain={"shape": [2, 1], "data": [1, 2]}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_that_contradict_themselves(oip: ServedProtocols, name: str) -> None:
    reply = oip.post(BARE if name in ("a missing input", "rows that differ") else PICTURES, json.dumps(REQUESTS[name]))
    refused(reply)
    assert len(reply.content) < 500


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"{",
        b'{"inputs":',
        b"\xff\xd8\xff\xe0" * 50,
        b"\x00" * 1000,
        b"[" * 100_000,
        b'{"inputs":' * 10_000,
        b'{"a":[' * 300 + b"]}" * 300,
        b"1" * 5_000_000,
        b'{"inputs":[{"shape":[' + b"1" * 5000 + b"]}]}",
        b'{"id":"\\ud800"}',
        b'{"id":"\xff"}',
    ],
    ids=lambda body: repr(body[:20]),
)
def test_bodies_that_are_not_requests(oip: ServedProtocols, body: bytes) -> None:
    refused(oip.post(BARE, body))


@pytest.mark.parametrize("pattern", [b"[],", b"{},", b"1,", b'"",', b"[[],{}],"], ids=repr)
def test_json_that_takes_many_times_its_size_is_not_read(oip: ServedProtocols, pattern: bytes) -> None:
    body = b'{"inputs":[' + (pattern * (BODY_LIMIT // len(pattern)))[: BODY_LIMIT - 100] + b"5]}"
    assert sum(map(body.count, (b",", b"[", b"{"))) > TENSOR_JSON.values
    tracemalloc.start()
    try:
        refused(oip.post(BARE, body), status=413)
        assert tracemalloc.get_traced_memory()[1] < 4 * BODY_LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", ["inputs", "outputs", "images"])
def test_mistakes_by_the_hundred_thousand_are_not_all_named(oip: ServedProtocols, key: str) -> None:
    """Each would take half a kilobyte and microseconds, while everybody else waits."""
    body = {"inputs": bare()["inputs"]} if key == "outputs" else {}
    body |= {key: [5] * 300_000}
    tracemalloc.start()
    try:
        reply = oip.post("/v1/predict" if key == "images" else BARE, body)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
    assert reply.status_code == (413 if key == "images" else 400)
    assert key == "images" or f"{key}[0]: found 5" in reply.text
    assert len(reply.content) < 500


def test_a_value_of_many_megabytes_is_shown_by_its_beginning(oip: ServedProtocols) -> None:
    for value in (["x" * 2_000_000], {"x": [1] * 200_000}, "x" * 3_000_000):
        reply = oip.post(BARE, {"inputs": value})
        refused(reply, "inputs", "expected a valid")
        assert len(reply.content) < 500


def test_compressed_bodies_that_are_bombs_or_damaged(oip: ServedProtocols) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        refused(oip.post(BARE, bomb, Content_Encoding="gzip"), status=413)
        assert tracemalloc.get_traced_memory()[1] < 4 * BODY_LIMIT
    finally:
        tracemalloc.stop()
    good = json.dumps(bare()).encode()
    assert oip.post(BARE, zlib.compress(good), Content_Encoding="deflate").status_code == 200
    for damaged in (
        gzip.compress(good)[:-9],
        gzip.compress(good) + b"x",
        b"x" * 50,
        good,
        b"",
        gzip.compress(gzip.compress(good)),
    ):
        refused(oip.post(BARE, damaged, Content_Encoding="gzip"))
    for unknown in ("br", "zstd", "gzip, gzip", "x" * 5000):
        refused(oip.post(BARE, good, Content_Encoding=unknown), "gzip, deflate", status=415)


@pytest.mark.parametrize("size", [0, 1, 47, 49, 48_000])
def test_a_bare_tensor_of_another_size(oip: ServedProtocols, size: int) -> None:
    refused(oip.post(BARE, bytes(size), Inference_Header_Content_Length="0"), "input")


def test_names_and_versions_that_are_invalid(oip: ServedProtocols) -> None:
    for name in (
        "..",
        "%2e%2e%2fetc",
        "mixed%00",
        ".tensor",
        "mixed.tensor.tensor",
        "m" * 5000,
        "%F0%9F%98%80",
        "mixed/versions/-1",
        "mixed/versions/1e9",
        "mixed/versions/%00",
    ):
        reply = oip.get(f"/v2/models/{name}/ready")
        assert reply.status_code == 400 if "%00" in name else reply.status_code in (404, 414), (name, reply.text)
        assert list(reply.json()) == ["error"]
    for method in ("PUT", "DELETE", "GET", "PATCH"):
        reply = oip.client.request(method, BARE)
        assert (reply.status_code, list(reply.json())) == (405, ["error"])


def test_chunks_that_never_end_right(oip: ServedProtocols) -> None:
    host, _, port = oip.http.partition(":")
    head = f"POST {BARE} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{LENGTH}: 5\r\n\r\n".encode()
    for tail in (b"5\r\n{}", b"fffffffff\r\n{}\r\n", b"-1\r\n\r\n", b"zz\r\n", b"2\r\n{}\r\n"):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(head + tail)
            connection.shutdown(socket.SHUT_WR)
            reply = connection.recv(65536)
        assert not reply or reply.split(b" ")[1] in (b"400", b"499"), reply
    healthy(oip)


def test_two_thousand_mutated_requests_get_one_answer_each(oip: ServedProtocols) -> None:
    chance = random.Random(5)
    pixels = tensor("pixels", [1, 2, 2, 3], "FP32", parameters={"binary_data_size": 48})
    body, length = with_tensors(
        {"inputs": [tensor("gain", [1, 1], "INT64", data=[1]), pixels]}, np.ones(12, "<f4").tobytes()
    )
    image = tensor("image", [2], "BYTES", parameters={"binary_data_size": 16})
    other, other_length = with_tensors({"inputs": [image], "outputs": [{"name": "mean"}]}, element(b"abcd") * 2)
    for _ in range(1000):
        for path, original, where in ((BARE, body, length), (PICTURES, other, other_length)):
            mutated = bytearray(original)
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(mutated))
                mutated[at : at + chance.randint(0, 3)] = chance.choice(
                    [bytes([chance.randrange(256)]), b"9", b"-", b'"', b"[", b"null", b""]
                )
            reply = oip.post(
                path,
                bytes(mutated),
                Inference_Header_Content_Length=str(max(0, int(where) + chance.choice([0, 0, 0, 1, -1, 48]))),
            )
            assert reply.status_code in (200, 400, 415), (reply.status_code, reply.text, mutated)
            assert reply.status_code == 200 or list(reply.json()) == ["error"]
    healthy(oip)
