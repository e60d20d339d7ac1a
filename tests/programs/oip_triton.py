"""Ask a service with Triton's own client: `python oip_triton.py http|grpc HOST:PORT PHOTO…`; prints as JSON what it
got."""

from __future__ import annotations

import importlib
import json
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException


def main(protocol: str, address: str, photos: list[bytes]) -> dict[str, Any]:
    """Ask for everything that has a meaning for a service of pictures."""
    kind = importlib.import_module(f"tritonclient.{protocol}")
    client = kind.InferenceServerClient(address)
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
    if protocol == "grpc":
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
    option = "compression_algorithm" if kind.__name__.endswith("grpc") else "request_compression_algorithm"
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


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2], [Path(photo).read_bytes() for photo in sys.argv[3:]])))
