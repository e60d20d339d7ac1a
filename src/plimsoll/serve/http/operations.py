"""What operators and their tools ask: is it alive, is it ready, what does it do."""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from plimsoll.serve.http.endpoints import TEXT, Answer, Content, Description, Endpoint, Endpoints, Reply, ok
from plimsoll.serve.messages import ReplyModel
from plimsoll.serve.service import Service, State


class Alive(ReplyModel):
    """Whether the process is alive."""

    status: Literal["alive"]


class ModelState(ReplyModel):
    """Whether a model answers."""

    state: State
    reason: str


class Readiness(ReplyModel):
    """Whether every model answers."""

    status: Literal["ready", "not ready", "draining"]
    models: dict[str, ModelState]


_ALIVE = Description("alive", "Whether the process is alive.", [ok(Alive, "It is.")])
_READY = Description(
    "ready",
    "Whether every model answers.",
    [
        ok(Readiness, "Every model answers."),
        Answer(503, "Not now: a model does not answer, or the service ends.", [Content(Readiness)]),
    ],
)
_METRICS = Description(
    "metrics",
    "What the service does, for Prometheus.",
    [
        Answer(
            200,
            "In the format that the Accept header names.",
            [Content(TEXT, media) for media in ("text/plain", "application/openmetrics-text")],
        )
    ],
)


def endpoints(service: Service) -> list[Endpoint]:
    """Return the endpoints."""
    api = Endpoints("operations")

    @api.get("/healthz", _ALIVE, right=None, probe=True)
    async def alive(_: Request) -> Alive:
        return Alive(status="alive")

    @api.get("/readyz", _READY, right=None, probe=True)
    async def ready(_: Request) -> Reply[Readiness]:
        models = {model.name: ModelState(state=model.state, reason=model.reason) for model in service.models.values()}
        status: Literal["ready", "not ready", "draining"] = (
            "draining" if service.draining else "ready" if service.ready else "not ready"
        )
        return Reply(Readiness(status=status, models=models), 200 if service.ready else 503)

    @api.get("/metrics", _METRICS, right="metrics", probe=True)
    async def metrics(request: Request) -> Response:
        body, content_type = await service.metrics_page(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return api.rows
