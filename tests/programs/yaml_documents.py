"""Print the documents of YAML files as JSON: one list a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml


def main(files: list[str]) -> None:
    sys.stdout.write(json.dumps([list(yaml.safe_load_all(Path(file).read_text(encoding="utf-8"))) for file in files]))


if __name__ == "__main__":
    main(sys.argv[1:])
