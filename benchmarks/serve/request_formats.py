"""How a photo is sent to each kind of server, and where the score is in its answer."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"


@dataclass(frozen=True)
class RequestFormat:
    """How one kind of server is asked."""

    path: str
    headers: Callable[[bytes], dict[str, str]]
    """Of a photo."""
    body: Callable[[bytes], bytes]
    """Of a photo."""
    score: Callable[[bytes], float]
    """Reads an answer's body; raises ValueError, KeyError, IndexError or TypeError where it is none."""

    def request(self, photo: bytes, port: int) -> bytes:
        """Return the whole HTTP/1.1 request for a photo."""
        body = self.body(photo)
        headers = {"Host": f"{HOST}:{port}", **self.headers(photo), "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self.path} HTTP/1.1\r\n{head}\r\n".encode() + body


def _raw(path: str, score: Callable[[bytes], float]) -> RequestFormat:
    return RequestFormat(path, lambda _photo: {"Content-Type": "image/jpeg"}, lambda photo: photo, score)


def _infer_json(photo: bytes) -> bytes:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(photo).decode()]}
    return json.dumps({"inputs": [tensor]}).encode()


def _infer_head(photo: bytes) -> bytes:
    tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 4 + len(photo)}}
    return json.dumps(
        {"inputs": [tensor], "outputs": [{"name": "score", "parameters": {"binary_data": False}}]}
    ).encode()


def _infer_binary(photo: bytes) -> bytes:
    return _infer_head(photo) + struct.pack("<I", len(photo)) + photo


def _infer_headers(photo: bytes) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(_infer_head(photo)))}


def _of_infer(body: bytes) -> float:
    return float(json.loads(body)["outputs"][0]["data"][0])


PLIMSOLL = _raw("/v1/predict", lambda body: float(json.loads(body)["results"][0]["answer"]["score"]))
"""`plimsoll serve`."""
PLAIN = _raw("/predict", lambda body: float(json.loads(body)["score"]))
"""The peers' own: a JPEG in, `{"score": …}` out."""
ROOT = _raw("/", PLAIN.score)
"""The same, where the framework answers at the root."""
INFER_JSON = RequestFormat(
    "/v2/models/open_nsfw/infer", lambda _photo: {"Content-Type": "application/json"}, _infer_json, _of_infer
)
"""The Open Inference Protocol, the photo in base64."""
INFER_BINARY = RequestFormat("/v2/models/open_nsfw/infer", _infer_headers, _infer_binary, _of_infer)
"""The Open Inference Protocol with its binary extension."""


def write_requests(request_format: RequestFormat, photos: Sequence[bytes], port: int, folder: Path) -> None:
    """Write the request for each photo into a folder: what the load generators send."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, photo in enumerate(photos):
        (folder / f"{index:05}.http").write_bytes(request_format.request(photo, port))


def photographs(folder: Path) -> list[bytes]:
    """Return every JPEG below a folder, whatever it is called; raises SystemExit where there is none."""
    photos = [
        data
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (data := file.read_bytes()).startswith(b"\xff\xd8\xff")
    ]
    if not photos:
        raise SystemExit(f"{folder}: it contains no JPEG photographs")
    return photos
