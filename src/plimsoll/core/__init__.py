"""The nouns that everything else is made of.

- `model`: `Model`, `TensorInfo`; `target`: `Target`; `budget`: `Budget`, `Check`
- `fit`: whether a Spec fits a network
- `foreign`: importing optional libraries, translating their exceptions
- `wording`: printable text, pydantic's errors in words; `duration`: `500ms`, `30s`, `2m`, `1h`
"""
