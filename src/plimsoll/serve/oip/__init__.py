"""The Open Inference Protocol, version 2: what HTTP and gRPC share.

```
schema     requests and answers, as models
datatypes  the protocol's datatypes and NumPy's; refusals
models     models by their two names: pictures by its own, the bare network by `<name>.tensor`; what is said of them
tensors    what a caller sent, as pictures or arrays; and answers as bytes or JSON
inference  run a request
```
"""
