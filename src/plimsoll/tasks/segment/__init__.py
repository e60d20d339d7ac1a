"""Segmentation: a label for every pixel."""

from __future__ import annotations

from plimsoll.tasks.segment.task import DECODER, Segmentation, SegmentTask

__all__ = ["DECODER", "SegmentTask", "Segmentation"]
