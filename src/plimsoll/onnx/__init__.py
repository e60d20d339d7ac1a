"""ONNX files: read with care, checked, walked and written."""
