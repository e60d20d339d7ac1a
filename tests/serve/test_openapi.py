"""A running service does what its own description says: examples are answered, and nothing comes that isn't
described."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers import detection_networks as spotting
from helpers import sample_ship_report
from helpers.json_schema import problems
from helpers.oip_service import LENGTH, element, with_tensors
from helpers.service_process import start
from plimsoll.bundle.packing import pack
from plimsoll.core.target import Target
from plimsoll.report.page import render

JSON = {"Content-Type": "application/json"}
OCTETS = {"Content-Type": "application/octet-stream"}
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
SETTINGS = 'max_items = 4\nmax_body_bytes = 200_000\n[compat]\nmodel = "open_nsfw"\n'


@dataclass(frozen=True)
class Operation:
    """A method at a path, as the document has it."""

    path: str
    method: str
    description: Mapping[str, Any]

    def paths(self, known: bool = True) -> Iterator[str]:
        """Yield its path with every value that its parameters allow, or with values that nothing has."""
        in_path = [parameter for parameter in self.description.get("parameters", ()) if parameter["in"] == "path"]
        values = [
            (parameter["schema"].get("enum") or [parameter["example"]]) if known else ["nobody"]
            for parameter in in_path
        ]
        for chosen in itertools.product(*values):
            yield self.path.format(**dict(zip((parameter["name"] for parameter in in_path), chosen, strict=True)))


class Described:
    """A service with its document; every answer is held against it."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.document = self.client.get("/openapi.json").json()
        self.operations = [
            Operation(path, method, description)
            for path, methods in self.document["paths"].items()
            for method, description in methods.items()
            if not path.endswith("load")
        ]
        """All but those that load and unload a model."""

    def operation(self, path: str, method: str = "post") -> Operation:
        return Operation(path, method, self.document["paths"][path][method])

    def ask(self, operation: Operation, path: str, **sent: Any) -> httpx.Response:
        """Send a request; fails where its answer has a status, a media type or a body that isn't described."""
        reply = self.client.request(operation.method.upper(), path, **sent)
        where = f"{operation.method} {path} {str(sent)[:200]} → {reply.status_code} {reply.text[:200]}"
        assert str(reply.status_code) in operation.description["responses"], where
        described = operation.description["responses"][str(reply.status_code)]
        media = reply.headers.get("content-type", "").partition(";")[0]
        assert media in described.get("content", {"": None}), where
        if media == "application/json":
            assert not list(problems(reply.json(), described["content"][media]["schema"], self.document)), where
        for name in ("Retry-After", LENGTH):
            assert name not in reply.headers or name in described.get("headers", {}), where
        return reply


