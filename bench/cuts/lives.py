"""What a process is in the middle of when it is struck: lives of a job, each played once a strike.

A life arms the proxy at a known point, does what a caller would do, and judges how it ended. Its
question is new each time, so that calls of the upstream can be told apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bench.cuts.verdict import Verdict, judge
from bench.cuts.world import PROVIDER, RETRIED, World
from chat.jobs import JobState
from chat.types import JSON, Lane
from tests.waiting import eventually
from workers.calls import HEARTBEAT_S

__all__ = ["LIVES", "Life"]

#: A provider whose jobs nobody takes: it is configured, and no worker of it runs.
_UNATTENDED = "kimi"
_LINES = 3
#: Seconds before a heartbeat at which the worker's commands begin to count, and for how long a
#: process sends nothing once all that belongs together has been sent.
_BEFORE_S = 0.3
_QUIET_S = 0.1
#: Milliseconds before something falls due at which the keeper's commands begin to count.
_SOON_MS = 350


@dataclass(frozen=True, slots=True)
class Life:
    """One scenario: ``play`` it with a question that is new. ``jobs`` is how many it admits."""

    process: str
    name: str
    play: Callable[[World, str], Verdict]
    jobs: int = 1
    quick: bool = False

    @property
    def title(self) -> str:
        """What it is called in print."""
        return f"{self.process} {self.name}"

    @property
    def told(self) -> str:
        """What happens in it."""
        return (self.play.__doc__ or "").splitlines()[0]


# -- the worker


def _answered(world: World, question: str) -> Verdict:
    """A job of the interactive lane is answered."""
    world.arm()
    job_id = world.admit(question, Lane.INTERACTIVE)
    world.until_over(job_id)
    return judge(world, question, job_id, JobState.SUCCEEDED, 1)


def _answered_in_the_batch_lane(world: World, question: str) -> Verdict:
    """A job of the batch lane is answered."""
    world.arm()
    job_id = world.admit(question, Lane.BATCH)
    world.until_over(job_id)
    return judge(world, question, job_id, JobState.SUCCEEDED, 1)


def _called_again(world: World, question: str) -> Verdict:
    """The first call of a job is refused with 503, the second is answered."""
    question = f"{RETRIED}-{question}"
    world.arm()
    job_id = world.admit(question, Lane.INTERACTIVE)
    world.until_over(job_id)
    return judge(world, question, job_id, JobState.SUCCEEDED, 2)


def _cancelled(world: World, question: str) -> Verdict:
    """A job is cancelled while it is in a call."""
    world.upstream.hold()
    world.arm()
    job_id = world.admit(question, Lane.INTERACTIVE)
    # With the worker killed there may never be a call to cancel.
    world.until(
        lambda: world.upstream.calls[question] or (world.kills and world.struck), "the call"
    )
    world.stack.store.cancel(job_id)
    world.until_over(job_id)
    return judge(world, question, job_id, JobState.CANCELLED, 1)


def _held_over_a_heartbeat(world: World, question: str) -> Verdict:
    """A call goes on over a heartbeat; the commands count from shortly before it."""
    world.upstream.hold()
    job_id = world.admit(question, Lane.INTERACTIVE)
    world.until(lambda: world.upstream.calls[question], "the call")
    world.until(lambda: _since_the_last_beat_s(world) > HEARTBEAT_S - _BEFORE_S, "its time")
    world.arm()
    world.until(
        lambda: (
            world.struck or ("heartbeat" in world.proxy.seen and world.proxy.quiet_s > _QUIET_S)
        ),
        "a heartbeat",
    )
    world.upstream.release()
    world.until_over(job_id)
    return judge(world, question, job_id, JobState.SUCCEEDED, 1)


def _since_the_last_beat_s(world: World) -> float:
    seen: float | None = world.stack.store.workers([PROVIDER])[PROVIDER]
    return seen or 0.0


def _taken_over_at_boot(world: World, question: str) -> Verdict:
    """A worker that was killed in a call starts anew; the commands count from its start."""
    world.upstream.hold()
    job_id = world.admit(question, Lane.BATCH)
    world.until(lambda: world.upstream.calls[question], "the call")
    world.kill()
    world.arm()
    world.upstream.release()
    world.until_over(job_id)
    return judge(world, question, job_id, JobState.SUCCEEDED, 2)


# -- the front end


def _asked_with_a_key(world: World, question: str) -> Verdict:
    """POST /v1/chat with an Idempotency-Key, sent again until it is answered."""
    world.arm()
    reply = world.ask("POST", "/v1/chat", key=question, json=_body(question)).json()
    if reply.get("content") != f"echo: {question}":
        return Verdict(["refused"], wrong=[f"the caller was told {reply}"])
    return judge(world, question, reply["id"], JobState.SUCCEEDED, 1)


def _asked_of_a_new_front_end(world: World, question: str) -> Verdict:
    """The first POST /v1/chat that a front end gets, sent again until it is answered."""
    world.kill()
    world.until(world.idle, "the front end is up")
    return _asked_with_a_key(world, question)


def _joined(world: World, question: str) -> Verdict:
    """POST /v1/chat with the key of a job that is in a call, sent again until it is answered."""
    world.upstream.hold()
    headers = {"Prefer": "respond-async"}
    world.ask("POST", "/v1/chat", key=question, json=_body(question), headers=headers)
    world.until(lambda: world.upstream.calls[question], "the call")
    with ThreadPoolExecutor(1) as pool:
        # A caller that waits would keep this thread from answering it.
        released = pool.submit(_release_once_joined, world)
        verdict = _asked_with_a_key(world, question)
        released.result()
    return verdict


def _release_once_joined(world: World) -> None:
    eventually(
        lambda: world.struck or ("admit" in world.proxy.seen and world.proxy.quiet_s > _QUIET_S),
        what="the second caller",
    )
    world.upstream.release()


def _submitted_watched_cancelled(world: World, question: str) -> Verdict:
    """POST /v1/jobs with a key, a long poll, a cancel, and a long poll for the end."""
    world.upstream.hold()
    world.arm()
    job_id = world.ask("POST", "/v1/jobs", key=question, json=_body(question)).json()["id"]
    path = f"/v1/jobs/{job_id}"
    world.ask("GET", path, params={"wait": "0.2"})
    world.until(lambda: world.upstream.calls[question], "the call")
    world.ask("POST", f"{path}/cancel")
    told: JSON = {}
    while told.get("state") not in ("succeeded", "failed", "cancelled", "expired"):
        told = world.ask("GET", path, params={"wait": "20"}).json()
    verdict = judge(world, question, job_id, JobState.CANCELLED, 1)
    if told["state"] != "cancelled":
        verdict.wrong.append(f"the caller was told {told['state']}")
    return verdict


# -- the keeper


def _released(world: World, question: str) -> Verdict:
    """A job whose back-off is nearly over is brought back."""
    question = f"{RETRIED}-{question}"
    job_id = world.admit(question, Lane.BATCH)
    _arm_before(world, "due", job_id)
    world.until_over(job_id)
    return judge(world, question, job_id, JobState.SUCCEEDED, 2)


def _expired(world: World, question: str) -> Verdict:
    """A job that nobody takes passes its deadline."""
    world.arm()
    job_id = world.admit(
        question, Lane.INTERACTIVE, provider=_UNATTENDED, timeout_s=_SOON_MS / 1000
    )
    world.until_over(job_id)
    return judge(world, question, job_id, JobState.EXPIRED, 0)


def _retired(world: World, question: str) -> Verdict:
    """The retention of an ended job's record ends."""
    before = _retired_so_far(world)
    job_id = world.admit(question, Lane.INTERACTIVE, retention_s=1)
    world.until_over(job_id)
    verdict = judge(world, question, job_id, JobState.SUCCEEDED, 1)
    member = f"{job_id} succeeded"
    _arm_before(world, "terminal", member)
    client = world.stack.redis.client
    world.until(lambda: client.zscore("terminal", member) is None, "the record goes")
    kinds = ("job:", "request:", "stream:", "celery-task-meta-")
    left = client.exists(*(f"{kind}{job_id}" for kind in kinds))
    counted = _retired_so_far(world) - before
    if left or client.zscore("jobs", job_id) is not None or counted != 1:
        verdict.wrong.append(f"{left} keys are left, {counted} counted as retired; {job_id}")
    verdict.ends = ["retired"]
    return verdict


