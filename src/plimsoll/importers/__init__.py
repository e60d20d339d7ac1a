"""Importers: read a trained network of any framework, or convert it to ONNX.

base        what an importer provides: `Converter`, `ImportOptions`, `Probe`, `Conversion`
registry    every format that is known here, recognised from a path
conversion  `import_model` and `from_torch`: convert, then compare with the framework's own answers
onnx        ONNX files, read as they are
tflite      TFLite files, converted (their runtime reads them as they are)
caffe, tensorflow, tfjs, torch, wts    one framework each
"""

from __future__ import annotations

from plimsoll.importers.registry import ENTRY_POINTS, converter_for, format_of, formats, read, readers, reread

__all__ = ["ENTRY_POINTS", "converter_for", "format_of", "formats", "read", "readers", "reread"]
