"""Let a web package answer pictures in headless Chromium, and check itself there."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plimsoll.core.budget import Check
from plimsoll.export.web import chromium

_PROGRAM = """
import {{ Model, PictureError }} from "/plimsoll.js";
import {{ check, goldenCount }} from "/selfcheck.js";

export default async function run() {{
  const model = await Model.load("/");
  const rows = [];
  for (const address of {addresses}) {{
    const file = await (await fetch(address)).blob();
    try {{
      const {{ row, milliseconds }} = await model.answer(file);
      rows.push({{ row, milliseconds }});
    }} catch (error) {{
      if (!(error instanceof PictureError)) throw error;
      rows.push({{ error: error.message }});
    }}
  }}
  const checks = [];
  for (let index = 0; index < await goldenCount(model); index += 1) checks.push(await check(model, index));
  await model.close();
  return {{ rows, checks }};
}}
"""


@dataclass(frozen=True)
class BrowserAnswers:
    """What a package answered in a browser."""

    rows: tuple[dict[str, Any] | None, ...]
    """One a picture, as `plimsoll predict` has them; None where the picture was refused."""
    errors: tuple[str | None, ...]
    """Why, one a picture."""
    milliseconds: tuple[dict[str, float], ...]
    """What each step took, one a picture."""
    checks: tuple[Check, ...]
    """The package's self-check on its golden pictures."""


def browse(folder: Path, pictures: Sequence[Path] = (), *, seconds: float = 600) -> BrowserAnswers:
    """Open a web package in headless Chromium, let it answer the pictures one after another, and check itself.

    Raises BackendMissingError where Chromium is not installed, RunError where the package can't be loaded or fails.
    """
    files = {f"_pictures/{index}": picture for index, picture in enumerate(pictures)}
    program = _PROGRAM.format(addresses=json.dumps([f"/{name}" for name in files]))
    answer = chromium.run(program, folder, files, seconds=seconds)
    rows = answer["rows"]
    checks = [
        # JSON has no NaN: a difference that could not be computed arrives as null.
        Check(
            name=f"{picture_checks['picture']}: {check['name']}",
            measured=math.nan if check["measured"] is None else check["measured"],
            limit=check["limit"],
        )
        for picture_checks in answer["checks"]
        for check in picture_checks["checks"]
    ]
    return BrowserAnswers(
        tuple(row.get("row") for row in rows),
        tuple(row.get("error") for row in rows),
        tuple(row.get("milliseconds", {}) for row in rows),
        tuple(checks),
    )
