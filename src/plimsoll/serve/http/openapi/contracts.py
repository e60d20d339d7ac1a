"""The contracts of other applications described, as far as they are on."""

from __future__ import annotations

from plimsoll.serve.compat.photoprism import VisionQuestion
from plimsoll.serve.compat.settings import MISSKEY_PATH
from plimsoll.serve.http.openapi import contract_shapes as shapes
from plimsoll.serve.http.openapi import pictures
from plimsoll.serve.http.openapi.parts import RETRY, Answer, Content, Operation, refusals
from plimsoll.serve.service import Service

_TAG = "compat"
_DETECTED = {
    "success": True,
    "result": {
        "results": [
            {
                "success": True,
                "predictions": [
                    {"className": "Neutral", "probability": 0.972},
                    {"className": "Porn", "probability": 0.028},
                    {"className": "Drawing", "probability": 0.0},
                    {"className": "Hentai", "probability": 0.0},
                    {"className": "Sexy", "probability": 0.0},
                ],
            },
            {"success": False, "error": {"code": "INVALID_REQUEST", "message": "the part is empty"}},
        ]
    },
}
_LOOKED_AT = {
    "status": "safe",
    "score": 0.028,
    "threshold": 0.5,
    "Drawing": 0.0,
    "Hentai": 0.0,
    "Neutral": 0.972,
    "Porn": 0.028,
    "Sexy": 0.0,
}
_VISION_ANSWER = {
    "id": "6ba7b810",
    "code": 200,
    "model": {"type": "nsfw", "name": "open_nsfw", "version": "1"},
    "result": {"nsfw": [_LOOKED_AT, {"status": "unavailable", "reason": "the data URL holds no base64"}]},
}


def operations(service: Service) -> list[Operation]:
    """Return what the contracts' endpoints do."""
    settings = service.settings.compat
    found = []
    if settings.misskey.enabled:
        found.append(_misskey())
    if settings.photoprism.enabled:
        found += [_photoprism(path, place) for place, path in enumerate(settings.photoprism.paths, 1)]
    if settings.pictrs.enabled:
        found.append(_pictrs(settings.pictrs.path, settings.pictrs.error_status))
    return found


def _misskey() -> Operation:
    statuses = {
        400: "The request can't be read, or holds no parts.",
        413: "The body is too large, or has too many parts.",
        415: "The body is not multipart/form-data.",
        500: "Nothing could be looked at.",
    }
    return Operation(
        "post",
        MISSKEY_PATH,
        "misskeyDetect",
        "Misskey's sensitive-media detector: the five classes of pictures.",
        [
            Answer(
                200,
                "An entry for each part, in their order.",
                [Content(shapes.Detected, examples={"two parts": _DETECTED})],
            ),
            *refusals(shapes.Undetected, statuses),
        ],
        _TAG,
        description=(
            "Each part that is a file is a picture; its name does not matter. A part that fails does so for itself,"
            " inside a 200."
        ),
        takes=[pictures.parts_of_a_form("image")],
    )


def _photoprism(path: str, place: int) -> Operation:
    question = {"id": "6ba7b810", "model": "nsfw", "images": [f"data:image/png;base64,{pictures.EXAMPLE}"]}
    statuses = {
        400: "The request can't be read, or names no picture.",
        404: "The model that shall answer is not served.",
        408: "The body came too slowly.",
        413: "The body is too large, or names too many pictures.",
        503: "There is no room, or the model does not answer now, or it can't say what is safe.",
    }
    return Operation(
        "post",
        path,
        f"photoprismVision{place if place > 1 else ''}",
        "PhotoPrism's vision service: whether pictures are safe.",
        [
            Answer(
                200,
                "An entry for each picture, in their order.",
                [Content(shapes.VisionAnswer, examples={"two pictures": _VISION_ANSWER})],
            ),
            *refusals(shapes.VisionRefusal, statuses),
        ],
        _TAG,
        description="A picture without an answer is `unavailable`, and never safe.",
        takes=[Content(VisionQuestion, examples={"one picture": question})],
    )


def _pictrs(path: str, error_status: int) -> Operation:
    accepted = {"status": "accepted", "score": 0.028, "threshold": 0.5}
    return Operation(
        "post",
        path,
        "pictrsValidate",
        "pict-rs's external validation: whether an upload is accepted.",
        [
            Answer(200, "It was looked at and is safe.", [Content(shapes.Accepted, examples={"safe": accepted})]),
            Answer(
                406,
                "It was looked at and is not safe.",
                [Content(shapes.Rejected, examples={"not safe": accepted | {"status": "rejected", "score": 0.93}})],
            ),
            Answer(error_status, "It could not be looked at, for whatever reason.", [Content(shapes.Unknown)], RETRY),
        ],
        _TAG,
        description="pict-rs accepts an upload where the status is 2xx, and refuses it otherwise.",
        takes=pictures.AS_BODY,
    )
