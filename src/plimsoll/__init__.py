"""Plimsoll: the fastest deployment of a trained vision model whose answers stay within your budget.

>>> import plimsoll
>>> with plimsoll.load("open_nsfw") as model:  # doctest: +SKIP
...     print(model.predict("photo.jpg").score)

Importing this package imports no runtime, and hardly anything else: each name below is loaded on its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from plimsoll.core.version import __version__

if TYPE_CHECKING:
    from plimsoll.backends.runner import Runner
    from plimsoll.bundle import Bundle
    from plimsoll.bundle.golden import verify
    from plimsoll.bundle.packing import pack
    from plimsoll.client import AsyncClient, Client
    from plimsoll.core.model import Model
    from plimsoll.core.target import Target
    from plimsoll.errors import (
        BackendError,
        BackendMissingError,
        BuildError,
        BundleError,
        CheckError,
        ImageError,
        InputError,
        ModelError,
        PlimsollError,
        RunError,
        SpecError,
        TargetError,
    )
    from plimsoll.importers.conversion import ImportedModel, from_torch, import_model
    from plimsoll.inference.predictor import Prediction, Predictor, load
    from plimsoll.preprocessing import Preprocessor
    from plimsoll.report.report import Report
    from plimsoll.scan.run import ScanResult, scan
    from plimsoll.spec import Spec

_HOMES = {
    "backends.runner": ["Runner"],
    "bundle": ["Bundle"],
    "bundle.golden": ["verify"],
    "bundle.packing": ["pack"],
    "client": ["AsyncClient", "Client"],
    "core.model": ["Model"],
    "core.target": ["Target"],
    "errors": [
        "BackendError", "BackendMissingError", "BuildError", "BundleError", "CheckError", "ImageError", "InputError",
        "ModelError",
        "PlimsollError", "RunError", "SpecError", "TargetError",
    ],
    "importers.conversion": ["ImportedModel", "from_torch", "import_model"],
    "inference.predictor": ["Prediction", "Predictor", "load"],
    "preprocessing": ["Preprocessor"],
    "report.report": ["Report"],
    "scan.run": ["ScanResult", "scan"],
    "spec": ["Spec"],
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient",
    "BackendError",
    "BackendMissingError",
    "BuildError",
    "Bundle",
    "BundleError",
    "CheckError",
    "Client",
    "ImageError",
    "ImportedModel",
    "InputError",
    "Model",
    "ModelError",
    "PlimsollError",
    "Prediction",
    "Predictor",
    "Preprocessor",
    "Report",
    "RunError",
    "Runner",
    "ScanResult",
    "Spec",
    "SpecError",
    "Target",
    "TargetError",
    "__version__",
    "from_torch",
    "import_model",
    "load",
    "pack",
    "scan",
    "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'plimsoll' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"plimsoll.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
