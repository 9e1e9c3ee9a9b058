"""What the calls for batches and for evaluations have in common: both are runs of the keeper's."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Annotated, Any

from flask import Response, request
from pydantic import Field

from api.access import caller
from api.frontend import FrontEnd
from api.output import json_response, page_response
from api.threads import in_thread
from chat.batches.folder import BatchStore
from chat.batches.runs import RunStore
from chat.disk import disk_errors
from chat.errors import InvalidRequest
from chat.evaluations.folder import EvaluationStore
from chat.files import FileStore, StoredFile
from chat.formats.chat import Body, MetadataKey, MetadataValue
from chat.formats.strict_json import shown

__all__ = [
    "METADATA",
    "MOST_LISTED",
    "Metadata",
    "Once",
    "cancelled",
    "input_file",
    "listed",
    "run_response",
    "window_s",
]

Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
METADATA = "an object of at most 16 strings; keys of 1 to 64 characters, values of at most 512"

#: The most runs on one page, as in OpenAI's API reference (List batches).
MOST_LISTED = 100

_WINDOW = re.compile(r"([1-9][0-9]{0,2})([hd])")
_UNIT_S = {"h": 3600, "d": 86400}
_LONGEST_S = 30 * 86400

#: Runs of either kind, and those of them that can be made.
_Runs = RunStore[Any, Any]
_Making = BatchStore | EvaluationStore


class Once:
    """The making of a run: once for each ``key`` and ``body``, however often they are sent."""

    def __init__(self, store: _Making, key: str | None, body: Body) -> None:
        self._store, self._key = store, key
        canonical = json.dumps(body.model_dump(by_alias=True), sort_keys=True)
        self._body_hash = hashlib.sha256(canonical.encode()).hexdigest()

    def earlier(self) -> str | None:
        """The run that an earlier call has made, whether or not its input file is still there.

        Raises ``IdempotencyMismatch`` and ``StorageUnavailable``.
        """
        if self._key is None:
            return None
        with disk_errors(f"the {self._store.kind} cannot be read"):
            return in_thread(self._store.of_key, self._key, self._body_hash)

    def make(self, run: Any, files: FileStore) -> str:
        """Make the run, or find the one that another call has made meanwhile; its id.

        Raises ``FileNotFound``, ``IdempotencyMismatch`` and ``StorageUnavailable``.
        """
        with disk_errors(f"the {self._store.kind} cannot be stored"):
            return in_thread(self._make, run, files)

    def _make(self, run: Any, files: FileStore) -> str:
        if self._key is not None:
            # The id comes first: who finds it taken, and no run behind it, goes on for a process
            # that died in between.
            run = replace(run, id=self._store.claim(self._key, self._body_hash, run.id))
        self._store.create(run, files.path(run.input_file_id))
        run_id: str = run.id
        return run_id


def input_file(front: FrontEnd, file_id: str, content: str) -> StoredFile:
    """The uploaded file that a run begins with; ``content`` says what it has to hold.

    Raises ``FileNotFound`` and ``InvalidRequest``.
    """
    file = in_thread(front.files.get, file_id, caller().sees)
    if file.purpose != "batch":
        raise InvalidRequest(
            f"input_file_id is {shown(file.id)}, a file of purpose {file.purpose}, but must be one "
            f"of purpose batch; upload {content} with purpose=batch",
            param="input_file_id",
        )
    return file


def window_s(text: str, param: str = "completion_window") -> int:
    """The seconds of a completion window. Raises ``InvalidRequest`` that names ``param``."""
    found = _WINDOW.fullmatch(text)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST_S:
        raise InvalidRequest(
            f"{param} is {shown(text)}, but must be a number of hours or days up to 30 days, such "
            'as "24h" or "7d"',
            param=param,
        )
    return seconds


def listed(store: _Runs, an_id: str, runs: str) -> Response:
    """A page of runs, newest first, as ``limit`` and ``after`` of the query ask for it.

    ``an_id`` is what messages call the id of one, ``runs`` what they call several.
    """
    after = request.args.get("after")
    if after is not None and not store.is_id(after):
        raise InvalidRequest(
            f"after is {shown(after)}, but must be {an_id}; take the last_id of the page before",
            param="after",
        )
    limit = _limit()
    with disk_errors(f"{runs} cannot be read"):
        found, more = in_thread(store.page, after, limit, caller().sees)
    return page_response([run.shown(progress) for run, progress in found], more=more)


def run_response(store: _Runs, run_id: str) -> Response:
    """A run as it is by now."""
    with disk_errors(f"the {store.kind} cannot be read"):
        run, progress = in_thread(store.get, run_id, caller().sees)
    return json_response(run.shown(progress))


def cancelled(store: _Runs, run_id: str) -> Response:
    """Ask for the end of a run; what it is then."""
    with disk_errors(f"the {store.kind} cannot be cancelled"):
        in_thread(store.cancel, run_id, caller().sees)
    return run_response(store, run_id)


def _limit() -> int:
    text = request.args.get("limit", "20")
    if re.fullmatch("[0-9]{1,4}", text) is None or not 1 <= int(text) <= MOST_LISTED:
        raise InvalidRequest(
            f"limit is {shown(text)}, but must be a whole number from 1 to {MOST_LISTED}; ask for "
            "more with after, which takes the last_id of this page",
            param="limit",
        )
    return int(text)
