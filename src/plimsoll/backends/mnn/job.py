"""MNN's converter and quantizer, which run in a process of their own: on what they don't like they abort it.

They are called in MNN's extension module. Its Python modules of the same names, and its console scripts, install a
package that sends what they did to its makers (`MNN.tools.utils.log`): nothing here imports those.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plimsoll.core.foreign import require
from plimsoll.errors import BuildError

INSTALL = "pip install 'plimsoll-line[mnn]'"


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Convert or quantize; the arguments are the command line's. Raises BuildError where nothing came of it."""
    tools = require("_tools", INSTALL)
    made = Path(payload["made"])
    made.unlink(missing_ok=True)
    arguments = [payload["tool"], *payload["arguments"]]
    done = tools.mnnconvert(arguments) if payload["tool"] == "mnnconvert" else tools.mnnquant(arguments)
    if done is False or not made.is_file() or made.stat().st_size == 0:
        raise BuildError(f"{payload['tool']} made nothing of it", "Its output is in the log.")
    return {}
