"""Interfaces of other products: Misskey's detector, PhotoPrism's vision service, pict-rs's validation, KServe's first
protocol.

The first three ask whether a picture is safe to show. A picture without an answer is unknown in all of them, and never
safe.

```
settings    which model answers, and what its labels mean
moderation  asks the model, and reads its answers as the five classes
misskey, photoprism, pictrs, kserve: an interface each
```
"""
