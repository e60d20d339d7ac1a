"""Ray Serve: 4 replicas of one core each.

python -m peers.ray_app
"""

from __future__ import annotations

import os
import threading

import ray
from peers.steps import open_session, score
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=4, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=8)
class OpenNsfw:
    """The network in a replica."""

    def __init__(self) -> None:
        self.session = open_session()

    async def __call__(self, request: Request) -> dict[str, float]:
        """Answer the body's photo."""
        return {"score": score(self.session, await request.body())}


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    serve.run(OpenNsfw.bind())  # type: ignore[attr-defined]  # the decorator adds it
    threading.Event().wait()
