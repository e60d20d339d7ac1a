"""Ask a service with KServe's own client: `python oip_kserve.py URL PHOTO`; prints as JSON what it got."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main(url: str, photo: bytes) -> dict[str, object]:
    """Ask for everything that the client can."""
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    picture = InferInput("image", [1], "BYTES")
    picture.set_data_from_numpy(np.array([photo], dtype=np.object_), binary_data=True)
    raw = await client.infer(url, InferRequest("open_nsfw", [picture], request_id="raw"), model_name="open_nsfw")
    in_json = {
        "id": "json",
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(photo).decode()]}],
    }
    plain = await client.infer(url, in_json, model_name="open_nsfw")
    bare = InferInput("input:0", [1, 224, 224, 3], "FP32")
    bare.set_data_from_numpy(np.zeros([1, 224, 224, 3], np.float32))
    both = InferRequest("open_nsfw.tensor", [bare], parameters={"binary_data_output": True})
    tensor = await client.infer(url, both, model_name="open_nsfw.tensor")
    try:
        await client.infer(url, in_json, model_name="nobody")
    except httpx.HTTPStatusError as error:
        refusal = str(error)
    return {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model ready": await client.is_model_ready(url, "open_nsfw"),
        "unknown model ready": await client.is_model_ready(url, "nobody"),
        "raw": [raw.id, raw.outputs[0].as_numpy().tolist()],
        "json": [plain.id, plain.outputs[0].as_numpy().tolist()],
        "tensor": tensor.outputs[0].as_numpy().tolist(),
        "refusal": refusal,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes()))))
