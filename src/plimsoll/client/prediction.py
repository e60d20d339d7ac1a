"""One request for predictions: from pictures to its body, from its answer to results."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from plimsoll.client.answers import Answer, Result, ServedModel
from plimsoll.client.errors import ItemError, ServiceError
from plimsoll.client.exchange import Call, Reply, Wishes
from plimsoll.client.pictures import Sending

TOO_LARGE = 413


class PredictionRequest:
    """The pictures of one request. Making one reads them."""

    def __init__(self, group: Sequence[Sending], wishes: Wishes) -> None:
        self._names = [one.name for one in group]
        self._read = [one.read() for one in group]
        self._wishes = wishes
        self.pictures = [data for data in self._read if isinstance(data, bytes)]
        """Those that could be read; the others are answered here."""

    def call(self) -> Call:
        """Return the HTTP request: one picture as it is, several as `multipart/form-data`."""
        params = {
            name: str(self._wishes[name])
            for name in ("model", "top", "threshold")
            if self._wishes.get(name) is not None
        }
        if self._wishes.get("priority"):
            params["priority"] = str(self._wishes["priority"])
        kind, body = (
            ("application/octet-stream", self.pictures[0]) if len(self.pictures) == 1 else multipart(self.pictures)
        )
        return Call("POST", "/v1/predict", params, {"content-type": kind}, body)

    def results(self, reply: Reply | None) -> list[Result]:
        """Return what came of each picture, in order; raises ServiceError where the answer is not one that this client
        understands."""
        answered = iter(_answered(reply, len(self.pictures)) if reply is not None else [])
        return [
            _result(name, next(answered) if isinstance(data, bytes) else data)
            for name, data in zip(self._names, self._read, strict=True)
        ]

    def failed(self, error: ServiceError) -> list[Result]:
        """Return the result of a single picture that the service has no answer for, or finds too large; raises `error`
        where it means more than that."""
        if len(self.pictures) != 1 or not (error.of_picture or error.status == TOO_LARGE):
            raise error
        item = ItemError(
            error.message, error.hint, status=error.status, kind=error.kind or "input", request_id=error.request_id
        )
        return [
            _result(name, item if isinstance(data, bytes) else data)
            for name, data in zip(self._names, self._read, strict=True)
        ]


def multipart(pictures: Sequence[bytes]) -> tuple[str, bytes]:
    """Return the content type and the body (RFC 7578). File names stay here: the parts are numbered."""
    boundary = secrets.token_hex(16)
    parts: list[bytes] = []
    for number, picture in enumerate(pictures):
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{number}"\r\nContent-Type:'
            " application/octet-stream\r\n\r\n"
        )
        parts += [head.encode(), picture, b"\r\n"]
    return f"multipart/form-data; boundary={boundary}", b"".join([*parts, f"--{boundary}--\r\n".encode()])


def _result(name: str, came: Answer | ItemError) -> Result:
    if isinstance(came, Answer):
        return Result(name, came)
    came.name = name
    return Result(name, None, came)


def _answered(reply: Reply, count: int) -> list[Answer | ItemError]:
    body = reply.json()
    request_id = reply.headers.get("x-request-id")
    try:
        items = body["results"]
        if len(items) != count:
            raise ServiceError(f"the service answered {len(items)} of {count} pictures", request_id=request_id)
        return [_item(item, str(body.get("model", "")), str(body.get("version", "")), request_id) for item in items]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServiceError(
            f"the service's answer is not understood ({type(error).__name__}: {error})",
            "Is it another version's?",
            request_id=request_id,
        ) from error


def _item(item: Mapping[str, Any], model: str, version: str, request_id: str | None) -> Answer | ItemError:
    milliseconds = {str(stage): float(value) for stage, value in (item.get("milliseconds") or {}).items()}
    error = item.get("error")
    if error is not None:
        problem = ItemError(
            str(error["message"]),
            str(error.get("hint") or ""),
            kind=str(error.get("kind") or ""),
            request_id=request_id,
        )
        problem.milliseconds = milliseconds
        return problem
    row = item["answer"]
    if not isinstance(row, dict):
        raise TypeError(f"an answer is {type(row).__name__}, not an object")
    return Answer(row, milliseconds, int(item.get("batch") or 1), model, version)


def served(reply: Reply) -> list[ServedModel]:
    """Read the answer of `GET /v1/models`."""
    body = reply.json()
    try:
        return [
            ServedModel(str(one["name"]), str(one.get("version", "")), str(one["state"]), one) for one in body["models"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_understood("list of models", error, reply.headers.get("x-request-id")) from error


def never_ready(url: str, timeout: float) -> ServiceError:
    """Say that a service didn't become ready in time."""
    return ServiceError(
        f"the service at {url} is not ready after {timeout:g} s", "Where it can be reached, `models()` says why."
    )


def _not_understood(what: str, error: Exception, request_id: str | None) -> ServiceError:
    return ServiceError(
        f"the service's {what} is not understood ({type(error).__name__}: {error})",
        "Is it another version's?",
        request_id=request_id,
    )
