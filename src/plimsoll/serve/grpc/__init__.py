"""gRPC: the Open Inference Protocol's `inference.GRPCInferenceService` with Triton's extensions, and gRPC's health check.

```
server      listens, and stops
reception   what every request goes through, from its arrival to its end
journal     what is told of it: a line in the log, counts, a span
service     the procedures
call        what is known of a request and its caller
conversion  messages, and the values of plimsoll.serve.oip
status      problems as gRPC's status codes
oip_pb2     generated of oip.proto, which says how
```

It needs the extra `grpc`; nothing here is imported where no port for gRPC was asked for.
"""
