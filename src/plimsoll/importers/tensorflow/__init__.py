"""TensorFlow and Keras: Keras files, SavedModels, frozen graphs and checkpoints, read in the toolchain `tensorflow`.

`importer` is the converters, `toolchain` the environment that they run in and its jobs.
"""

from __future__ import annotations

from plimsoll.importers.tensorflow.importer import IMPORTER

__all__ = ["IMPORTER"]
