"""A chatd with something of everything in it, and an upstream that also refuses."""

from __future__ import annotations

import itertools
import json
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.upstream import Upstream
from chat.access import hash_of
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["KEY", "filled", "running"]

#: Whoever calls has it; everything may be done with it.
KEY = "chatd-of-the-contract"

#: How many there are of each thing: some calls end or delete what they are given.
_COPIES = 12
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})

_REFUSALS: Mapping[int, tuple[int, Any]] = {
    0: (400, {"error": "the prompt is too long"}),
    1: (401, {"error": "unauthorized"}),
    2: (404, {"error": "model not found"}),
    3: (200, {"message": "no object"}),
    4: (200, {"message": {"content": "nul \0, half \ud83d, \u202eleft"}, "done": True}),
}
_OF = 16


def _reply(_: str, body: dict[str, Any]) -> tuple[int, Any] | None:
    """A refusal or a faulty answer to some bodies, always to the same ones."""
    return _REFUSALS.get(zlib.crc32(json.dumps(body, sort_keys=True).encode()) % _OF)


@contextmanager
def running() -> Iterator[Stack]:
    """Start everything, with two providers, and stop it at the end, Ctrl-C included."""
    with tempfile.TemporaryDirectory() as folder:
        upstream = Upstream(reply=_reply).start()
        stack = Stack(
            Path(folder),
            {"ollama": upstream.url, "kimi": upstream.url},
            concurrency=16,
            environ={"KIMI_API_KEY": "sk-made-up"},
            tail=f'[[chatd.keys]]\nname = "all"\nsha256 = "{hash_of(KEY)}"\nadmin = true\n'
            '[models]\nlocal_fast = "echo"\n',
        )
        stack.http.headers["Authorization"] = f"Bearer {KEY}"
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()
            upstream.stop()


def filled(stack: Stack) -> dict[str, list[str]]:
    """Make some of everything; the ids of what there is now, by the name of a parameter."""
    lines = {"custom_id": "q", "method": "POST", "url": "/v1/chat", "body": _chat("in a batch")}
    sample = {"id": "s", "prompt": "What is 1?", "expected": "1"}
    suite = {"name": "suite", "models": ["echo"], "scorers": [{"type": "exact"}]}
    requests_id, samples_id = _upload(stack, lines), _upload(stack, sample)
    batch = {
        "input_file_id": requests_id,
        "endpoint": "/v1/chat",
        "completion_window": "24h",
    }
    evaluation = {"input_file_id": samples_id, "suite": suite}
    found = {
        "input_file_id": [requests_id, samples_id],
        "model": ["echo", "local_fast", "kimi/echo"],
        "Range": ["bytes=0-99", "bytes=-1", "bytes=5-"],
        "file_id": [_upload(stack, lines) for _ in range(_COPIES)],
        "job_id": [stack.submit(f"question {n}") for n in range(_COPIES)],
        "batch_id": [_post(stack, "batches", batch) for _ in range(_COPIES)],
        "evaluation_id": [_post(stack, "evaluations", evaluation) for _ in range(_COPIES)],
    }
    for path, name in (("batches", "batch_id"), ("evaluations", "evaluation_id")):
        for run_id in itertools.islice(found[name], _COPIES // 2):
            _wait_for(stack, f"{stack.url}/v1/{path}/{run_id}")
    return found


def _chat(question: str) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": question}]}


def _upload(stack: Stack, line: Mapping[str, Any]) -> str:
    reply = stack.http.post(
        f"{stack.url}/v1/files",
        data={"purpose": "batch"},
        files={"file": ("in.jsonl", json.dumps(line).encode() + b"\n")},
        timeout=60,
    )
    file_id: str = reply.json()["id"]
    return file_id


def _post(stack: Stack, path: str, body: Mapping[str, Any]) -> str:
    reply = stack.http.post(f"{stack.url}/v1/{path}", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    run_id: str = reply.json()["id"]
    return run_id


def _wait_for(stack: Stack, url: str) -> None:
    eventually(
        lambda: stack.http.get(url, timeout=60).json()["status"] in _OVER,
        within_s=60,
        what=f"{url} is over",
    )
