"""Plimsoll: the fastest deployment of a trained vision model whose answers stay within your budget.

>>> import plimsoll
>>> with plimsoll.load("open_nsfw") as model:  # doctest: +SKIP
...     print(model.predict("photo.jpg").score)

Importing this package imports no runtime, and hardly anything else: each name below is loaded on its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plimsoll.bundle import Bundle
    from plimsoll.client import AsyncClient, Client
    from plimsoll.errors import (
        BackendError,
        BackendMissing,
        BuildFailed,
        BundleError,
        CheckFailed,
        ImageError,
        InputError,
        ModelError,
        PlimsollError,
        RunFailed,
        SpecError,
        TargetError,
    )
    from plimsoll.image import InputPlan
    from plimsoll.importing import Imported, from_torch, import_model
    from plimsoll.model import Model
    from plimsoll.package import pack, verify
    from plimsoll.predict import Prediction, Predictor, load
    from plimsoll.report import Report
    from plimsoll.runner import Runner
    from plimsoll.spec import Spec
    from plimsoll.target import Target

__version__ = "0.1.0"

_HOMES = {
    "bundle": ["Bundle"],
    "client": ["AsyncClient", "Client"],
    "errors": [
        "BackendError", "BackendMissing", "BuildFailed", "BundleError", "CheckFailed", "ImageError", "InputError", "ModelError",
        "PlimsollError", "RunFailed", "SpecError", "TargetError",
    ],
    "image": ["InputPlan"],
    "importing": ["Imported", "from_torch", "import_model"],
    "model": ["Model"],
    "package": ["pack", "verify"],
    "predict": ["Prediction", "Predictor", "load"],
    "report": ["Report"],
    "runner": ["Runner"],
    "spec": ["Spec"],
    "target": ["Target"],
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient", "BackendError", "BackendMissing", "BuildFailed", "Bundle", "BundleError", "CheckFailed", "Client", "ImageError", "Imported", "InputError",
    "InputPlan", "Model", "ModelError", "PlimsollError", "Prediction", "Predictor", "Report", "RunFailed", "Runner", "Spec", "SpecError",
    "Target", "TargetError", "__version__", "from_torch", "import_model", "load", "pack", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'plimsoll' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"plimsoll.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
