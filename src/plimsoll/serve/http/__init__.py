"""The service over HTTP.

```
server       runs the service, and drains on SIGTERM
listener     sockets, TLS                                                           protocol: limits of a connection
app          the pipeline's adapter: finds what answers a request, sends its answer or error
endpoints    the table of what is served: paths, methods, rights, probes, descriptions; what handlers answer with
predict, models, operations, page: the native interface, what operators ask, the page
oip          the Open Inference Protocol                                                     oip_body
answers, streaming: what `/v1/predict` answers, at once or one by one
body, multipart, compression, urls: read what a request holds, or names; answers in gzip
openapi      the document at /openapi.json, from the table
```
"""
