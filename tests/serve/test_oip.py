"""The Open Inference Protocol over HTTP, with a real service."""

from __future__ import annotations

import base64
import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

import plimsoll
from helpers.oip_service import (
    LENGTH,
    ServedProtocols,
    alone,
    element,
    patient,
    serving,
    tensors,
    with_tensors,
    write_mixed,
)

INFER = "/v2/models/open_nsfw/infer"
BARE = "/v2/models/open_nsfw.tensor/infer"


@pytest.fixture(scope="module")
def oip(nsfw_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProtocols]:
    """open_nsfw, and a network of several inputs and datatypes."""
    del nsfw_model_path
    settings = patient(max_items=8, max_body_bytes=4_000_000)
    with serving(settings, alone("open_nsfw"), write_mixed(tmp_path_factory.mktemp("mixed"))) as service:
        yield service


@pytest.fixture(scope="module")
def photos(example_photos: list[Path]) -> list[bytes]:
    return [photo.read_bytes() for photo in sorted(example_photos, key=lambda photo: photo.stat().st_size)[:4]]


@pytest.fixture(scope="module")
def expected(photos: list[bytes]) -> NDArray[np.float32]:
    """What the network says of the photos, `[4, 2]`."""
    with plimsoll.load("open_nsfw") as model:
        return np.array([list(model.predict(photo).scores.values()) for photo in photos], np.float32)  # type: ignore[attr-defined]


def picture(data: str | dict[str, str]) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [data]}]}


def test_the_server_says_what_it_is(oip: ServedProtocols) -> None:
    server = oip.get("/v2").json()
    assert (server["name"], server["version"]) == ("plimsoll", plimsoll.__version__)
    assert {"binary_tensor_data", "classification", "statistics", "model_repository", "model_configuration"} <= set(
        server["extensions"]
    )
    assert not any("shared_memory" in extension for extension in server["extensions"])
    assert oip.get("/v2/health/live").json() == {"live": True}
    ready = oip.get("/v2/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"live": True, "ready": True})


def test_readiness_ends_with_draining_and_liveness_does_not(oip: ServedProtocols) -> None:
    oip.service.draining = True
    try:
        ready = oip.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"live": False, "ready": False})
        assert oip.get("/v2/health/live").status_code == 200
    finally:
        oip.service.draining = False


def test_a_model_takes_pictures_and_its_network_stands_beside_it(oip: ServedProtocols) -> None:
    version = oip.service.find("open_nsfw").version
    model = oip.get("/v2/models/open_nsfw").json()
    assert model["versions"] == [version]
    assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert model["outputs"] == [{"name": "outputs", "datatype": "FP32", "shape": [-1, 2]}]
    bare = oip.get(f"/v2/models/open_nsfw.tensor/versions/{version}").json()
    assert bare["inputs"] == [{"name": "input:0", "datatype": "FP32", "shape": [-1, 224, 224, 3]}]
    assert bare["outputs"] == model["outputs"]
    assert {output["name"]: output["datatype"] for output in oip.get("/v2/models/mixed").json()["outputs"]} == {
        "mean": "FP32",
        "half": "FP16",
        "whole": "INT64",
        "bright": "BOOL",
    }


def test_the_configuration_says_how_many_rows_a_request_may_have(oip: ServedProtocols) -> None:
    pictures, bare = (oip.get(f"/v2/models/{name}/config").json() for name in ("open_nsfw", "open_nsfw.tensor"))
    assert pictures["max_batch_size"] == 0
    assert pictures["input"] == [{"name": "image", "data_type": "TYPE_STRING", "dims": [-1]}]
    assert bare["max_batch_size"] == 8
    assert bare["input"] == [{"name": "input:0", "data_type": "TYPE_FP32", "dims": [224, 224, 3]}]


@pytest.mark.parametrize("path", ["", "/ready", "/config", "/stats", "/versions/99", "/versions/99/ready"])
def test_an_unknown_model_or_version_is_404_in_words(oip: ServedProtocols, path: str) -> None:
    name = "open_nsfw" if "99" in path else "nobody"
    reply = oip.get(f"/v2/models/{name}{path}")
    assert reply.status_code == 404
    assert "open_nsfw" in reply.json()["error"]


