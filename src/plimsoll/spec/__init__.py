"""`Spec`: the contract of a model, from the bytes of a picture to the meaning of the answer."""

from __future__ import annotations

from plimsoll.spec.spec import Input, Name, Spec

__all__ = ["Input", "Name", "Spec"]
