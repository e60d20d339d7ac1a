"""What every other room builds on: models, targets, budgets, and how errors and text are worded.

- `model`: `Model`, `TensorInfo`; `target`: `Target`; `budget`: `Budget`, `Check`
- `fit`: whether a Spec fits a network; `deviation`: how far two tensors lie apart
- `foreign`: importing optional libraries, translating their exceptions
- `wording`: printable text, pydantic's errors in words; `duration`: `500ms`, `30s`, `2m`, `1h`; `version`
"""
