"""A chat gateway as good tutorials build it: Flask hands a task to Celery and waits with ``get``.

    python -m gunicorn -k gevent bench.speed.textbook:web
    python -m celery -A bench.speed.textbook worker -P gevent -c 512

The baseline of the speed tables, with the tuning that the documentation of Celery gives: gevent on
both sides, JSON, and one result backend for all greenlets. It has no record beside the task's
result, no budgets, no ledger and no deadlines but one.
"""

from __future__ import annotations

import os
from typing import Any

import requests
from celery import Celery
from flask import Flask, Response, jsonify, request

__all__ = ["app", "chat", "web"]

_REDIS = os.environ.get("TEXTBOOK_REDIS", "redis://127.0.0.1:6379/0")
_OLLAMA = os.environ.get("TEXTBOOK_OLLAMA", "http://127.0.0.1:11434")
_TIMEOUT_S = 60

app = Celery("textbook", broker=_REDIS, backend=_REDIS)
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    # Without it each greenlet makes a backend, with a pool of connections, of its own.
    result_backend_thread_safe=True,
    broker_connection_retry_on_startup=True,
)

web = Flask(__name__)


@app.task  # type: ignore[untyped-decorator]
def chat(model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Ask the model; runs in the worker."""
    body: dict[str, Any] = {"model": model, "messages": messages, "stream": False}
    reply = requests.post(f"{_OLLAMA}/api/chat", json=body, timeout=_TIMEOUT_S)
    reply.raise_for_status()
    answer: dict[str, Any] = reply.json()
    return {"model": model, "content": answer["message"]["content"]}


@web.post("/v1/chat")
def ask() -> tuple[Response, int]:
    """Put the question into the queue and wait for its answer."""
    body = request.get_json()
    if not body.get("model") or not body.get("messages"):
        return jsonify(error="model and messages are needed"), 400
    result = chat.apply_async((body["model"], body["messages"]))
    return jsonify(result.get(timeout=_TIMEOUT_S)), 200
