"""Who may ask: what the door answers to everybody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from plimsoll.serve.access.doorkeeper import Doorkeeper, Need
from plimsoll.serve.access.settings import AccessSettings
from plimsoll.serve.http.guard import Guard
from plimsoll.serve.http.openapi.oip_shapes import Fault
from plimsoll.serve.http.openapi.parts import Answer, Operation, Schema, refusals
from plimsoll.serve.http.openapi.shapes import Wrong

_SCHEMES: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (`plimsoll keys`)."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key in a header of its own."},
}


def behind_the_door(operations: Sequence[Operation], settings: AccessSettings) -> list[Operation]:
    """Return the operations with what is asked of their callers, and how they are turned away."""
    guard = Guard(_nothing, Doorkeeper(AccessSettings()), settings)  # asked what a request needs, never to let one in
    security: list[Schema] = [{name: []} for name in _SCHEMES] if settings.keys is not None else []
    found = []
    for one in operations:
        need = guard.need({"method": one.method.upper(), "path": one.path})
        found.append(one if need is None else one.with_access(_turned_away(settings, need, one.path), security))
    return found


def schemes(settings: AccessSettings) -> dict[str, Any]:
    """Return the components that say how keys are shown; none where there are no keys."""
    return {"securitySchemes": dict(_SCHEMES)} if settings.keys is not None else {}


def _turned_away(settings: AccessSettings, need: Need, path: str) -> list[Answer]:
    meanings = {}
    if settings.keys is not None:
        meanings[401] = "There is no API key, or it is not a good one."
        meanings[403] = "The key's role may not do this."
    elif need == "control" and settings.control != "anybody":
        meanings[403] = "Models are not loaded or unloaded from where this was asked."
    if settings.keys is not None or settings.address_limit is not None:
        meanings[429] = "The caller asks more often than it may."
    return refusals(Fault if path.startswith("/v2") else Wrong, meanings)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand where the guarded application would."""
    del scope, receive, send
