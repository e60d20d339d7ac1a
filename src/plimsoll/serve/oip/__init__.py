"""The Open Inference Protocol, version 2: what HTTP and gRPC share.

```
request     what a caller asks for, however it came; refusals
datatypes   the protocol's datatypes and NumPy's
tensors     what a caller sent, as pictures or arrays; and answers as bytes or JSON
binary      HTTP bodies: JSON alone, JSON with tensors behind it, or one bare tensor
compression compressed HTTP bodies
models      which model a name means: pictures by its own name, the bare network by `<name>.tensor`
inference   run a request
ranking     the classification extension
description metadata and configuration of models and server
statistics  what a model did
repository  the index; loading and unloading
```
"""
