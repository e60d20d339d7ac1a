"""tensorrtx's `.wts` files: weights without a network, for the networks that Plimsoll can name."""

from __future__ import annotations

from plimsoll.importers.wts.importer import IMPORTER

__all__ = ["IMPORTER"]
