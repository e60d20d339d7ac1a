"""A stand-in for NVIDIA's `tensorrt`, for machines without GPU: it computes with ONNX Runtime and checks every use of
it.

What there is comes from `10.json` or `11.json` (STANDIN_TENSORRT says which), which were read off the real bindings. A
class, flag, method, property or argument that the real ones don't have is an error here too; so is a call from another
thread than the one that made the context. It proves nothing about TensorRT: only that it is called as it is documented.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tensorrt.checked import Checked, class_of, enum_of, subclassable

_SURFACE = json.loads((Path(__file__).parents[1] / f"{os.environ['STANDIN_TENSORRT']}.json").read_text())
__version__: str = os.environ.get("STANDIN_VERSION", _SURFACE["version"])


def _fill() -> None:
    from tensorrt import behaviour

    classes, enums = _SURFACE["classes"], _SURFACE["enums"]
    here = globals()
    for name, members in enums.items():
        if "." not in name:
            here[name] = enum_of(name, members)
    for name, surface in classes.items():
        if name in behaviour.SUBCLASSED:
            here[name] = subclassable(name, surface)
        else:
            here[name] = class_of(name, surface, getattr(behaviour, name))
    here["ILogger"].Severity = enum_of("Severity", enums["ILogger.Severity"])


def get_plugin_registry() -> Checked:
    from tensorrt import behaviour

    return behaviour.instance_of("IPluginRegistry")


def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
    if not isinstance(logger, globals()["ILogger"]):
        raise TypeError("init_libnvinfer_plugins: expected a logger")
    return isinstance(namespace, str)


_fill()
