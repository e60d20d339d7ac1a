"""Who may ask for what, and how often: the same for HTTP and gRPC.

```
keys        API keys, and the file that they are kept in
ring        the keys of a running service: read anew when their file changes
rate        token buckets
settings    what can be set
doorkeeper  admits a caller, or says why not
```
"""
