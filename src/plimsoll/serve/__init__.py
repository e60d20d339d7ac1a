"""Serve models over HTTP and gRPC.

One process speaks with the network and holds the queues; it never imports a runtime and never decodes a picture. Each
model has worker processes, and a worker alone owns its session for its whole life. Pictures and tensors travel between
them in shared memory.

```
messages   what was asked, what was answered, what went wrong
settings   limits and choices
plan       how many workers and threads a model gets here, and why
arena      shared memory, and its allocation
frames     messages between the processes
worker     the process that owns a session          (worker, work)
link       one worker, seen from the web process
pool       the workers of one version: watched, replaced
batching   the queue: priorities, deadlines, batches that grow under load
deployment a model by name: its queue, its version, its reload
service    all models
http/ grpc what speaks with the world
```
"""
