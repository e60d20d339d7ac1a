"""Ask a service with Triton's own client: `python oip_triton.py http|grpc|aio HOST:PORT PHOTO…` (`aio` is gRPC's for
asyncio); prints as JSON what it got."""

from __future__ import annotations

import asyncio
import importlib
import json
import queue
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException


def main(protocol: str, address: str, photos: list[bytes]) -> dict[str, Any]:
    """Ask for everything that has a meaning for a service of pictures."""
    kind = importlib.import_module("tritonclient.grpc.aio" if protocol == "aio" else f"tritonclient.{protocol}")
    client = Waiting(kind, address) if protocol == "aio" else kind.InferenceServerClient(address)
    picture = kind.InferInput("image", [len(photos)], "BYTES")
    picture.set_data_from_numpy(np.array(photos, dtype=np.object_))
    bare = kind.InferInput("input:0", [1, 224, 224, 3], "FP32")
    bare.set_data_from_numpy(np.zeros([1, 224, 224, 3], np.float32))
    best = kind.InferRequestedOutput("outputs", class_count=2)
    results = {
        "alive": [
            client.is_server_live(),
            client.is_server_ready(),
            client.is_model_ready("open_nsfw"),
            client.is_model_ready("open_nsfw.tensor"),
        ],
        "server": plain(client.get_server_metadata())["name"],
        "model": plain(client.get_model_metadata("open_nsfw"))["inputs"],
        "config": plain(client.get_model_config("open_nsfw.tensor")),
        "index": plain(client.get_model_repository_index()),
        "outputs": client.infer("open_nsfw", [picture], request_id="q", priority=1, timeout=50_000_000)
        .as_numpy("outputs")
        .tolist(),
        "best": [row[0].decode() for row in client.infer("open_nsfw", [picture], outputs=[best]).as_numpy("outputs")],
        "bare": client.infer("open_nsfw.tensor", [bare]).as_numpy("outputs").tolist(),
        "compressed": compressed(kind, client, picture),
        "statistics": plain(client.get_inference_statistics("open_nsfw")),
        "unknown": refusal(client.get_model_metadata, "nobody"),
        "misfit": refusal(client.infer, "open_nsfw.tensor", [picture]),
    }
    client.unload_model("open_nsfw")
    results["unloaded"] = [client.is_model_ready("open_nsfw"), refusal(client.infer, "open_nsfw", [picture])]
    client.load_model("open_nsfw")
    results["loaded"] = client.is_model_ready("open_nsfw")
    if protocol == "aio":
        results["stream"] = client.wait_for(stream_of_aio(client.client, picture))
    elif protocol == "grpc":
        results["stream"] = stream(client, picture)
    else:
        given = client.async_infer(
            "open_nsfw", [picture], outputs=[kind.InferRequestedOutput("outputs", binary_data=False)]
        )
        results["as JSON"] = given.get_result().as_numpy("outputs").tolist()
    client.close()
    return results


def plain(answer: Any) -> Any:
    """Return what HTTP's client gives as JSON and gRPC's as a message."""
    if isinstance(answer, (dict, list)):
        return answer
    from google.protobuf import json_format

    return json_format.MessageToDict(answer, preserving_proto_field_name=True)


def compressed(kind: Any, client: Any, picture: Any) -> list[list[Any]]:
    option = "request_compression_algorithm" if kind.__name__.endswith("http") else "compression_algorithm"
    return [
        client.infer("open_nsfw", [picture], **{option: name}).as_numpy("outputs").tolist()
        for name in ("gzip", "deflate")
    ]


def refusal(act: Any, *arguments: Any) -> list[str]:
    try:
        act(*arguments)
    except InferenceServerException as error:
        return [str(error.status()), error.message()]
    return []


def stream(client: Any, picture: Any) -> list[Any]:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(
        lambda result, error: answers.put(error.message() if result is None else result.as_numpy("outputs").tolist())
    )
    client.async_stream_infer("open_nsfw", [picture])
    client.async_stream_infer("nobody", [picture])
    results = [answers.get(timeout=60), answers.get(timeout=60)]
    client.stop_stream()
    return results


class Waiting:
    """The client for asyncio, each of whose calls is waited for."""

    def __init__(self, kind: Any, address: str) -> None:
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self.client = kind.InferenceServerClient(address)

    def wait_for(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: self.wait_for(getattr(self.client, name)(*arguments, **named))


async def stream_of_aio(client: Any, picture: Any) -> list[Any]:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for name in ("open_nsfw", "nobody"):
            yield {"model_name": name, "inputs": [picture]}

    return [
        error.message() if result is None else result.as_numpy("outputs").tolist()
        async for result, error in client.stream_infer(requests())
    ]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2], [Path(photo).read_bytes() for photo in sys.argv[3:]])))
