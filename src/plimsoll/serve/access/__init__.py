"""Who may ask for what, and how often: the same for HTTP and gRPC.

```
keys        API keys, the file that they are kept in, and the keys of a running service
rate        token buckets
authorizer  admits a caller, or says why not; what can be set
```
"""
