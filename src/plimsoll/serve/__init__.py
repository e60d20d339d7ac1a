"""Serve models over HTTP and gRPC.

The web process speaks with the network and holds the queues; it never imports a runtime and never decodes a picture.
Each model has worker processes, and each worker owns its session for its whole life. Pictures and tensors travel
between them in shared memory.

The way of a request, file by file:

```
http/ grpc/    adapters of the protocols, with oip/ (Open Inference Protocol), compat/ (other products)
pipeline       authorize, limit, trace, handle, log and measure, for every protocol; access/ knows keys and rates
service        all models by name; each is loaded, reloaded without losing a request, unloaded
scheduler      its requests: queued by priority, handed to workers in batches, each item given its result
worker_handle  one worker process, as the web process sees it; child starts it
ipc            frames over a pipe, and shared memory
worker         the worker process: its loops and threads
executor       what a worker computes; calls inference.Predictor and its Runner
```

Around it:

```
messages       what was requested, what came of it, what failed
settings       limits and timeouts
parsing        JSON and base64, counted before they are built
folders        where files lie, and what is removed when
signals        what the operating system asks for
pool           the workers of one version: how many and why; started, watched, replaced
candidates     a model on trial beside the one that it may replace
metrics        counters, for Prometheus and for the Open Inference Protocol
log tracing    what operators see
```
"""