@pytest.fixture(scope="module")
def described(
    tmp_path_factory: pytest.TempPathFactory, nsfw_model_path: Path, example_photos: list[Path]
) -> Iterator[Described]:
    """open_nsfw, and a detector in a bundle with a report."""
    del nsfw_model_path
    folder = tmp_path_factory.mktemp("described")
    report = sample_ship_report.report(sample_ship_report.details(example_photos[:3]))
    extras = {"report/report.json": report.to_json().encode(), "report/index.html": render(report).encode()}
    detector = spotting.model(folder, "yolov8", [{"step": "decode"}, {"step": "resize", "width": 160, "height": 160}])
    bundle = pack(detector, Target("onnxruntime"), folder / "spots", extras=extras)
    (folder / "serve.toml").write_text(SETTINGS)
    options = ("--workers", "1", "--grace", "0", "--config", str(folder / "serve.toml"))
    with (
        start(f"spots={bundle}", "open_nsfw", *options) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        yield Described(client)


@pytest.fixture(scope="module")
def photo(example_photos: list[Path]) -> bytes:
    return min((photo.read_bytes() for photo in example_photos), key=len)


def bodies(photo: bytes) -> Iterator[dict[str, Any]]:
    """Yield requests, good and bad, whatever they are sent to."""
    yield {}
    yield {"content": photo, "headers": {"Content-Type": "image/jpeg"}}
    yield {"content": photo[:300], "headers": OCTETS}
    yield {"content": b"{", "headers": JSON}
    yield {"content": b"[]", "headers": JSON}
    yield {"content": b"[" * 5000, "headers": JSON}
    yield {"content": json.dumps({"images": [], "inputs": [], "ready": 1}), "headers": JSON}
    yield {"content": json.dumps({"images": ["data:,", "http://example.org/a.jpg"], "id": "a"}), "headers": JSON}
    yield {"content": json.dumps({"images": [{"data": "!"}], "model": "open_nsfw"}), "headers": JSON}
    yield {"content": b"x", "headers": {"Content-Type": "text/html"}}
    yield {"content": b"x" * 200_001, "headers": OCTETS}
    yield {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}
    yield {"content": b"--x\r\nContent-Dis", "headers": FORM}
    yield {
        "files": [
            ("image", ("a.png", photo, "image/png")),
            ("file", ("b.mp4", photo, "video/mp4")),
            ("other", ("c", b"", "image/png")),
        ]
    }
    yield {"files": [("file", ("a.jpg", photo[:100], "image/jpeg"))] * 5}
    yield {"content": photo, "headers": OCTETS | {LENGTH: "0"}}
    yield {"content": photo, "headers": OCTETS | {LENGTH: "-1"}}
    yield {"content": photo, "headers": OCTETS | {"Content-Encoding": "gzip"}}
    yield {"content": photo, "headers": OCTETS | {"Content-Encoding": "br"}}
    yield {"params": {"model": "nobody", "top": "0"}, "content": photo}
    yield {"params": {"model": "open_nsfw"}, "content": photo}
    yield {"params": {"model": "spots", "timeout": "x"}, "content": photo}


def test_every_example_is_answered(described: Described) -> None:
    count = 0
    for operation in described.operations:
        for media, content in operation.description.get("requestBody", {}).get("content", {}).items():
            for example in content.get("examples", {}).values():
                for path in operation.paths():
                    reply = described.ask(
                        operation, path, content=json.dumps(example["value"]), headers={"Content-Type": media}
                    )
                    # The bare network has other inputs than `image`.
                    assert reply.status_code == (400 if ".tensor" in path else 200), reply.text
                    count += 1
    assert count >= 6


def test_everything_that_can_be_read_is_as_described(described: Described) -> None:
    statuses = {
        path: described.ask(operation, path).status_code
        for operation in described.operations
        if operation.method == "get"
        for path in operation.paths()
    }
    assert {path for path, status in statuses.items() if status != 200} == {
        "/v1/frames",  # a WebSocket
        *(f"/v1/models/open_nsfw/{what}" for what in ("proof", "report")),
    }
    for operation in described.operations:
        if operation.method == "get" and "{" in operation.path:
            assert all(described.ask(operation, path).status_code == 404 for path in operation.paths(known=False))


def test_whatever_is_sent_the_answer_is_a_described_one(described: Described, photo: bytes) -> None:
    """The description is of every interface, so each is sent what is meant for the others, too."""
    statuses: dict[str, set[int]] = {}
    for operation in described.operations:
        if operation.method == "post":
            for path, body in itertools.product([*operation.paths(), *operation.paths(known=False)], bodies(photo)):
                statuses.setdefault(operation.path, set()).add(described.ask(operation, path, **body).status_code)
    assert statuses.pop("/v1/validate") == {200, 503}
    assert statuses["/v1/predict"] == {200, 400, 404, 413, 415, 422}
    assert statuses["/v1/detect-images"] == {200, 400, 413, 415}
    assert statuses["/v2/models/{name}/infer"] == {200, 400, 404, 413, 415}
    assert not any(status >= 500 for by_path in statuses.values() for status in by_path)


def test_tensors_as_bytes_are_described(described: Described, photo: bytes) -> None:
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(photo) + 4}}
    body, length = with_tensors({"inputs": [image], "parameters": {"binary_data_output": True}}, element(photo))
    infer = described.operation("/v2/models/{name}/infer")
    reply = described.ask(infer, "/v2/models/open_nsfw/infer", content=body, headers=OCTETS | {LENGTH: length})
    assert reply.headers["content-type"] == "application/octet-stream"
    late = {
        "inputs": [{**image, "data": [base64.b64encode(photo).decode()], "parameters": {}}],
        "parameters": {"timeout": 1},
    }
    assert described.ask(infer, "/v2/models/open_nsfw/infer", json=late).status_code == 504


def test_models_that_are_loaded_and_gone_are_described(described: Described, photo: bytes) -> None:
    """The last operation: no model answers after it."""
    load, unload = (described.operation(f"/v2/repository/models/{{name}}/{verb}") for verb in ("load", "unload"))
    assert (
        described.ask(load, "/v2/repository/models/spots/load", json={"parameters": {"config": "{}"}}).status_code
        == 400
    )
    assert described.ask(load, "/v2/repository/models/nobody/load").status_code == 404
    assert described.ask(load, "/v2/repository/models/spots/load", json={}).status_code == 200
    assert described.ask(unload, "/v2/repository/models/nobody/unload").status_code == 404
    for name in ("open_nsfw", "spots.tensor"):
        assert described.ask(unload, f"/v2/repository/models/{name}/unload", json={}).status_code == 200
    for operation in described.operations:
        for path in operation.paths():
            described.ask(operation, path, **({"content": photo} if operation.method == "post" else {}))
    assert described.ask(described.operation("/v1/validate"), "/v1/validate", content=photo).status_code == 503
    predict = described.operation("/v1/predict")
    assert described.ask(predict, "/v1/predict?model=open_nsfw", content=photo).status_code == 503
