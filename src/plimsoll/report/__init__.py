"""What was measured: as data, and as a page."""
