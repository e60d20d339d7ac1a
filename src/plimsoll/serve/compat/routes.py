"""The contracts that existing applications speak: Misskey's detector, PhotoPrism's vision service, pict-rs's
validation.

All three ask whether a picture is safe to show. `settings` says which model answers and what its labels mean here,
`looking` asks it, and each contract's own file has its words. A picture without an answer is unknown in all of them,
and never safe.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.routing import Route

    from plimsoll.serve.service import Service

CONTRACTS = ("misskey", "photoprism", "pictrs")


def routes(service: Service) -> list[Route]:
    """Return the endpoints of all contracts that are on."""
    return [
        route
        for name in CONTRACTS
        for route in importlib.import_module(f"plimsoll.serve.compat.{name}").routes(service)
    ]
