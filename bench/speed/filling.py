"""Jobs put into chatd's queue by the thousand, past HTTP: the backlogs that are measured."""

from __future__ import annotations

from chat.jobs import NewJob, new_job_id
from chat.store import Admitted, JobStore
from chat.types import ChatRequest, Lane, Message, Role

__all__ = ["fill"]

_AT_ONCE = 500
_DEADLINE_MS = 86_400_000


def fill(store: JobStore, count: int, question: str = "question", *, noted: bool = False) -> None:
    """Admit ``count`` batch jobs, hundreds in one round trip.

    ``noted`` puts the question of each into its record as well. Raises ``AssertionError`` when one
    was refused.
    """
    for begin in range(0, count, _AT_ONCE):
        numbers = range(begin, min(count, begin + _AT_ONCE))
        for answer in store.admit_all([_job(f"{question} {n}", noted=noted) for n in numbers]):
            assert isinstance(answer, Admitted), answer


def _job(question: str, *, noted: bool) -> NewJob:
    """A job of the batch lane with one message, its deadline a day away."""
    return NewJob(
        id=new_job_id(),
        request=ChatRequest("echo", (Message(Role.USER, question),)),
        provider="ollama",
        upstream_model="echo",
        lane=Lane.BATCH,
        timeout_ms=_DEADLINE_MS,
        metadata={"question": question} if noted else {},
    )
