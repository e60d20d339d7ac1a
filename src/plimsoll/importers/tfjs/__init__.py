"""TensorFlow.js models: layers models and graph models, read without JavaScript."""

from __future__ import annotations

from plimsoll.importers.tfjs.importer import IMPORTER

__all__ = ["IMPORTER"]
