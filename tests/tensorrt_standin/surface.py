"""Read what TensorRT's Python bindings offer: their classes, methods with signatures, properties and enum members, as
data.

    python surface.py > 11.4.json      (with NVIDIA's bindings, and their libraries or the empty ones of `libraries.c`,
    at hand)

The bindings' own docstrings carry every signature. `tests/backends/test_tensorrt_bindings.py` does this and compares.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from typing import Any

CLASSES = (
    "Builder", "IBuilderConfig", "INetworkDefinition", "ITensor", "OnnxParser", "ParserError", "Runtime", "ICudaEngine",
    "IExecutionContext",
    "IOptimizationProfile", "ITimingCache", "IHostMemory", "ILogger", "IOutputAllocator", "IPluginRegistry",
    "IInt8EntropyCalibrator2",
    "IInt8MinMaxCalibrator",
)  # fmt: skip
ENUMS = (
    "BuilderFlag",
    "NetworkDefinitionCreationFlag",
    "MemoryPoolType",
    "HardwareCompatibilityLevel",
    "TensorIOMode",
    "TensorLocation",
    "DataType",
)
FUNCTIONS = ("init_libnvinfer_plugins", "get_plugin_registry")
_SKIPPED = re.compile(r"add_(?!optimization_profile)|_pybind11|mark_|unmark_")
"""Layers of networks, which Plimsoll leaves to the parser."""


def read(module: Any) -> dict[str, Any]:
    """Return the surface of a bindings module."""
    return {
        "version": module.__version__,
        "classes": {name: _class(getattr(module, name)) for name in CLASSES if hasattr(module, name)},
        "enums": (
            {name: list(getattr(module, name).__members__) for name in ENUMS}
            | {"ILogger.Severity": list(module.ILogger.Severity.__members__)}
        ),
        "functions": {name: _signatures(name, getattr(module, name).__doc__) for name in FUNCTIONS},
    }


def _class(kind: Any) -> dict[str, Any]:
    methods: dict[str, list[str]] = {}
    properties: dict[str, bool] = {}
    for name in sorted(dir(kind)):
        value = getattr(kind, name)
        if _SKIPPED.match(name) or (name.startswith("__") and name != "__init__") or inspect.isclass(value):
            continue
        if isinstance(value, property):
            properties[name] = value.fset is not None
        elif callable(value):
            methods[name] = _signatures(name, value.__doc__)
    callbacks = re.findall(r"def (\w+)\(([^)]*)\):", kind.__doc__ or "")
    return {
        "methods": methods,
        "properties": properties,
        "callbacks": {
            name: [argument.strip() for argument in arguments.split(",")]
            for name, arguments in callbacks
            if name != "__init__"
        },
    }


def _signatures(name: str, text: str | None) -> list[str]:
    lines = (re.sub(r"^\d+\. ", "", line.strip()) for line in (text or "").splitlines())
    return [
        line.replace("tensorrt_bindings.tensorrt.", "")
        for line in lines
        if line.startswith(f"{name}(") and "->" in line
    ]


if __name__ == "__main__":
    json.dump(
        read(importlib.import_module(sys.argv[1] if len(sys.argv) > 1 else "tensorrt_bindings")),
        sys.stdout,
        indent=1,
        sort_keys=True,
    )
