"""What browsers are told: which other pages may ask (none, unless it is set), and what this service's own page may do."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ORIGIN = r"^(\*|https?://[A-Za-z0-9.\-\[\]:]+)$"

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:"
    " mediastream:; connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
"""For HTML that doesn't bring its own policy: its own files, pictures that the user chose, nothing from elsewhere."""
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"


class CorsSettings(BaseModel):
    """Which web pages of other origins may ask (CORS). Off as long as `origins` is empty."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    origins: tuple[Annotated[str, Field(pattern=_ORIGIN)], ...] = ()
    """For example `https://app.example.org`; `*` for all, which without keys lets any page that a user of this network
    opens ask models."""
    max_age: int = Field(600, ge=0, le=86_400)
    """Seconds for which a browser remembers what it may."""


def cors(app: ASGIApp, settings: CorsSettings) -> ASGIApp:
    """Return an application that answers what other pages' browsers ask beforehand; `app` itself where none may.
    Cookies are never sent along."""
    if not settings.origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.origins,
        allow_methods=("GET", "POST"),
        allow_headers=(
            "Authorization",
            "X-API-Key",
            "X-Request-Id",
            "Content-Type",
            "Inference-Header-Content-Length",
            "traceparent",
        ),
        expose_headers=("X-Request-Id", "Retry-After", "Inference-Header-Content-Length"),
        max_age=settings.max_age,
    )


class SecurityHeaders:
    """Adds headers to answers that don't have them already."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        always = [
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
            (b"cache-control", b"no-store"),  # answers say something about pictures
        ]
        self._page = [*always, (b"content-security-policy", PAGE_POLICY.encode())]
        self._data = [*always, (b"content-security-policy", _DATA_POLICY.encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add(message)
            await send(message)

        await self._app(scope, receive, sending)

    def _add(self, message: Message) -> None:
        headers = [(name.lower(), value) for name, value in message.get("headers", ())]
        there = dict(headers)
        added = self._page if there.get(b"content-type", b"").startswith(b"text/html") else self._data
        message["headers"] = headers + [header for header in added if header[0] not in there]
