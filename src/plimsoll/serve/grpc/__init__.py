"""gRPC: the Open Inference Protocol's `inference.GRPCInferenceService` with Triton's extensions, and gRPC's own health
check.

```
server      listens, and stops
handler     the pipeline's adapter: a call, or a message of a stream, from its arrival to its end
service     the procedures, and the right that each needs
conversion  messages, and the models of plimsoll.serve.oip
status      problems as gRPC's status codes
oip_pb2     generated from oip.proto, which says how
```

It needs the extra `grpc`; nothing here is imported where no port for gRPC was asked for.
"""
