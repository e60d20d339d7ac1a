"""gRPC: the Open Inference Protocol's `inference.GRPCInferenceService` with Triton's extensions, and gRPC's own health
check.

```
server      the procedures, the right that each needs, and the server that listens
handler     the pipeline's adapter: a call, or a message of a stream, from its arrival to its end; status codes
conversion  messages, and the models of plimsoll.serve.oip
oip_pb2     generated from oip.proto, which says how
```

It needs the extra `grpc`; nothing here is imported where no port for gRPC was asked for.
"""
