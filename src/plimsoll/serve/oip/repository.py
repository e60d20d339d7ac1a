"""The model repository extension: the index of models; loading and unloading, which `plimsoll.serve.access` allows or
not.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_model_repository.html
"""

from __future__ import annotations

from typing import Any

from plimsoll.serve.oip.models import all_served, served
from plimsoll.serve.oip.request import Parameters, bad_request
from plimsoll.serve.service import Service

_STATES = {"ready": "READY", "loading": "LOADING", "unavailable": "UNAVAILABLE", "unloaded": "UNAVAILABLE"}


def index(service: Service, ready: bool) -> list[dict[str, Any]]:
    """Return every model by each of its names with its state; the ready ones alone where `ready` says so."""
    return [
        {
            "name": one.name,
            "version": one.deployment.version,
            "state": _STATES[one.deployment.state],
            "reason": one.deployment.reason,
        }
        for one in all_served(service)
        if one.ready or not ready
    ]


async def load(service: Service, name: str, parameters: Parameters) -> None:
    """Load a model again from where it came from; the old version answers until the new one has passed its golden
    vectors. Raises RequestError."""
    if parameters:
        raise bad_request(
            f"loading takes no parameters here, and {', '.join(sorted(map(str, parameters))[:10])} came",
            "A model's files and configuration are the server's own; they are not taken from callers.",
        )
    await served(service, name).deployment.load()


async def unload(service: Service, name: str) -> None:
    """Unload a model, by whichever of its names. Raises RequestError."""
    await served(service, name).deployment.unload()
