"""The Open Inference Protocol, version 2: what HTTP and gRPC share.

```
schema     requests and answers, as models
datatypes  the protocol's datatypes and NumPy's; refusals
models     models by their two names: pictures by its own, the bare network by `<name>.tensor`; what is said of them
inference  run a request: pictures or arrays in, bytes or JSON out
```
"""
