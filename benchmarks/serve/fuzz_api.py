"""Try `plimsoll serve` against its own description: schemathesis makes requests from /openapi.json, good and bad ones, and checks the answers.

    python benchmarks/serve/set_up.py schemathesis                                once
    python benchmarks/serve/fuzz_api.py [MODEL] [--examples 100] [-- OPTIONS OF SCHEMATHESIS]

No answer may have a status of 500 or more, nor one, a content type, a header or a body that the description doesn't have. Exit code 1 where
one does. Unloading the model is left out: everything after it would rightly be 503.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from servers import Running, ours
from set_up import HERE, peers_folder

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method"
PHOTO = HERE.parent.parent / "examples" / "photos" / "hedgehog.jpg"


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
    limits = ["--max-examples", str(arguments.examples), "--seed", str(arguments.seed), "--checks", CHECKS, "--exclude-path-regex", "unload$"]
    url = f"http://127.0.0.1:{arguments.port}/openapi.json"
    with (
        tempfile.TemporaryDirectory(prefix="plimsoll-fuzz-") as folder,
        Running(ours("plimsoll", arguments.model), arguments.port, Path(folder) / "log") as running,
    ):
        running.wait(PHOTO.read_bytes())
        found = subprocess.run([str(program), "run", url, *limits, *arguments.options], cwd=folder).returncode
        alive = running.process.poll() is None
    if not alive:
        print("the service ended while it was tried")
    return 0 if alive and not found else 1


if __name__ == "__main__":
    sys.exit(main())
