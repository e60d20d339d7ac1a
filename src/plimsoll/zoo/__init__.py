"""The zoo: trained networks that Plimsoll knows by name, each with a card that says where it is from and what it is
for."""

from __future__ import annotations

from plimsoll.zoo.catalog import Card, NpmSource, WheelSource, cached_file, card, names

__all__ = ["Card", "NpmSource", "WheelSource", "cached_file", "card", "names"]
