"""Who may do what, and how often: the same for HTTP and gRPC.

```
keys        API keys, their file, the keys of a running service, and their rates
origins     what browsers say: whether another site's page sent a request
authorizer  admits a caller, or says why not; what can be set
```
"""
