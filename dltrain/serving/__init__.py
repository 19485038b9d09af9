"""Answering over HTTP from an exported file: onnxruntime and Pillow, no torch."""
