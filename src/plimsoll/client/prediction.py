"""One request for predictions: from pictures, grouped into requests of bounded size, to its body; from the reply to
results."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from plimsoll.client.answers import Answer, FrameResult, ModelInfo, Result
from plimsoll.client.errors import ItemError, ServiceError
from plimsoll.client.exchange import Call, ClipOptions, PredictOptions, Reply
from plimsoll.errors import InputError

REQUEST_BYTES = 8 * 1024 * 1024
"""Pictures of one request together; a larger one goes alone. Services accept 64 MiB by default."""


@runtime_checkable
class Readable(Protocol):
    """A file that was opened in binary mode, or anything that reads like one."""

    def read(self) -> bytes:
        """Return all that is left."""
        ...


Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable
"""A picture file's path, its bytes, or a file object opened in binary mode (read from its current position)."""


@dataclass(frozen=True)
class Upload:
    """A picture to be sent, read as late as possible so that few are in memory at once."""

    name: str
    size: int
    """In bytes, as far as it is known."""
    source: Path | bytes | ItemError

    def read(self) -> bytes | ItemError:
        """Return the picture's bytes, or why they can't be read."""
        data: bytes | ItemError
        try:
            data = self.source.read_bytes() if isinstance(self.source, Path) else self.source
        except (OSError, ValueError) as error:
            return _unreadable(self.name, error)
        return data or _unreadable(self.name, ValueError("it is empty (0 bytes)"))


def prepare_upload(picture: Picture, number: int) -> Upload:
    """Return the upload of picture number `number`. A file object is read now, because its caller may close it."""
    if isinstance(picture, str | os.PathLike):
        name = os.fspath(picture)
        try:
            return Upload(name, Path(name).stat().st_size, Path(name))
        except (OSError, ValueError) as error:
            return Upload(name, 0, _unreadable(name, error))
    if isinstance(picture, bytes | bytearray | memoryview):
        data = bytes(picture)
        return Upload(str(number), len(data), data)
    if isinstance(picture, Readable):
        return _read_file(picture, number)
    raise InputError(
        f"not a picture: {type(picture).__name__}",
        "Expected a path, bytes or a file object; `predict` takes a list of them, `predict_many` any iterable.",
    )


def _read_file(file: Readable, number: int) -> Upload:
    name = getattr(file, "name", None)
    label = name if isinstance(name, str) else str(number)
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        return Upload(label, 0, _unreadable(label, error))
    if not isinstance(data, bytes):
        error = ValueError(f"reading gave {type(data).__name__}, not bytes; open it with mode 'rb'")
        return Upload(label, 0, _unreadable(label, error))
    return Upload(label, len(data), data)


class Batcher:
    """Cuts a stream of pictures into requests of at most `batch` pictures and `limit` bytes; a larger picture goes
    alone."""

    def __init__(self, batch: int, limit: int = REQUEST_BYTES) -> None:
        if batch < 1:
            raise InputError(f"batch = {batch}: expected at least 1")
        self._batch = batch
        self._limit = limit
        self._group: list[Upload] = []
        self._size = 0

    def add(self, picture: Upload) -> list[Upload]:
        """Add a picture; returns the group that is full now, or an empty one."""
        full: list[Upload] = []
        if self._group and (len(self._group) == self._batch or self._size + picture.size > self._limit):
            full = self.flush()
        self._group.append(picture)
        self._size += picture.size
        return full

    def flush(self) -> list[Upload]:
        """Return what is left; empty where nothing is."""
        group, self._group, self._size = self._group, [], 0
        return group


def _unreadable(name: str, error: Exception) -> ItemError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    unreadable = ItemError(f"can't read the picture: {reason}", kind="input")
    unreadable.name = name
    return unreadable


TOO_LARGE = 413


class PredictionRequest:
    """The pictures of one request, which are read when it is created."""

    def __init__(self, group: Sequence[Upload], options: PredictOptions) -> None:
        self._names = [upload.name for upload in group]
        self._read = [upload.read() for upload in group]
        self._options = options
        self.pictures = [data for data in self._read if isinstance(data, bytes)]
        """Those that could be read; the others fail here."""

    def call(self) -> Call:
        """Return the HTTP request: one picture as it is, several as `multipart/form-data`."""
        kind, body = (
            ("application/octet-stream", self.pictures[0]) if len(self.pictures) == 1 else multipart(self.pictures)
        )
        return Call("POST", "/v1/predict", _params(self._options), {"content-type": kind}, body)

    def results(self, reply: Reply | None) -> list[Result]:
        """Return what came of each picture, in order; raises ServiceError where this client does not understand the
        reply."""
        return self._results(_read_answers(reply, len(self.pictures)) if reply is not None else [])

    def failed(self, error: ServiceError) -> list[Result]:
        """Return the result of a single picture that the service has no answer for, or finds too large; raises `error`
        where it means more than that."""
        if len(self.pictures) != 1 or not (error.of_picture or error.status == TOO_LARGE):
            raise error
        item = ItemError(
            error.message, error.hint, status=error.status, kind=error.kind or "input", request_id=error.request_id
        )
        return self._results([item])

    def _results(self, outcomes: Sequence[Answer | ItemError]) -> list[Result]:
        """Return all results in order, with the outcomes of the pictures that could be read among them."""
        sent = iter(outcomes)
        return [
            _result(name, next(sent) if isinstance(data, bytes) else data)
            for name, data in zip(self._names, self._read, strict=True)
        ]


