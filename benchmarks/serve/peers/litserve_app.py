"""LitServe: 4 workers on the CPU, a photo a call.

python -m peers.litserve_app
"""  # the annotations below are read by FastAPI: no `from __future__ import annotations`

import os
from typing import Annotated

import litserve
from fastapi import Body
from peers.steps import open_session, score


class OpenNsfw(litserve.LitAPI):
    """The network behind LitServe's four verbs."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe names it
        """Open a session in this worker."""
        self.session = open_session()

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        """Take the body as it is."""
        return request

    def predict(self, photo: bytes) -> float:
        """Score the photo."""
        return score(self.session, photo)

    def encode_response(self, output: float) -> dict[str, float]:
        """Put the score into JSON."""
        return {"score": output}


if __name__ == "__main__":
    server = litserve.LitServer(OpenNsfw(), accelerator="cpu", workers_per_device=4, timeout=120, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
