"""`GET /openapi.json`: everything that is served, described for people and machines."""

from __future__ import annotations

from plimsoll.serve.http.openapi.document import describe, routes

__all__ = ["describe", "routes"]
