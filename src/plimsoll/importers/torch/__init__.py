"""PyTorch: exported programs, TorchScript, and weights with the code of their network; read in the toolchain
`torch`."""

from __future__ import annotations

from plimsoll.importers.torch.importer import IMPORTER

__all__ = ["IMPORTER"]
