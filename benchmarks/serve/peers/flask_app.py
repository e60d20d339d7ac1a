"""gunicorn + Flask, as the usual tutorial has it: a session in each of 4 sync workers.

gunicorn --workers 4 --bind 127.0.0.1:$PORT peers.flask_app:app
"""

from __future__ import annotations

from flask import Flask, request
from peers.steps import open_session, score

app = Flask(__name__)
session = open_session()


@app.post("/predict")
def predict() -> dict[str, float]:
    """Answer the body's photo."""
    return {"score": score(session, request.get_data())}


@app.get("/healthz")
def healthz() -> str:
    """Tell that this worker has its session."""
    return "ok"