def clip_call(clip: Upload, sample: str, options: ClipOptions) -> Call:
    """Return the HTTP request for a clip; raises ItemError for one that can't be read."""
    data = clip.read()
    if isinstance(data, ItemError):
        raise data
    headers = {"content-type": "application/octet-stream", "accept": "application/x-ndjson"}
    given: Mapping[str, Any] = options
    more = {name: "true" for name in ("track", "smooth", "early_exit") if given.get(name)}
    rule = {"clip_score": str(given["clip_score"])} if given.get("clip_score") else {}
    return Call("POST", "/v1/predict/clip", {**_params(options), **more, **rule, "sample": sample}, headers, data)


def read_frames(reply: Reply, name: str) -> list[FrameResult]:
    """Return what came of each frame of a clip; raises ServiceError where this client does not understand the reply."""
    request_id = reply.headers.get("x-request-id")
    try:
        return [_read_frame(json.loads(line), name, request_id) for line in reply.body.splitlines()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_understood("answer", error, request_id) from error


def _read_frame(item: Mapping[str, Any], name: str, request_id: str | None) -> FrameResult:
    result = _result(name, _read_item(item, str(item.get("model", "")), str(item.get("version", "")), request_id))
    frame, time = item["frame"], item["time"]
    return FrameResult(
        name, result.answer, result.error, None if frame is None else int(frame), None if time is None else float(time)
    )


def _params(options: PredictOptions) -> dict[str, str]:
    given: Mapping[str, Any] = options
    params = {name: str(given[name]) for name in ("model", "top", "threshold") if given.get(name) is not None}
    return {**params, "priority": str(given["priority"])} if given.get("priority") else params


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


def _result(name: str, outcome: Answer | ItemError) -> Result:
    if isinstance(outcome, Answer):
        return Result(name, outcome)
    outcome.name = name
    return Result(name, None, outcome)


def _read_answers(reply: Reply, count: int) -> list[Answer | ItemError]:
    body = reply.json()
    request_id = reply.headers.get("x-request-id")
    try:
        items = body["results"]
        if len(items) != count:
            raise ServiceError(f"the service answered {len(items)} of {count} pictures", request_id=request_id)
        return [
            _read_item(item, str(body.get("model", "")), str(body.get("version", "")), request_id) for item in items
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _not_understood("answer", error, request_id) from error


def _read_item(item: Mapping[str, Any], model: str, version: str, request_id: str | None) -> Answer | ItemError:
    milliseconds = {str(stage): float(value) for stage, value in (item.get("milliseconds") or {}).items()}
    error = item.get("error")
    if error is not None:
        item_error = ItemError(
            str(error["message"]),
            str(error.get("hint") or ""),
            kind=str(error.get("kind") or ""),
            request_id=request_id,
        )
        item_error.milliseconds = milliseconds
        return item_error
    row = item["answer"]
    if not isinstance(row, dict):
        raise TypeError(f"an answer is {type(row).__name__}, not an object")
    return Answer(row, milliseconds, int(item.get("batch") or 1), model, version)


def read_models(reply: Reply) -> list[ModelInfo]:
    """Read the answer of `GET /v1/models`."""
    body = reply.json()
    try:
        return [
            ModelInfo(str(model["name"]), str(model.get("version", "")), str(model["state"]), model)
            for model in body["models"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_understood("list of models", error, reply.headers.get("x-request-id")) from error


def never_ready(url: str, timeout: float) -> ServiceError:
    """Return the error for a service that did not become ready in time."""
    return ServiceError(
        f"the service at {url} is not ready after {timeout:g} s",
        "`models()` says why, where the service can be reached.",
    )


def _not_understood(what: str, error: Exception, request_id: str | None) -> ServiceError:
    return ServiceError(
        f"the service's {what} is not understood ({type(error).__name__}: {error})",
        "Does the service run another version?",
        request_id=request_id,
    )