def test_each_way_of_sending_a_picture_gives_the_network_s_answer(
    oip: ServedProtocols, photos: list[bytes], expected: NDArray[np.float32]
) -> None:
    text = base64.b64encode(photos[0]).decode()
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(photos[0]) + 4}}
    body, length = with_tensors({"inputs": [image]}, element(photos[0]))
    wrapped = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    ways = {
        "whole body": oip.post(INFER, photos[0], Inference_Header_Content_Length="0"),
        "binary": oip.post(INFER, body, Inference_Header_Content_Length=length),
        "base64": oip.post(INFER, picture(text)),
        "base64 in lines": oip.post(INFER, picture(wrapped)),
        "base64 for URLs": oip.post(INFER, picture(base64.urlsafe_b64encode(photos[0]).decode().rstrip("="))),
        "b64": oip.post(INFER, picture({"b64": text})),
        "version": oip.post(
            f"/v2/models/open_nsfw/versions/{oip.service.find('open_nsfw').version}/infer", picture(text)
        ),
        "gzip": oip.post(INFER, gzip.compress(body), Inference_Header_Content_Length=length, Content_Encoding="gzip"),
        "deflate": oip.post(
            INFER, zlib.compress(body), Inference_Header_Content_Length=length, Content_Encoding="deflate"
        ),
        "chunks": oip.client.post(
            INFER, content=(body[at : at + 1000] for at in range(0, len(body), 1000)), headers={LENGTH: length}
        ),
    }
    for way, reply in ways.items():
        np.testing.assert_allclose(tensors(reply)["outputs"], expected[:1], atol=1e-6, err_msg=way)
    assert LENGTH not in ways["binary"].headers
    assert ways["binary"].headers["Content-Type"] == "application/json"
    assert LENGTH in ways["whole body"].headers, "a request without JSON gets bytes"


def test_several_pictures_are_answered_in_their_order(
    oip: ServedProtocols, photos: list[bytes], expected: NDArray[np.float32]
) -> None:
    size = sum(len(photo) + 4 for photo in photos)
    for shape in ([4], [2, 2]):
        image = {"name": "image", "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": size}}
        body, length = with_tensors(
            {"id": "a1", "inputs": [image], "parameters": {"binary_data_output": True}}, *map(element, photos)
        )
        reply = oip.post(INFER, body, Inference_Header_Content_Length=length)
        np.testing.assert_allclose(tensors(reply)["outputs"], expected, atol=1e-6)
    assert b'"id":"a1"' in reply.content
    assert b'"binary_data_size":32' in reply.content


def test_classification_gives_the_best_labels(
    oip: ServedProtocols, photos: list[bytes], expected: NDArray[np.float32]
) -> None:
    ask = picture(base64.b64encode(photos[0]).decode()) | {
        "outputs": [{"name": "outputs", "parameters": {"classification": 2}}]
    }
    (output,) = oip.post(INFER, ask).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 2])
    order = np.argsort(-expected[0])
    parts = [text.split(":") for text in output["data"]]
    assert [(int(index), label) for _, index, label in parts] == [(rank, ("sfw", "nsfw")[rank]) for rank in order]
    assert [float(value) for value, _, _ in parts] == pytest.approx(expected[0][order], abs=1e-5)


def test_the_bare_network_answers_what_it_answers_behind_the_input_steps(
    oip: ServedProtocols, photos: list[bytes], expected: NDArray[np.float32]
) -> None:
    with plimsoll.load("open_nsfw") as model:
        rows = np.stack([model.preprocessor(photo) for photo in photos[:3]])
    tensor = {"name": "input:0", "shape": rows.shape, "datatype": "FP32"}
    binary, length = with_tensors(
        {"inputs": [tensor | {"parameters": {"binary_data_size": rows.nbytes}}]}, rows.tobytes()
    )
    np.testing.assert_allclose(
        tensors(oip.post(BARE, binary, Inference_Header_Content_Length=length))["outputs"], expected[:3], atol=1e-6
    )
    request = {"inputs": [tensor | {"shape": [1, 224, 224, 3], "data": rows[0].astype(float).round(3).tolist()}]}
    wrong = oip.post(BARE, request)
    assert (wrong.status_code, wrong.json()["error"][:15]) == (
        400,
        "input 'input:0'",
    ), "the data is nested otherwise than its shape"
    request["inputs"][0]["data"] = [request["inputs"][0]["data"]]
    np.testing.assert_allclose(tensors(oip.post(BARE, request))["outputs"], expected[:1], atol=1e-3)
    whole = oip.post(BARE, rows[1].tobytes(), Inference_Header_Content_Length="0")
    np.testing.assert_allclose(tensors(whole)["outputs"], expected[1:2], atol=1e-6)


def test_each_output_goes_as_it_is_asked_for(oip: ServedProtocols) -> None:
    pixels = np.full((2, 2, 2, 3), 1.5, np.float32)
    inputs = [
        {"name": "gain", "shape": [2, 1], "datatype": "INT64", "data": [3, -(2**40)]},
        {
            "name": "pixels",
            "shape": [2, 2, 2, 3],
            "datatype": "FP32",
            "parameters": {"binary_data_size": pixels.nbytes},
        },
    ]
    requested = [
        {"name": "whole"},
        {"name": "bright", "parameters": {"binary_data": False}},
        {"name": "half", "parameters": {"classification": 0}},
    ]
    body, length = with_tensors(
        {"inputs": inputs, "outputs": requested, "parameters": {"binary_data_output": True}}, pixels.tobytes()
    )
    reply = oip.post("/v2/models/mixed.tensor/infer", body, Inference_Header_Content_Length=length)
    outputs = tensors(reply)
    assert list(outputs) == ["whole", "bright", "half"]
    assert outputs["whole"].tolist() == [[4], [1 - 2**40]]
    assert outputs["bright"].tolist() == [[False], [True]]
    assert outputs["half"].tolist() == [[4.5], [-math.inf]]
    described = httpx.Response(200, content=reply.content[: int(reply.headers[LENGTH])]).json()["outputs"]
    assert [("data" in output, output.get("parameters")) for output in described] == [
        (False, {"binary_data_size": 16}),
        (True, None),
        (False, {"binary_data_size": 4}),
    ]


