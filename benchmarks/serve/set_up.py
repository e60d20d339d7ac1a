"""Set the peers up, each in an environment of its own below the cache folder, and wrk from Debian's packages.

    python benchmarks/serve/set_up.py [NAME…]

What can't be installed here is told with its error; the rest is set up all the same. Needs some 2 GB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from plimsoll.system.cache import cache_folder

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "peers" / "requirements"
WRK_PACKAGES = ["wrk", "libluajit-5.1-2", "libluajit-5.1-common"]


def peers_folder() -> Path:
    """Return the folder in which each peer has its environment."""
    return cache_folder() / "benchmarks" / "peers"


def set_up(name: str) -> None:
    """Make one environment; raises CalledProcessError with what the installer said."""
    folder = peers_folder() / name
    if name == "wrk":
        folder.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", *WRK_PACKAGES], folder)
        for package in folder.glob("*.deb"):
            _run(["dpkg", "-x", package.name, "."], folder)
        return
    venv.create(folder, with_pip=True)
    _run(
        [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--requirement",
            str(REQUIREMENTS / f"{name}.txt"),
        ],
        folder,
    )


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def main() -> int:
    """Parse the arguments and set up what is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = ["wrk", *sorted(file.stem for file in REQUIREMENTS.glob("*.txt"))]
    parser.add_argument("names", nargs="*", default=known, help=f"of {', '.join(known)} (default: all)")
    failed = 0
    for name in parser.parse_args().names:
        try:
            set_up(name)
        except (subprocess.CalledProcessError, OSError) as error:
            said = (
                error.stderr.strip().splitlines()[-3:]
                if isinstance(error, subprocess.CalledProcessError)
                else [str(error)]
            )
            print(f"{name}: can't be set up here: {' '.join(said)}")
            failed += 1
        else:
            print(f"{name}: ready in {peers_folder() / name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
