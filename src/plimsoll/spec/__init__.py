"""`Spec`: the contract of a model, from the bytes of a picture to the meaning of the answer.

spec    `Spec`: its input, and its output: the task with its parameters
inputs  the input side: steps, and further inputs
steps   the input steps, and what each does to a picture
files   Specs as TOML files, and their JSON Schema
beside  files that a Spec names
policy  `Policy`: bands that replace a Spec's
"""

from __future__ import annotations

from plimsoll.spec.spec import Input, Name, Spec

__all__ = ["Input", "Name", "Spec"]
