"""A file of several frames: over HTTP and in the client its worst frame is answered and named; gRPC refuses it."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator

import pytest
from PIL import Image

import plimsoll
from helpers.brightness_network import brightness, classify, steps
from helpers.oip_service import ServedProtocols, alone, element, patient, serving
from plimsoll.spec import Input
from plimsoll.spec.files import dumps
from plimsoll.spec.steps import Decode

DARK, BRIGHTEST = 20, 2
LEVELS = (DARK, 60, 180, 90)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProtocols]:
    folder = tmp_path_factory.mktemp("frames")
    spec = classify(positive="bright").model_copy(
        update={"input": Input(steps=(Decode(frames="all", max_frames=100), *steps()[1:]))}
    )
    brightness(folder / "network.onnx", spec)
    (folder / "spec.toml").write_text(dumps(spec))
    with serving(patient(), alone("brightness", str(folder / "network.onnx"), folder / "spec.toml")) as running:
        yield running


def gif(*levels: int) -> bytes:
    stream = io.BytesIO()
    first, *others = [Image.new("L", (24, 16), level) for level in levels]
    first.save(stream, "GIF", save_all=True, append_images=others, duration=50)
    return stream.getvalue()


def test_http_names_the_worst_frame(service: ServedProtocols) -> None:
    answer = service.post("/v1/predict", gif(*LEVELS))
    assert answer.status_code == 200, answer.text
    row = answer.json()["results"][0]["answer"]
    assert (row["label"], row["frame"], row["frames"]) == ("bright", BRIGHTEST, len(LEVELS))
    too_many = service.post("/v1/predict", gif(*range(40)))
    assert too_many.status_code == 415
    assert "more than 32 frames" in too_many.text


def test_the_client_has_it_as_a_property(service: ServedProtocols) -> None:
    still = io.BytesIO()
    Image.new("L", (24, 16), LEVELS[BRIGHTEST]).save(still, "PNG")
    with plimsoll.Client(f"http://{service.http}") as client:
        worst, alone_ = (result.unwrap() for result in client.predict([gif(*LEVELS), still.getvalue()]))
    assert (worst.label, worst.frame) == ("bright", BRIGHTEST)
    assert worst.score == pytest.approx(alone_.score, abs=1e-6)
    with pytest.raises(AttributeError, match="no `frame`"):
        _ = alone_.frame


@pytest.mark.skipif(importlib.util.find_spec("grpc") is None, reason="gRPC is an extra")
def test_grpc_whose_answers_are_outputs_takes_one_frame_and_says_what_answers_several(service: ServedProtocols) -> None:
    import grpc

    from helpers.grpc_client import INFER
    from plimsoll.serve.grpc import oip_pb2

    def ask(picture: bytes) -> bytes:
        request = oip_pb2.ModelInferRequest(model_name="brightness", raw_input_contents=[element(picture)])
        request.inputs.add(name="image", datatype="BYTES", shape=[1])
        answer: bytes = channel.unary_unary(INFER)(request.SerializeToString(), timeout=60)
        return answer

    with grpc.insecure_channel(service.grpc) as channel:
        assert ask(gif(DARK))
        with pytest.raises(grpc.RpcError, match=r"4 frames have no outputs in common.*/v1/predict") as refused:
            ask(gif(*LEVELS))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
