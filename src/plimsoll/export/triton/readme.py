"""The README that lies in an exported model's folder."""

from __future__ import annotations

import json
import re

from plimsoll import backends
from plimsoll.core.version import __version__
from plimsoll.export.triton.network import PYTHON, TritonNetwork
from plimsoll.preprocessing import Preprocessing
from plimsoll.spec import Spec

_TEXT = """# {name} in Triton

Written by Plimsoll {version} for the target {target}. The folder above this one is a model repository:

- `{name}` takes picture files and answers with the network's outputs. Input: `image`, BYTES `[N]`, each element the
  bytes of a file ({formats}). Outputs: {outputs}.
- `{name}.steps` turns pictures into tensors with Plimsoll's own input steps, in Triton's Python backend.
- `{name}.tensor` is the network alone ({backend}).

## Run it

Triton's Python needs Plimsoll. Take Triton 24.12 or later: the Python backend of older ones crashes with NumPy 2.

```dockerfile
FROM nvcr.io/nvidia/tritonserver:25.06-py3
RUN pip install --no-cache-dir {requirement}
ENV ORT_DISABLE_TELEMETRY=1
```

```sh
docker build -t tritonserver-plimsoll .
docker run --rm --shm-size=1g -p 8000:8000 -p 8001:8001 -v "$PWD/REPOSITORY:/models:ro" \\
    tritonserver-plimsoll tritonserver --model-repository=/models
```

The Python processes pass tensors through /dev/shm, of which Docker gives 64 MB unless told otherwise.

```python
import numpy as np, tritonclient.http as triton
picture = np.array([open("photo.jpg", "rb").read()], dtype=object)
image = triton.InferInput("image", [1], "BYTES")
image.set_data_from_numpy(picture)
print(triton.InferenceServerClient("localhost:8000").infer("{name}", [image]).as_numpy({first}))
```
{notes}"""


def text(spec: Spec, network: TritonNetwork, preprocessing: Preprocessing) -> str:
    """Return the README."""
    runtime = "" if network.native is not None else backends.get(network.target.runtime).extra
    extras = [*(["fast"] if preprocessing == "fast" else []), *([runtime] if runtime else [])]
    extra = f"[{','.join(extras)}]" if extras else ""
    return _TEXT.format(
        name=spec.name,
        version=__version__,
        target=network.target,
        formats=", ".join(spec.input.decode.formats),
        outputs=", ".join(f"{_code(output.name)} ({output.dtype})" for output in network.outputs),
        backend=(
            f"backend {network.backend}"
            if network.backend != PYTHON
            else f"{network.target} in Plimsoll's own session, in the Python backend"
        ),
        requirement=f"'plimsoll-line{extra}=={__version__}'",
        first=json.dumps(network.outputs[0].name),
        notes="" if network.native is None else network.native.notes,
    )


def _code(name: str) -> str:
    """Return a name as code in Markdown, whatever is in it."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", name)), default=0))
    padding = " " if name.startswith("`") or name.endswith("`") else ""
    return f"{fence}{padding}{name}{padding}{fence}"
