"""`Bundle`: a folder or one .zip that holds a network, its Spec, and golden pictures with their answers."""

from __future__ import annotations

from plimsoll.bundle.bundle import Bundle, Content, check_destination, write

__all__ = ["Bundle", "Content", "check_destination", "write"]
