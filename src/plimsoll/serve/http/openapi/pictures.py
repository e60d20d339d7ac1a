"""Pictures in the document: as bodies, and the one that stands in examples."""

from __future__ import annotations

from plimsoll.serve.http.openapi.parts import Content, Schema

FILE: Schema = {"type": "string", "format": "binary"}
"""Any bytes: OpenAPI has no better word for a file."""

AS_BODY = tuple(Content(FILE, media) for media in ("image/jpeg", "image/png", "image/webp", "application/octet-stream"))
"""A picture's file as the whole body."""

EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mOsWHCCARtgYsABBqcEAHoHAfCY5IuSAAAAAElFTkSuQmCC"
"""A PNG of 8 × 8 blue pixels in base64: examples hold a picture that a service really answers."""


def parts_of_a_form(name: str) -> Content:
    """Return a multipart body with pictures in its parts of this name."""
    files = {"type": "array", "items": FILE, "minItems": 1}
    return Content({"type": "object", "properties": {name: files}, "required": [name]}, "multipart/form-data")
