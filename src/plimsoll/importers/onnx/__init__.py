"""ONNX files.

reader        check a file, and bring it into normal form
fixed_inputs  further inputs that a Spec gives, written into the network as constants
"""

from __future__ import annotations

from plimsoll.importers.onnx.reader import IMPORTER, Onnx

__all__ = ["IMPORTER", "Onnx"]
