"""`Spec`: the contract of a model, from the bytes of a picture to the meaning of the answer.

spec     `Spec` and `Input`
steps    the input steps, and what each does to a picture
output   the tasks, and the parameters of each
files    Specs as TOML files, and their JSON Schema
"""

from __future__ import annotations

from plimsoll.spec.spec import Input, Name, Spec

__all__ = ["Input", "Name", "Spec"]
