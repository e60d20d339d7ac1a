"""Toolchains: separate environments for converters that are heavy, conflict with one another, or crash.

A toolchain is a file `NAME.toml` (purpose, Python versions) and a file `NAME.lock` (pinned requirements with hashes) in
the folder `toolchain` of the backend or importer that uses it, or in a folder listed in `$PLIMSOLL_TOOLCHAINS`. Its
environment is created on first use in the cache folder. Its jobs are scripts in the folder `jobs` beside those
files. A job runs with the toolchain's Python in a supervised process, without a network, on copies of its inputs:

```python
def run(request: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]: ...
```

A job imports the toolchain's packages, the standard library and `plimsoll_job`, never Plimsoll. It raises
`plimsoll_job.RefusedError` for a model that can't be converted. Request and result are JSON; files are left in `out`.

- `environment`: what a toolchain consists of; create, repair and remove its environment
- `job`: run a job from Plimsoll's side; `plimsoll_job` is the other side
"""

from __future__ import annotations

from plimsoll.system.subprocesses import ProcessLimits
from plimsoll.system.toolchains.environment import Description, describe, is_ready, make, names, remove
from plimsoll.system.toolchains.job import run

__all__ = ["Description", "ProcessLimits", "describe", "is_ready", "make", "names", "remove", "run"]
