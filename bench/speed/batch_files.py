"""Batches over HTTP: the input file, and the three calls that make a batch and ask for it."""

from __future__ import annotations

import io
import json
from typing import Any

from tests.stack import Stack

__all__ = ["batch_file", "batch_object", "make_batch", "upload"]


def batch_file(lines: int) -> bytes:
    """The input of a batch with so many short questions."""
    made = []
    for number in range(1, lines + 1):
        body = {"model": "echo", "messages": [{"role": "user", "content": f"question {number}"}]}
        line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions"}
        made.append(json.dumps({**line, "body": body}))
    return ("\n".join(made) + "\n").encode()


def upload(stack: Stack, content: bytes) -> str:
    """POST /v1/files; the id of the file."""
    reply = stack.http.post(
        f"{stack.url}/v1/files",
        files={"file": ("in.jsonl", io.BytesIO(content))},
        data={"purpose": "batch"},
        timeout=120,
    )
    assert reply.status_code == 200, reply.text
    file_id: str = reply.json()["id"]
    return file_id


def make_batch(stack: Stack, file_id: str) -> str:
    """POST /v1/batches; the id of the batch."""
    body = {
        "input_file_id": file_id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    reply = stack.http.post(f"{stack.url}/v1/batches", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    batch_id: str = reply.json()["id"]
    return batch_id


def batch_object(stack: Stack, batch_id: str) -> dict[str, Any]:
    """GET /v1/batches/<id>."""
    reply = stack.http.get(f"{stack.url}/v1/batches/{batch_id}", timeout=60)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found
