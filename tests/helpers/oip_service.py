"""A real service in this process that speaks the Open Inference Protocol over HTTP and gRPC, with the network of one's
choice."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import uvicorn
from numpy.typing import NDArray

from plimsoll.serve.http.app import application
from plimsoll.serve.http.listener import Address, uvicorn_config
from plimsoll.serve.pipeline import Pipeline
from plimsoll.serve.pool import PlanOptions
from plimsoll.serve.service import ModelConfig, Service
from plimsoll.serve.settings import Settings

if TYPE_CHECKING:
    from plimsoll.serve.grpc.server import GrpcServer

LENGTH = "Inference-Header-Content-Length"


@dataclass
class ServedProtocols:
    """A service that listens."""

    service: Service
    loop: asyncio.AbstractEventLoop
    http: str
    """host:port"""
    grpc: str
    client: httpx.Client

    def post(self, path: str, body: bytes | str | dict[str, Any], **headers: str) -> httpx.Response:
        """Send a body as it is, or an object as JSON."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, dict):
            return self.client.post(path, json=body, headers=named)
        return self.client.post(path, content=body, headers=named)

    def get(self, path: str) -> httpx.Response:
        """Ask."""
        return self.client.get(path)


@contextmanager
def serving(settings: Settings, *models: ModelConfig, **parts: Any) -> Iterator[ServedProtocols]:
    """Serve these models in a thread of this process; over gRPC too where that is installed, its pipeline with these
    `parts`: an `authorizer`, `lines`, `tracing`."""
    started = threading.Event()
    running: dict[str, Any] = {}

    def pipeline(service: Service) -> Pipeline:
        return Pipeline(service.metrics, settings.log, **parts)

    async def run() -> None:
        service = Service(settings, models)
        await service.start()
        grpc_server = await _grpc(service, pipeline(service))
        app = application(service)
        config = uvicorn_config(app, settings.model_copy(update={"drain_timeout": 2}), Address(port=0))
        server = uvicorn.Server(config)
        listening = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
        running.update(
            service=service,
            loop=asyncio.get_running_loop(),
            server=server,
            port=server.servers[0].sockets[0].getsockname()[1],
            grpc=grpc_server.port if grpc_server else 0,
        )
        started.set()
        try:
            await listening
        finally:
            if grpc_server is not None:
                await grpc_server.stop(1)
            await service.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    while not started.wait(0.05):
        assert thread.is_alive(), "the service didn't start"
    http = f"127.0.0.1:{running['port']}"
    try:
        with httpx.Client(base_url=f"http://{http}", timeout=60) as client:
            yield ServedProtocols(
                running["service"],
                running["loop"],
                http,
                f"127.0.0.1:{running['grpc']}",
                client,
            )
    finally:
        running["server"].should_exit = True
        thread.join()


async def _grpc(service: Service, pipeline: Pipeline) -> GrpcServer | None:
    if importlib.util.find_spec("grpc") is None:
        return None
    from plimsoll.serve.grpc.server import GrpcAddress, start

    return await start(service, GrpcAddress(port=0), pipeline)


def patient(**limits: Any) -> Settings:
    """Return settings for a machine where a process may be held up for minutes."""
    return Settings(
        timeout=600, batch_timeout=600, heartbeat_timeout=600, body_timeout=600, header_timeout=600, **limits
    )


def alone(name: str, reference: str | None = None, spec: Path | None = None) -> ModelConfig:
    """Return a model that is served by one worker with one thread."""
    return ModelConfig(name, reference or name, spec, plan_options=PlanOptions(workers=1, threads=1))


def write_mixed(folder: Path) -> ModelConfig:
    """Write a network that gives each kind of number: `pixels` FP32 `[N, 2, 2, 3]` and `gain` INT64 `[N, 1]` in,
    `mean`, `half`, `whole`, `bright` out."""
    from onnx import TensorProto, checker, helper, save

    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["flat"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["flat", "one"], ["column"]),
        helper.make_node("Cast", ["gain"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["column", "factor"], ["mean"]),
        helper.make_node("Cast", ["mean"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Add", ["gain", "one"], ["whole"]),
        helper.make_node("Greater", ["column", "factor"], ["bright"]),
    ]
    kinds = {
        "mean": TensorProto.FLOAT,
        "half": TensorProto.FLOAT16,
        "whole": TensorProto.INT64,
        "bright": TensorProto.BOOL,
    }
    graph = helper.make_graph(
        nodes,
        "mixed",
        [
            helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 2, 2, 3]),
            helper.make_tensor_value_info("gain", TensorProto.INT64, ["N", 1]),
        ],
        [helper.make_tensor_value_info(name, kind, ["N", 1]) for name, kind in kinds.items()],
        [helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(network)
    save(network, folder / "mixed.onnx")
    steps = """
name = "mixed"
[input]
tensor = "pixels"
[[input.steps]]
step = "decode"
[[input.steps]]
step = "resize"
width = 2
height = 2
[[input.steps]]
step = "dtype"
to = "float32"
[output]
task = "tensor"
"""
    (folder / "mixed.toml").write_text(steps)
    return alone("mixed", str(folder / "mixed.onnx"), folder / "mixed.toml")


def with_tensors(request: dict[str, Any], *tensors: bytes) -> tuple[bytes, str]:
    """Return a body of the binary tensor extension, and the length of its JSON as the header wants it."""
    head = json.dumps(request).encode()
    return head + b"".join(tensors), str(len(head))


def element(data: bytes) -> bytes:
    """Return one element of a BYTES tensor."""
    return struct.pack("<I", len(data)) + data


def tensors(reply: httpx.Response) -> dict[str, NDArray[Any]]:
    """Return the outputs, whichever way each was sent."""
    assert reply.status_code == 200, reply.text
    at = int(reply.headers.get(LENGTH, len(reply.content)))
    outputs = {}
    for output in json.loads(reply.content[:at])["outputs"]:
        dtype = {"FP16": "<f2", "FP32": "<f4", "INT64": "<i8", "BOOL": "?"}[output["datatype"]]
        size = output.get("parameters", {}).get("binary_data_size")
        data = np.array(output["data"], dtype) if size is None else np.frombuffer(reply.content[at : at + size], dtype)
        outputs[output["name"]] = data.reshape(output["shape"])
        at += size or 0
    assert at == len(reply.content)
    return outputs
