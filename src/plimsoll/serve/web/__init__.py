"""Several processes for the network, where one can't answer as fast as the workers compute.

```
supervisor   in the main process: starts, watches and replaces them, and hands their requests to the models
process      a web process: speaks HTTP as the main process would alone
remote       the models as a web process sees them; their queues and workers are the main process's
```

A web process stores what came in in its part of the shared memory and says so over a pipe, so that queues, workers,
versions and metrics exist once.
"""
