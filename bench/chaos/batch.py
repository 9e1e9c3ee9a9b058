"""One batch of the load, from its upload to its two files of results."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import requests

__all__ = ["Batch"]

_TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_PATIENCE_S = 60.0


@dataclass
class Batch:
    """A file of ``lines`` questions, sent with Idempotency-Keys until chatd has taken it.

    ``batch_id`` is set once the batch was made, ``status`` and ``results`` (the lines of both
    files) once it was collected.
    """

    url: str
    http: requests.Session
    name: str
    lines: int
    batch_id: str | None = None
    status: str = "not sent"
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def questions(self) -> list[str]:
        """What its lines ask, in their order."""
        return [f"{self.name}/{number}" for number in range(1, self.lines + 1)]

    @property
    def over(self) -> bool:
        """Whether its end is known, or nobody was ever told that there is one."""
        return self.batch_id is None or self.status in _TERMINAL

    def submit(self, given_up: threading.Event) -> None:
        """Upload the file and make the batch, each as often as it takes."""
        text = "".join(_line(question) for question in self.questions)
        file_id = self._post(
            given_up,
            "/v1/files",
            files={"file": ("in.jsonl", text.encode())},
            data={"purpose": "batch"},
        )
        if file_id is None:
            return
        self.status = "not made"
        body = {"input_file_id": file_id, "endpoint": "/v1/chat", "completion_window": "24h"}
        self.batch_id = self._post(given_up, "/v1/batches", json=body)

    def collect(self, until: float) -> None:
        """Read the results once the batch is over, or leave it as it is at that moment."""
        if self.batch_id is None:
            return
        while True:
            found = self._get(f"/v1/batches/{self.batch_id}")
            if found is not None:
                self.status = found["status"]
            if found is not None and self.status in _TERMINAL:
                names = [found["output_file_id"], found["error_file_id"]]
                texts = [self._content(file_id) for file_id in names if file_id]
                if None not in texts:
                    lines = [line for text in texts if text for line in text.splitlines()]
                    self.results = [json.loads(line) for line in lines]
                    return
            if time.monotonic() >= until:
                return
            time.sleep(0.2)

    def _post(self, given_up: threading.Event, path: str, **what: Any) -> str | None:
        """The id of what was made; ``None`` when nobody wants it any more."""
        headers = {"Idempotency-Key": self.name}
        while True:
            try:
                reply = self.http.post(
                    self.url + path, headers=headers, timeout=_PATIENCE_S, **what
                )
            except requests.RequestException:
                reply = None
            if reply is not None and reply.status_code == 200:
                made: str = reply.json()["id"]
                return made
            if reply is not None and reply.status_code != 503:
                self.status = f"refused: {reply.text[:200]}"
                return None
            if given_up.wait(0.2):
                return None

    def _get(self, path: str) -> dict[str, Any] | None:
        try:
            reply = self.http.get(self.url + path, timeout=_PATIENCE_S)
        except requests.RequestException:
            return None
        value: dict[str, Any] | None = reply.json() if reply.status_code == 200 else None
        return value

    def _content(self, file_id: str) -> str | None:
        try:
            reply = self.http.get(f"{self.url}/v1/files/{file_id}/content", timeout=_PATIENCE_S)
        except requests.RequestException:
            return None
        return reply.text if reply.status_code == 200 else None


def _line(question: str) -> str:
    body = {
        "model": "echo",
        "messages": [{"role": "user", "content": question}],
        "metadata": {"q": question},
    }
    line = {"custom_id": question, "method": "POST", "url": "/v1/chat", "body": body}
    return json.dumps(line) + "\n"
