"""Try `plimsoll serve` against its own description: schemathesis makes requests from /openapi.json, good and bad ones,
and checks the answers.

    python benchmarks/serve/set_up.py schemathesis                                once
    python benchmarks/serve/fuzz_api.py [MODEL] [--examples 100] [-- OPTIONS OF SCHEMATHESIS]

Every interface is tried: the native one, the Open Inference Protocol, the interfaces of other products, the page,
what operators ask. No answer may have a status of 500 or more, nor one, a content type, a header or a body that the
description doesn't have. Exit code 1 where one does. Four things are not as usual:

- Unloading the model is left out: everything after it would rightly be 503. It is loaded anew a few times only, as each
  takes seconds.
- Inference is tried once more without headers: one that says how the body is to be read makes nonsense of most bodies.
- Where a caller gives a request no time (`timeout`), 504 is the right answer, and is let pass.
- pict-rs's interface answers what can't be looked at with 422, which can be set, in place of 503: here a 503 would be a
  fault.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from servers import Running, plimsoll_server
from set_up import HERE, peers_folder

CHECKS = ",".join(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "unsupported_method",
    ]
)
SERVICE = """
[compat.photoprism]
prefixes = ["/v1/vision", "/api/v1/vision"]
[compat.pictrs]
error_status = 422
"""
OPERATIONS = """
[[operations]]
include-path-regex = "/unload$"
enabled = false

[[operations]]
include-path-regex = "/load$"
generation.max-examples = 5
phases.coverage.enabled = false
phases.stateful.enabled = false

[[operations]]
include-path-regex = "/(infer|predict)$"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""
PHOTO = HERE.parent.parent / "examples" / "photos" / "hedgehog.jpg"


def without_headers(url: str) -> str:
    """Return the description at this address with no headers among its parameters."""
    with urllib.request.urlopen(url) as reply:
        document = json.load(reply)
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["parameters"] = [
                parameter for parameter in operation.get("parameters", ()) if parameter["in"] != "header"
            ]
    return json.dumps(document)


def main() -> int:
    """Parse the arguments, start the service, and let schemathesis try it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="open_nsfw", help="a zoo name or a bundle")
    parser.add_argument("--examples", type=int, default=100, help="requests of each operation at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=18400)
    parser.add_argument("options", nargs="*", help="more options of schemathesis, after --")
    arguments = parser.parse_args()
    program = peers_folder() / "schemathesis" / "bin" / "schemathesis"
    if not program.exists():
        sys.exit(f"{program} isn't there: run python {HERE / 'set_up.py'} schemathesis")
    limits = [
        "--max-examples",
        str(arguments.examples),
        "--seed",
        str(arguments.seed),
        "--checks",
        CHECKS,
        *arguments.options,
    ]
    url = f"http://127.0.0.1:{arguments.port}"
    with tempfile.TemporaryDirectory(prefix="plimsoll-fuzz-") as name:
        folder = Path(name)
        (folder / "serve.toml").write_text(SERVICE)
        (folder / "schemathesis.toml").write_text(OPERATIONS)
        server = plimsoll_server("plimsoll", arguments.model, "--config", str(folder / "serve.toml"))
        with Running(server, arguments.port, folder / "log") as running:
            running.wait(PHOTO.read_bytes())
            (folder / "bare.json").write_text(without_headers(f"{url}/openapi.json"))
            runs = [[f"{url}/openapi.json"], ["bare.json", "--url", url, "--include-path-regex", "infer$"]]
            codes = [subprocess.run([str(program), "run", *run, *limits], cwd=folder).returncode for run in runs]
            alive = running.process.poll() is None
    if not alive:
        print("the service ended while it was tried")
    return 0 if alive and not any(codes) else 1


if __name__ == "__main__":
    sys.exit(main())
