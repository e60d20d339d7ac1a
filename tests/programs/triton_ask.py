"""Ask a Triton server over HTTP: each line of standard input is a request, each line of the output its answer, as JSON.

A request: [model, [picture file, …]]; the answer: {"outputs": {name: nested list}} or {"error": text}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from tritonclient import http
from tritonclient.utils import InferenceServerException


def main(address: str, requests: list[tuple[str, list[str]]]) -> None:
    client = http.InferenceServerClient(address, network_timeout=60.0)
    for model, files in requests:
        pictures = np.array([Path(file).read_bytes() for file in files] or [b""], dtype=object)[: len(files)]
        image = http.InferInput("image", [len(files)], "BYTES")
        image.set_data_from_numpy(pictures)
        try:
            answer = client.infer(model, [image])
        except InferenceServerException as error:
            result = {"error": error.message(), "status": error.status()}
        else:
            result = {
                "outputs": {
                    output["name"]: answer.as_numpy(output["name"]).tolist()
                    for output in answer.get_response()["outputs"]
                }
            }
        sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
