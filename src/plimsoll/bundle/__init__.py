"""Bundles: a folder or one .zip that holds a network, its Spec, and golden pictures with their answers.

- `bundle`: `Bundle`, opened and checked; `CascadeBundle`, which holds a bundle for each stage of a cascade; `write`: a
  bundle is written whole or not at all
- `manifest`: `manifest.json`; `archive`: untrusted zip files and names; `tensor_file`: untrusted `.npy` files
- `cascade`: golden answers of a whole cascade
- `golden`: golden pictures, their answers, how far others may deviate from them; `verify`
- `answers`: how far decoded answers lie apart
- `packing`: `pack`

```
manifest.json            what there is, with the size and SHA-256 of every other file
spec.toml                the contract
model/…                  the network's files
golden/NAME.jpg          a picture
golden/NAME.input.npy    the tensor it became
golden/NAME.0.npy …      what the network answered, an output a file
```
"""

from __future__ import annotations

from plimsoll.bundle.bundle import Bundle, CascadeBundle, Content, check_destination, open_any, write

__all__ = ["Bundle", "CascadeBundle", "Content", "check_destination", "open_any", "write"]
