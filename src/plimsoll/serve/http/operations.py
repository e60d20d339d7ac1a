"""What operators and their tools ask: is it alive, is it ready, what does it do."""

from __future__ import annotations

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plimsoll.serve.service import Service


def routes(service: Service) -> list[Route]:
    """Return the endpoints."""

    async def alive(_: Request) -> Response:
        return Response(b'{"status":"alive"}', media_type="application/json")

    async def ready(_: Request) -> Response:
        models = {model.name: {"state": model.state, "reason": model.reason} for model in service.models.values()}
        status = "draining" if service.draining else "ready" if service.ready else "not ready"
        return Response(
            to_json({"status": status, "models": models}), 200 if service.ready else 503, media_type="application/json"
        )

    async def metrics(request: Request) -> Response:
        body, content_type = service.metrics.page(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return [Route("/healthz", alive), Route("/readyz", ready), Route("/metrics", metrics)]
