"""Every error that chatd makes by itself, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chat.jobs import new_id, new_job_id
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["before_the_end", "outages", "refused", "turned_away"]


def refused(stack: Stack) -> dict[str, str]:
    """What is wrong with the request itself: what was done, and the code that came of it."""
    chat = {"model": "case/good", "messages": [{"role": "user", "content": "hello"}]}
    long = {**chat, "messages": [{"role": "user", "content": "long " * 20_000}]}
    key = {"Idempotency-Key": "the-same"}
    _code(stack, "POST", "/v1/chat", chat, key)
    return {
        "a body without a model": _code(stack, "POST", "/v1/chat", {}),
        "a body over the limit": _code(stack, "POST", "/v1/chat", long),
        "a key with another body": _code(stack, "POST", "/v1/chat", {**chat, "seed": 1}, key),
        "a job of today": _code(stack, "GET", f"/v1/jobs/{new_job_id()}"),
        "a job of 1970": _code(stack, "GET", "/v1/jobs/job_00000000000000000000000000"),
        "an unknown file": _code(stack, "GET", f"/v1/files/{new_id('file-')}"),
        "an unknown batch": _code(stack, "GET", f"/v1/batches/{new_id('batch_')}"),
        "an unknown evaluation": _code(stack, "GET", f"/v1/evaluations/{new_id('eval_')}"),
        "an unknown model": _code(stack, "GET", "/v1/models/nobody/knows-it"),
        "an unknown path": _code(stack, "GET", "/v1/chats"),
        "another method": _code(stack, "DELETE", "/v1/chat"),
    }


def turned_away(stack: Stack, key: str) -> dict[str, str]:
    """What callers hear who may not; ``key`` is one of a call a minute, and no admin's."""
    wrong = {"Authorization": f"Bearer {key}-and-more"}
    right = {"Authorization": f"Bearer {key}"}
    return {
        "a key that is not known": _code(stack, "GET", "/v1/jobs", headers=wrong),
        "a call for admins": _code(stack, "GET", "/metrics", headers=right),
        "a call too many": _code(stack, "GET", "/v1/jobs", headers=right),
    }


def outages(stack: Stack) -> dict[str, str]:
    """What a part that is missing brings about; afterwards all parts are there again."""
    found = {"files is no folder": _without_a_folder(stack, "files")}
    chat = {"model": "kimi/case/good", "messages": [{"role": "user", "content": "hello"}]}
    stack.store.drain("kimi")
    found["a drained provider"] = _code(stack, "POST", "/v1/chat", chat)
    stack.store.resume("kimi")
    stack.workers["kimi"].stop(60)
    eventually(lambda: (stack.store.workers(["kimi"])["kimi"] or 0) > 10, what="the grace is over")
    found["a provider without a worker"] = _code(stack, "POST", "/v1/chat", chat)
    jobs = stack.config.max_queued + 1
    codes = [_code(stack, "POST", "/v1/jobs", chat) for _ in range(jobs)]
    found["more jobs than may wait"] = next((code for code in codes if code), "")
    stack.workers["kimi"].start()
    eventually(lambda: _idle(stack), within_s=60, what="the jobs that waited are answered")
    return found


def _idle(stack: Stack) -> bool:
    counters = stack.store.counters()
    return not any(counters.get(state) for state in ("queued", "waiting", "calling"))


def before_the_end(stack: Stack) -> dict[str, str]:
    """A front end without one of the keys, which is started in the place of the other."""
    stack.api.stop(60)
    stack.api.environ = {**stack.environ, "OPENROUTER_API_KEY": ""}
    stack.api.start()
    eventually(stack.ready, within_s=60)
    chat = {"model": "openrouter/case/good", "messages": [{"role": "user", "content": "hello"}]}
    return {"a provider without a key": _code(stack, "POST", "/v1/chat", chat)}


def _without_a_folder(stack: Stack, name: str) -> str:
    """What an upload gets when a file stands where its folder should be."""
    folder = Path(stack.config.data_dir) / name
    aside = folder.rename(folder.with_name(f"{name}-aside"))
    folder.write_text("", "utf-8")
    try:
        reply = stack.http.post(
            f"{stack.url}/v1/files",
            files={"file": ("in.jsonl", b"{}")},
            data={"purpose": "batch"},
            timeout=60,
        )
        return _code_in(reply.json())
    finally:
        folder.unlink()
        aside.rename(folder)


def _code(
    stack: Stack,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    reply = stack.http.request(method, stack.url + path, json=body, headers=headers, timeout=120)
    return _code_in(reply.json())


def _code_in(body: Mapping[str, Any]) -> str:
    """The code of an error; a job's record has ``error`` as well, and it is null."""
    error = body.get("error") or {}
    return str(error.get("code", ""))
