"""The contracts that existing applications speak: Misskey's detector, PhotoPrism's vision service, pict-rs's
validation."""

from __future__ import annotations

from plimsoll.serve.compat.routes import routes

__all__ = ["routes"]
