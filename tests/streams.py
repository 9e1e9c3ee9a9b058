"""What tests of streams over fakes have in common: a script of what comes, and how it is asked."""

from __future__ import annotations

from typing import Any

from api.contract import Event
from chat.errors import ChatError
from chat.jobs import JobState
from chat.types import JSON
from tests.events import Told, read
from tests.fakes import Gateway, response_of

__all__ = [
    "BODY",
    "CHAT",
    "COMPLETIONS",
    "ask",
    "calls",
    "ends",
    "events_of",
    "fails",
    "nothing_is_left",
    "script",
    "tells",
]

CHAT, COMPLETIONS = "/v1/chat", "/v1/chat/completions"
BODY: JSON = {
    "model": "qwen3:8b",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": True,
    "timeout_s": 60,
}


def script(gate: Gateway, *steps: Any) -> None:
    """Do one of ``steps`` with the job's id at each wait; after them time passes."""
    left = iter(steps)

    def meanwhile(job_id: str) -> None:
        step = next(left, None)
        if step is not None:
            step(job_id)

    gate.replies.meanwhile = meanwhile


def tells(gate: Gateway, *pieces: Any) -> Any:
    """A step in which these pieces come."""
    return lambda job_id: gate.replies.tell(job_id, *pieces)


def ends(gate: Gateway, content: str = "hello", **fields: Any) -> Any:
    """A step in which the job is answered."""
    return lambda job_id: gate.store.end(
        job_id, response_of(gate.store.jobs[job_id].new, content=content, **fields)
    )


def fails(gate: Gateway, error: ChatError) -> Any:
    """A step in which it ends in an error."""
    return lambda job_id: gate.store.end(job_id, error)


def calls(gate: Gateway) -> Any:
    """A step in which its call begins."""

    def step(job_id: str) -> None:
        gate.store.jobs[job_id].state = JobState.CALLING

    return step


def ask(
    gate: Gateway,
    path: str = CHAT,
    body: JSON = BODY,
    *,
    key: str | None = None,
    had: str | None = None,
    prefer: str | None = None,
    request_id: str | None = None,
) -> Any:
    """Ask for a stream, unless the body says otherwise; ``had`` is the event that came last."""
    headers = {
        "Idempotency-Key": key,
        "Last-Event-ID": had,
        "Prefer": prefer,
        "X-Request-Id": request_id,
    }
    given = {name: value for name, value in headers.items() if value is not None}
    return gate.client.post(path, json=body, headers=given)


def events_of(response: Any) -> list[Told]:
    """The events of a stream, to its end, each held against the contract."""
    assert (response.status_code, response.mimetype) == (200, "text/event-stream")
    events = read(response.data)
    response.close()
    for one in events:
        if one.event != "comment":
            Event(id=one.id, event=one.event, data=one.data)
    return events


def nothing_is_left(gate: Gateway) -> bool:
    """Whether nobody waits, watches or is to be woken."""
    hangups = gate.front.connections().hangups
    return not (gate.replies.expected or gate.front.stopping._wakes or hangups._watched)
