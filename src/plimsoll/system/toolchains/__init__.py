"""Toolchains: environments of their own for converters that are heavy, exclude one another, or crash.

A toolchain is a file `NAME.toml` (what it is for, which Python) and a file `NAME.lock` (pinned requirements with their
hashes) in `plimsoll/toolchains`, or in a folder that `$PLIMSOLL_TOOLCHAINS` names. Its environment is made on first use
and kept in the cache folder. Its work is a script in the folder `jobs` there, which runs with the toolchain's Python in
a process that is watched, without a network, on copies of its inputs:

```python
def run(request: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]: ...
```

A script imports the toolchain's packages and the standard library, never Plimsoll; the further `plimsoll_job.Refused`
says that what the user gave can't be taken. `request` and the answer are JSON; files are left in `out`.
"""

from __future__ import annotations

from plimsoll.system.subprocesses import Limits
from plimsoll.system.toolchains.environment import made, make, remove
from plimsoll.system.toolchains.job import run
from plimsoll.system.toolchains.recipe import Description, describe, names

__all__ = ["Description", "Limits", "describe", "made", "make", "names", "remove", "run"]
