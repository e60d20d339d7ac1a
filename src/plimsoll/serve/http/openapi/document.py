"""`GET /openapi.json`: everything that is served, described for people and machines.

```
parts            operations, their bodies and answers; how they are written
access           what the door answers to who isn't let in
pictures         pictures as bodies, and the one in examples
native           the native interface, operators' endpoints, the page    shapes
oip              the Open Inference Protocol                             oip_shapes
contracts        what other applications speak, where it is on           contract_shapes
```

A test holds the document against the application's routes, so that none is forgotten.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plimsoll import __version__
from plimsoll.serve.http.guard import Needs
from plimsoll.serve.http.openapi import access, contracts, native, oip
from plimsoll.serve.http.openapi.parts import written
from plimsoll.serve.service import Service

_ABOUT = """Answers pictures.

Every answer has an `X-Request-Id`, the caller's own where it is sane; it is in the service's log. Some answers come before any interface, and are
not JSON: 503 where too many connections are open, 431 where a request's head is too large, 400 for what is no HTTP. A mistake of the service is 500,
in the shape of the other errors.

No error says anything about what a picture shows: unknown is never safe."""
_TAGS = {
    "native": "Pictures in, answers by the model's task out.",
    "operations": "For operators and their tools.",
    "Open Inference Protocol": (
        "Version 2, as clients of KServe, Triton, OpenVINO Model Server and MLServer speak it. The numbers are the"
        " network's own."
    ),
    "page": "For people.",
    "compat": "What existing applications ask: whether a picture is safe to show.",
}


def routes(service: Service) -> list[Route]:
    """Return the endpoint."""
    document = to_json(describe(service))

    async def openapi(_: Request) -> Response:
        return Response(document, media_type="application/json")

    return [Route("/openapi.json", openapi)]


def describe(service: Service) -> dict[str, Any]:
    """Return the OpenAPI document of a service, which needn't have been started."""
    settings = service.settings.access
    operations = [one for interface in (native, oip, contracts) for one in interface.operations(service)]
    document = written(access.behind_the_door(operations, settings, Needs(settings, service.settings.compat.paths)))
    document["components"] |= access.schemes(settings)
    spoken = {one.tag for one in operations}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Plimsoll", "version": __version__, "description": _ABOUT},
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items() if name in spoken],
        **document,
    }