def _arm_before(world: World, key: str, member: str) -> None:
    """Arm shortly before a member of a sorted set falls due; its score is Redis' time in ms."""
    client = world.stack.redis.client

    def soon() -> bool:
        seconds, micros = client.time()
        due = client.zscore(key, member)
        return due is not None and due - (seconds * 1000 + micros / 1000) <= _SOON_MS

    world.until(soon, f"{member} falls due")
    world.arm()


def _batch_from_the_beginning(world: World, question: str) -> Verdict:
    """A batch of three lines; the commands count from its upload."""
    before = _retired_so_far(world)
    world.arm()
    return _judge_batch(world, question, _submit(world, question), before)


def _batch_from_its_answers(world: World, question: str) -> Verdict:
    """A batch of three lines; the commands count from when all are being called."""
    before = _retired_so_far(world)
    world.upstream.hold()
    batch_id = _submit(world, question)
    world.until(
        lambda: all(world.upstream.calls[line] for line in _questions(question)), "the calls"
    )
    world.arm()
    world.upstream.release()
    return _judge_batch(world, question, batch_id, before)


def _submit(world: World, question: str) -> str:
    lines = [
        {
            "custom_id": line,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "echo", "messages": [{"role": "user", "content": line}]},
        }
        for line in _questions(question)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    file = world.ask(
        "POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", text)}
    ).json()
    batch = {
        "input_file_id": file["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    batch_id: str = world.ask("POST", "/v1/batches", key=question, json=batch).json()["id"]
    return batch_id


def _judge_batch(world: World, question: str, batch_id: str, retired_before: int) -> Verdict:
    def look() -> JSON:
        found: JSON = world.ask("GET", f"/v1/batches/{batch_id}").json()
        return found

    world.until(lambda: look()["status"] in ("completed", "failed"), f"{batch_id} is over")
    world.until(lambda: _retired_so_far(world) - retired_before >= _LINES, "its records go")
    world.rest()
    batch, wrong, further = look(), [], []
    lines = _results(world, batch["output_file_id"])
    told = {line["custom_id"]: line for line in lines}
    if batch["status"] != "completed" or len(lines) != _LINES or set(told) != _questions(question):
        wrong.append(f"{batch['status']} with results for {[line['custom_id'] for line in lines]}")
    for line, result in told.items():
        attempts = [attempt["outcome"] for attempt in result["chatd"]["attempts"]]
        content = result["response"]["body"]["choices"][0]["message"]["content"]
        calls = world.upstream.calls[line]
        further += attempts[: max(0, calls - 1)]
        # Its worker lives: there is no reason for a second call.
        if content != f"echo: {line}" or (calls, len(attempts)) != (1, 1):
            wrong.append(f"{line}: {content!r} after {calls} calls, attempts {attempts}")
    counted = _retired_so_far(world) - retired_before
    if counted != _LINES:
        wrong.append(f"{counted} records counted as retired")
    return Verdict([batch["status"]], further, [*wrong, batch_id] if wrong else [])


def _results(world: World, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    text = world.ask("GET", f"/v1/files/{file_id}/content").text
    return [json.loads(line) for line in text.splitlines()]


def _questions(question: str) -> set[str]:
    return {f"{question}-line-{number}" for number in range(1, _LINES + 1)}


def _retired_so_far(world: World) -> int:
    return world.stack.store.counters().get("retired", 0)


def _body(question: str) -> JSON:
    return {"model": "echo", "messages": [{"role": "user", "content": question}]}


LIVES = (
    Life("worker", "interactive", _answered, quick=True),
    Life("worker", "batch", _answered_in_the_batch_lane, quick=True),
    Life("worker", "retry", _called_again),
    Life("worker", "cancel", _cancelled),
    Life("worker", "heartbeat", _held_over_a_heartbeat),
    Life("worker", "boot", _taken_over_at_boot),
    Life("api", "sync", _asked_with_a_key, quick=True),
    Life("api", "first", _asked_of_a_new_front_end),
    Life("api", "join", _joined),
    Life("api", "async", _submitted_watched_cancelled),
    Life("keeper", "release", _released),
    Life("keeper", "expire", _expired),
    Life("keeper", "retire", _retired),
    Life("keeper", "feed", _batch_from_the_beginning, jobs=_LINES),
    Life("keeper", "collect", _batch_from_its_answers, jobs=_LINES),
)
