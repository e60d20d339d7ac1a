"""Who may ask: what the door answers to everybody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plimsoll.serve.access.authorizer import Need
from plimsoll.serve.access.settings import AccessSettings
from plimsoll.serve.http.guard import Needs
from plimsoll.serve.http.openapi.oip_shapes import Fault
from plimsoll.serve.http.openapi.parts import Operation, Schema, refusals
from plimsoll.serve.http.openapi.shapes import Wrong

_SCHEMES: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (`plimsoll keys`)."},
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key in a header of its own.",
    },
}
_UNREADABLE = "The path contains control characters, or is not UTF-8."


def behind_the_door(operations: Sequence[Operation], settings: AccessSettings, needs: Needs) -> list[Operation]:
    """Return the operations with what is asked of their callers, and how they are turned away."""
    security: list[Schema] = [{name: []} for name in _SCHEMES] if settings.keys is not None else []
    found = []
    for one in operations:
        need = needs.of(one.path, one.method.upper(), one.path)
        meanings = ({400: _UNREADABLE} if "{" in one.path else {}) | (
            _turned_away(settings, need) if need is not None else {}
        )
        answers = refusals(Fault if one.path.startswith("/v2") else Wrong, meanings)
        found.append(one.with_access(answers, security if need is not None else ()))
    return found


def schemes(settings: AccessSettings) -> dict[str, Any]:
    """Return the components that say how keys are shown; none where there are no keys."""
    return {"securitySchemes": dict(_SCHEMES)} if settings.keys is not None else {}


def _turned_away(settings: AccessSettings, need: Need) -> dict[int, str]:
    meanings = {}
    if settings.keys is not None:
        meanings[401] = "There is no API key, or it is not a good one."
        meanings[403] = "The key's role may not do this."
    elif need == "control" and settings.control != "anybody":
        meanings[403] = "Models are not loaded or unloaded from where this was asked."
    if settings.keys is not None or settings.address_limit is not None:
        meanings[429] = "The caller asks more often than it may."
    return meanings
