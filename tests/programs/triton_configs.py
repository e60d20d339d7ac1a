"""Print the config.pbtxt of every model of a repository as JSON, parsed by Triton's own schema."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2


def main(repository: Path) -> None:
    result = {}
    for file in sorted(repository.glob("*/config.pbtxt")):
        message = text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
        result[file.parent.name] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
