"""gRPC: the Open Inference Protocol's `inference.GRPCInferenceService` with Triton's extensions, and gRPC's health check.

```
server      listens, and stops
service     the procedures, and who may call them
call        what is known of a call and its caller
conversion  messages, and the values of plimsoll.serve.oip
status      problems as gRPC's status codes
oip_pb2     generated of oip.proto, which says how
```

It needs the extra `grpc`; nothing here is imported where no port for gRPC was asked for.
"""
