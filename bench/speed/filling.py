"""Jobs put into chatd's queue by the thousand, past HTTP: the backlogs that are measured."""

from __future__ import annotations

from typing import Any

import redis

from chat.jobs import NewJob, new_job_id
from chat.settings import ChatdConfig
from chat.store import JobStore
from chat.types import ChatRequest, Lane, Message, Role

__all__ = ["Filler", "batch_job"]

_AT_ONCE = 500
_DEADLINE_MS = 86_400_000


def batch_job(question: str, metadata: dict[str, str] | None = None) -> NewJob:
    """A job of the batch lane with one message, its deadline a day away."""
    request = ChatRequest("echo", (Message(Role.USER, question),))
    job_id = new_job_id()
    return NewJob(job_id, request, "ollama", "echo", Lane.BATCH, _DEADLINE_MS, metadata or {})


class Filler(JobStore):
    """A job store that admits with the same script and arguments, hundreds in one round trip."""

    def __init__(self, client: redis.Redis, config: ChatdConfig) -> None:
        super().__init__(client, config)
        self._pipeline = client.pipeline(transaction=False)

    def fill(self, count: int, question: str = "question", *, noted: bool = False) -> None:
        """Admit ``count`` batch jobs; ``noted`` puts the question into the record as well.

        Raises ``AssertionError`` when one was refused.
        """
        for begin in range(0, count, _AT_ONCE):
            for number in range(begin, min(count, begin + _AT_ONCE)):
                text = f"{question} {number}"
                self.admit(batch_job(text, {"question": text} if noted else None))
            for reply in self._pipeline.execute():
                assert reply[0] == "ok", reply

    def _run(self, name: str, *args: str | int) -> Any:
        self._scripts[name](args=args, client=self._pipeline)
        # What `fill` checks once it is known.
        return ["ok", args[0]]
