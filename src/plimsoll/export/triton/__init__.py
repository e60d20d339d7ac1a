"""A Triton model repository: a network behind its input steps, for NVIDIA's Triton Inference Server.

`export` writes one, or adds to one that is there. `serving` is what then runs inside Triton.
"""

from __future__ import annotations

from plimsoll.export.triton.network import TritonOptions
from plimsoll.export.triton.repository import export

__all__ = ["TritonOptions", "export"]
