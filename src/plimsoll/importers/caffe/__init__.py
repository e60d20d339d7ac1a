"""Caffe networks: a `.prototxt` for deployment and the `.caffemodel` beside it, read without Caffe."""

from __future__ import annotations

from plimsoll.importers.caffe.importer import IMPORTER

__all__ = ["IMPORTER"]
