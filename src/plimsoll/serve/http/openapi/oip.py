"""The Open Inference Protocol described."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from plimsoll.serve.http.openapi import oip_shapes as shapes
from plimsoll.serve.http.openapi import pictures
from plimsoll.serve.http.openapi.parts import Answer, Content, Operation, parameter, refusals
from plimsoll.serve.oip.binary import HEADER
from plimsoll.serve.oip.models import all_served
from plimsoll.serve.service import Service

_TAG = "Open Inference Protocol"
_UNKNOWN = {404: "There is no such model, or not in this version."}
_NOT_NOW = {503: "The model does not answer now."}
_BODY = {
    400: "The request contradicts itself, or is not what is read here; the text says where.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    503: "Too much is being received at once, or the model does not answer now.",
}
_INFER = _BODY | {
    413: "The body is too large, also when inflated, or its JSON holds too many values.",
    415: "A picture is of a kind that is not read, or can't be; or the body's compression is unknown.",
    422: "What the network gave does not fit its Spec.",
    500: "A worker ended, twice, while it computed this.",
    503: "There is no room, or no worker.",
    504: "There was no answer within `timeout`.",
}
_HOW = f"""A model takes pictures under its own name: the input `image`, BYTES `[-1]`, files of JPEG, PNG, WebP …; `NAME.tensor` takes the network's own inputs.

* JSON alone: without the header `{HEADER}`.
* JSON with tensors behind it (the binary tensor extension): the header says how many bytes of the body are JSON; each input with
  `parameters.binary_data_size` has so many bytes behind it, in the inputs' order. An element of BYTES follows its length (4 bytes, little-endian).
* One bare input: the header is 0, and the whole body is one picture, or one row of a network with one input. The outputs come as bytes.

The header decides; the content type is not looked at."""


def operations(service: Service) -> list[Operation]:
    """Return what the protocol's endpoints do."""
    names = [one.name for one in all_served(service)]
    return [*_server(), *_models(names), *_repository(names)]


def _get(path: str, name: str, summary: str, *answers: Answer) -> Operation:
    return Operation("get", path, name, summary, answers, _TAG)


def _ok(shape: type[Any], meaning: str = "It is.") -> Answer:
    return Answer(200, meaning, [Content(shape)])


def _server() -> list[Operation]:
    not_ready = Answer(503, "Not now.", [Content(shapes.Ready)])
    return [
        _get("/v2", "oipServer", "What the server is, and its extensions.", _ok(shapes.ServerMetadata, "The server.")),
        _get("/v2/health/live", "oipLive", "Whether the server is alive.", _ok(shapes.Live)),
        _get("/v2/health/ready", "oipReady", "Whether every model answers.", _ok(shapes.Ready), not_ready),
        _get(
            "/v2/models/stats", "oipAllStatistics", "What all models did.", _ok(shapes.Statistics, "Their statistics.")
        ),
    ]


def _models(names: list[str]) -> Iterator[Operation]:
    """Yield what is asked of a model: each with a version, and without."""
    gone, gone_or_not_now = refusals(shapes.Fault, _UNKNOWN), refusals(shapes.Fault, _UNKNOWN | _NOT_NOW)
    model = parameter("name", "path", {"type": "string", "enum": names}, "The model's name.")
    version = parameter(
        "version", "path", {"type": "string"}, "Which load of the model; another than the current one is 404.", "1"
    )
    asked = [
        _infer(),
        _get(
            "",
            "oipModel",
            "What a model takes and gives.",
            _ok(shapes.ModelMetadata, "Its metadata."),
            *gone_or_not_now,
        ),
        _get("/ready", "oipModelReady", "Whether a model answers.", _ok(shapes.ModelReady), *gone_or_not_now),
        _get(
            "/config",
            "oipConfiguration",
            "A model's configuration, as Triton writes it.",
            _ok(shapes.ModelConfiguration, "It."),
            *gone_or_not_now,
        ),
        _get("/stats", "oipStatistics", "What a model did.", _ok(shapes.Statistics, "Its statistics."), *gone),
    ]
    for one in asked:
        yield replace(one, path=f"/v2/models/{{name}}{one.path}", parameters=[model, *one.parameters])
        path = f"/v2/models/{{name}}/versions/{{version}}{one.path}"
        yield replace(one, path=path, name=f"{one.name}OfVersion", parameters=[model, version, *one.parameters])


def _infer() -> Operation:
    header = {HEADER: {"description": "How many bytes of the body are JSON.", "schema": {"type": "integer"}}}
    answer = [
        Content(shapes.InferAnswer, examples={"the network's numbers": _ANSWER}),
        Content(pictures.FILE, "application/octet-stream"),
    ]
    return Operation(
        "post",
        "/infer",
        "oipInfer",
        "Run a model.",
        [
            Answer(200, "The outputs; as octets where any of them goes as bytes behind the JSON.", answer, header),
            *refusals(shapes.Fault, _UNKNOWN | _INFER),
        ],
        _TAG,
        description=_HOW,
        parameters=[
            parameter(
                HEADER,
                "header",
                {"type": "integer", "minimum": 0},
                "How many bytes of the body are JSON; all of them where it is missing.",
            ),
            parameter(
                "Content-Encoding",
                "header",
                {"type": "string", "enum": ["gzip", "deflate", "identity"]},
                "How the body is compressed.",
            ),
        ],
        takes=[
            Content(shapes.PicturesRequest, examples={"one picture": _pictures(1), "two pictures": _pictures(2)}),
            Content(shapes.InferRequest),
            Content(pictures.FILE, "application/octet-stream"),
        ],
    )


def _pictures(count: int) -> dict[str, Any]:
    image = {"name": "image", "shape": [count], "datatype": "BYTES", "data": [pictures.EXAMPLE] * count}
    return {"id": "a1", "inputs": [image]}


_ANSWER: Mapping[str, Any] = {
    "model_name": "open_nsfw",
    "model_version": "1",
    "id": "a1",
    "outputs": [{"name": "outputs", "datatype": "FP32", "shape": [1, 2], "data": [0.972, 0.028]}],
}


def _repository(names: list[str]) -> list[Operation]:
    model = [parameter("name", "path", {"type": "string", "enum": names}, "The model's name, either of its two.")]
    index = [
        _ok(shapes.Index, "The models."),
        *refusals(shapes.Fault, _BODY | {503: "Too much is being received at once."}),
    ]
    done = [_ok(shapes.Done, "It is done."), *refusals(shapes.Fault, _UNKNOWN | _BODY)]
    again = (
        "The new version starts beside the old one, which answers until the new one has passed its golden vectors, and"
        " goes on if that fails."
    )
    one = Operation(
        "post", "/v2/repository/index", "oipIndex", "Every model with its state.", index, _TAG, may_be_empty=True
    )
    return [
        replace(one, takes=[Content(shapes.IndexRequest, examples={"what answers": {"ready": True}})]),
        replace(
            one,
            path="/v2/repository/models/{name}/load",
            name="oipLoad",
            summary="Load a model again from where it came from.",
            description=again,
            answers=done,
            parameters=model,
            takes=[Content(shapes.LoadRequest)],
        ),
        replace(
            one,
            path="/v2/repository/models/{name}/unload",
            name="oipUnload",
            summary="Stop serving a model; what was accepted is finished.",
            answers=done,
            parameters=model,
            takes=[Content(shapes.UnloadRequest)],
        ),
    ]
