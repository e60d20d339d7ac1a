"""Packages for other places: browsers, Triton."""
