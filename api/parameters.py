"""Parameters and headers of the calls, as the OpenAPI document describes them."""

from __future__ import annotations

from api.evaluations import CONTENT_TYPES
from api.headers import EVENT_ID
from api.jobs import EVENT_FORMATS
from api.runs import MOST_LISTED as MOST_RUNS_LISTED
from chat.files import MOST_LISTED
from chat.formats.chat import LONGEST_MODEL
from chat.formats.shapes import NAMED
from chat.jobs import ID_CHARACTERS, JobState
from chat.routing import PROVIDERS
from chat.types import JSON, Lane

__all__ = [
    "APPLIED",
    "ATTACHMENT",
    "BATCH_ID",
    "CONDITIONS",
    "EVALUATION_ID",
    "EVENT_FORMAT",
    "FILE_FILTERS",
    "FILE_ID",
    "FILTERS",
    "FORMAT",
    "GOING_ON",
    "IDEMPOTENCY_KEY",
    "IGNORED",
    "JOB_HEADER",
    "JOB_ID",
    "LAST_EVENT_ID",
    "LOCATION",
    "MODEL",
    "PREFER",
    "REPORT",
    "RETRY_AFTER",
    "SIZE",
    "TEXT",
    "TIMING",
    "WAIT",
    "page_of",
]

TEXT: JSON = {"type": "string"}
JOB_ID: JSON = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^job_{ID_CHARACTERS}$"},
}
MODEL: JSON = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "any name of a model; slashes in it may stand as they are",
    "schema": {"type": "string", "maxLength": LONGEST_MODEL, "pattern": NAMED},
}
WAIT: JSON = {
    "name": "wait",
    "in": "query",
    "description": "long poll: answer once the job is over, or after so many seconds, or when the "
    "front end is told to stop",
    "schema": {"type": "number", "minimum": 0, "maximum": 300, "default": 0},
}
EVENT_FORMAT: JSON = {
    "name": "format",
    "in": "query",
    "description": "chatd: delta, answer and error. openai: chunks, with the usage",
    "schema": {"enum": list(EVENT_FORMATS), "default": EVENT_FORMATS[0]},
}
LAST_EVENT_ID: JSON = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "the id of the last event that came: only what follows it is sent",
    "schema": {"type": "string", "pattern": EVENT_ID},
}
GOING_ON: JSON = {
    **LAST_EVENT_ID,
    "description": "the same of a stream, together with its Idempotency-Key; without stream it is "
    "not looked at",
    "schema": TEXT,
}
FILTERS: tuple[JSON, ...] = (
    {
        "name": "state",
        "in": "query",
        "description": "one or several, with commas between them; without it jobs in every state",
        "schema": {
            "type": "array",
            "minItems": 1,
            "items": {"enum": [state.value for state in JobState]},
        },
        "style": "form",
        "explode": False,
    },
    {"name": "provider", "in": "query", "schema": {"enum": list(PROVIDERS)}},
    {"name": "lane", "in": "query", "schema": {"enum": [lane.value for lane in Lane]}},
    {
        "name": "limit",
        "in": "query",
        "description": "the most jobs on the page",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    },
    {
        "name": "after",
        "in": "query",
        "description": "the `next` of the page before: jobs older than the one with this id, "
        "whether or not there still is a record of that",
        "schema": JOB_ID["schema"],
    },
)
FILE_ID: JSON = {
    "name": "file_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^file-{ID_CHARACTERS}$"},
}
FILE_FILTERS: tuple[JSON, ...] = (
    {"name": "purpose", "in": "query", "schema": {"enum": ["batch", "batch_output"]}},
    {"name": "order", "in": "query", "schema": {"enum": ["desc", "asc"], "default": "desc"}},
    {
        "name": "limit",
        "in": "query",
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_LISTED,
            "default": MOST_LISTED,
        },
    },
    {
        "name": "after",
        "in": "query",
        "description": "the `last_id` of the page before, whether or not there still is that file",
        "schema": FILE_ID["schema"],
    },
)
BATCH_ID: JSON = {
    "name": "batch_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^batch_{ID_CHARACTERS}$"},
}
EVALUATION_ID: JSON = {
    "name": "evaluation_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^eval_{ID_CHARACTERS}$"},
}


def page_of(an_id: JSON) -> tuple[JSON, ...]:
    """What a page of batches or evaluations is asked for with."""
    limits = {"minimum": 1, "maximum": MOST_RUNS_LISTED, "default": 20}
    return (
        {"name": "limit", "in": "query", "schema": {"type": "integer", **limits}},
        {
            "name": "after",
            "in": "query",
            "description": "the `last_id` of the page before",
            "schema": an_id["schema"],
        },
    )


FORMAT: JSON = {
    "name": "format",
    "in": "query",
    "description": "html: the report as a page. json: every figure. jsonl: every answer with its "
    "scores. csv: the same as a table. junit: the scores for tools that show tests",
    "schema": {"enum": list(CONTENT_TYPES), "default": "html"},
}
_TAGS = "ETags of earlier answers, or *"
#: What a download is asked for with (RFC 9110).
CONDITIONS: tuple[JSON, ...] = (
    {
        "name": "Range",
        "in": "header",
        "description": "one range of bytes, such as bytes=0-99",
        "schema": TEXT,
    },
    {
        "name": "If-Range",
        "in": "header",
        "description": "an ETag: all of it instead of the range if there is another one now",
        "schema": TEXT,
    },
    {"name": "If-Match", "in": "header", "description": _TAGS, "schema": TEXT},
    {"name": "If-None-Match", "in": "header", "description": _TAGS, "schema": TEXT},
)
IDEMPOTENCY_KEY: JSON = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "1 to 255 visible ASCII characters; the same key with the same body on the same "
    "path is the same job, file, batch or evaluation",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
PREFER: JSON = {
    "name": "Prefer",
    "in": "header",
    "description": "wait=N: 202 after N seconds, the job goes on. respond-async: 202 at once. "
    "Without it the call waits until the job ends (RFC 7240)",
    "schema": TEXT,
}
LOCATION: JSON = {"Location": {"description": "the path of the job's record", "schema": TEXT}}
ATTACHMENT: JSON = {
    "Content-Disposition": {"description": "the name of the file", "schema": TEXT},
    "ETag": {"description": "the SHA-256 of the whole content", "schema": TEXT},
}
REPORT: JSON = {
    "Content-Disposition": {"description": "the name of jsonl, csv and junit", "schema": TEXT},
    "ETag": {"description": "another one when a further round has ended", "schema": TEXT},
    "Content-Security-Policy": {"description": "of the page: no network at all", "schema": TEXT},
}
SIZE: JSON = {"Content-Range": {"description": "how many bytes there are", "schema": TEXT}}
JOB_HEADER: JSON = {"X-Chatd-Job-Id": {"description": "the job's id", "schema": TEXT}}
TIMING: JSON = {
    "Server-Timing": {
        "description": "queue, upstream and gateway in ms; not of a stream",
        "schema": TEXT,
    },
    **JOB_HEADER,
}
APPLIED: JSON = {"Preference-Applied": {"description": "the preference kept", "schema": TEXT}}
IGNORED: JSON = {
    "X-Chatd-Ignored": {
        "description": "the fields that were accepted and not sent to the provider; absent if none",
        "schema": TEXT,
    }
}
RETRY_AFTER: JSON = {
    "Retry-After": {"description": "seconds to wait before another try", "schema": TEXT}
}
