"""``POST /v1/chat/completions``: a chat that waits, in OpenAI's format."""

from __future__ import annotations

from typing import NoReturn

from flask import Blueprint, Response

from api.admission import job_path, new_job, read_body
from api.chat import answer_job
from api.errors import chat_error
from api.events import CompletionEvents, Events
from api.frontend import FrontEnd, front_end
from chat.errors import ChatError, Draining
from chat.formats.completion_answers import completion, completion_error
from chat.formats.completions import parse_completion
from chat.formats.support import dropped
from chat.jobs import made_at
from chat.types import JSON, Billed, Lane

__all__ = ["blueprint"]

blueprint = Blueprint("completions", __name__)


@blueprint.post("/v1/chat/completions")
def complete() -> Response:
    """Wait as ``POST /v1/chat`` does; ``X-Chatd-Ignored`` names the fields that nobody was sent."""
    front = front_end()
    call = parse_completion(read_body(), max_timeout_s=front.config.max_timeout_s)
    job = new_job(front, call, Lane.INTERACTIVE)

    def streamed(job_id: str) -> Events:
        return CompletionEvents(job_id, job.request.model, usage=call.include_usage)

    response = answer_job(front, job, _formatted, streamed, _handed_over)
    ignored = call.ignored + dropped(job.provider, job.upstream_model, job.request)
    if ignored:
        response.headers["X-Chatd-Ignored"] = ", ".join(ignored)
    return response


@blueprint.errorhandler(ChatError)
def refuse(error: ChatError) -> Response:
    """An error with the status that OpenAI's clients understand."""
    return chat_error(error, completion_error(error))


def _handed_over(_: FrontEnd, job_id: str) -> NoReturn:
    """OpenAI's clients would take 202 for an answer. With their key they join the job again."""
    raise Draining(
        f"this front end is being stopped before the answer; job {job_id} goes on, and "
        f"GET {job_path(job_id)} tells how it ends",
        job_id=job_id,
        retry_after_s=1,
        billed=Billed.MAYBE,
    )


def _formatted(job_id: str, answer: JSON) -> JSON:
    # By the id, so that whoever joins a job or asks once more gets the same.
    return completion(job_id, (made_at(job_id) or 0) // 1000, answer)