def test_json_has_no_nan_so_it_is_null_there_and_itself_as_bytes(oip: ServedProtocols) -> None:
    inputs = (
        '{"name":"gain","shape":[1,1],"datatype":"INT64","data":[2]},'
        '{"name":"pixels","shape":[1,2,2,3],"datatype":"FP32","data":[NaN,1,1,1,1,1,1,1,1,1,1,1]}'
    )
    body = f'{{"inputs":[{inputs}],"outputs":[{{"name":"mean"}}%s]}}'
    plain = oip.post("/v2/models/mixed.tensor/infer", body % "")
    assert plain.json()["outputs"][0]["data"] == [None]
    both = oip.post(
        "/v2/models/mixed.tensor/infer", body.replace('"mean"', '"mean","parameters":{"binary_data":true}') % ""
    )
    assert np.isnan(tensors(both)["mean"]).all()


def test_a_picture_that_can_t_be_read_is_named(oip: ServedProtocols, photos: list[bytes]) -> None:
    image = {
        "name": "image",
        "shape": [2],
        "datatype": "BYTES",
        "data": [base64.b64encode(photo).decode() for photo in (photos[0], photos[1][:300])],
    }
    reply = oip.post(INFER, {"inputs": [image]})
    assert reply.status_code == 415
    assert "picture 2 of 2" in reply.json()["error"]


def test_a_timeout_in_microseconds_is_kept(oip: ServedProtocols, photos: list[bytes]) -> None:
    ask = picture(base64.b64encode(photos[0]).decode())
    assert oip.post(INFER, ask | {"parameters": {"timeout": 1}}).status_code == 504
    assert oip.post(INFER, ask | {"parameters": {"timeout": 50_000_000, "priority": 1}}).status_code == 200
    assert oip.post(INFER, ask | {"parameters": {"timeout": 0, "priority": 7}}).status_code == 200


def test_statistics_count_what_was_done(oip: ServedProtocols, photos: list[bytes]) -> None:
    def read() -> dict[str, Any]:
        (statistics,) = oip.get("/v2/models/open_nsfw/stats").json()["model_stats"]
        assert isinstance(statistics, dict)
        return statistics

    before = read()
    oip.post(INFER, photos[0], Inference_Header_Content_Length="0")
    after = read()
    assert after["inference_count"] == before["inference_count"] + 1
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        old, new = before["inference_stats"][stage], after["inference_stats"][stage]
        assert new["count"] == old["count"] + 1
        assert new["ns"] > old["ns"]
    assert after["last_inference"] >= before["last_inference"]
    assert {model["name"] for model in oip.get("/v2/models/stats").json()["model_stats"]} == {
        "open_nsfw",
        "open_nsfw.tensor",
        "mixed",
        "mixed.tensor",
    }


def test_unloading_and_loading(oip: ServedProtocols, photos: list[bytes]) -> None:
    version = int(oip.service.find("open_nsfw").version)
    assert oip.post("/v2/repository/models/open_nsfw.tensor/unload", b"").status_code == 200
    states = {entry["name"]: entry["state"] for entry in oip.post("/v2/repository/index", b"").json()}
    assert states == {
        "open_nsfw": "UNAVAILABLE",
        "open_nsfw.tensor": "UNAVAILABLE",
        "mixed": "READY",
        "mixed.tensor": "READY",
    }
    assert [entry["name"] for entry in oip.post("/v2/repository/index", {"ready": True}).json()] == [
        "mixed",
        "mixed.tensor",
    ]
    for reply in (
        oip.get("/v2/models/open_nsfw/ready"),
        oip.post(INFER, photos[0], Inference_Header_Content_Length="0"),
    ):
        assert reply.status_code == 503
        assert "unloaded" in reply.json()["error"]
    refused = oip.post(
        "/v2/repository/models/open_nsfw/load", {"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}}
    )
    assert (refused.status_code, "not taken from callers" in refused.json()["error"]) == (400, True)
    assert oip.post("/v2/repository/models/open_nsfw/load", b"").status_code == 200
    assert oip.get(f"/v2/models/open_nsfw/versions/{version + 1}/ready").status_code == 200
    assert oip.post(INFER, photos[0], Inference_Header_Content_Length="0").status_code == 200
