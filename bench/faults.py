"""What chatd does when something breaks: one scenario per claim, on real processes.

    python -m bench.faults [SCENARIO …] [--seconds N]

Scenarios: backlog, worker-kill, redis-stop, redis-pause, lost-wake-ups, healthy-backlog,
close-times. Without a name: all but healthy-backlog, which takes five minutes. Each prints what it
counted and the rule it checked; the exit code is 1 when a rule was broken.
"""

from __future__ import annotations

import json
import signal
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import requests

from bench.upstream import Upstream
from chat.jobs import NewJob, new_job_id
from chat.types import ChatRequest, Lane, Message, Role
from tests.stack import Stack
from tests.upstream import CERTIFICATE
from tests.waiting import eventually

_broken: list[str] = []


def say(name: str, value: object) -> None:
    """One counted fact."""
    print(f"  {name:<58} {value}", flush=True)


def rule(name: str, holds: bool) -> None:  # noqa: FBT001 - a rule holds or it does not
    """One claim, checked."""
    print(f"  {'holds ' if holds else 'BROKEN'} {name}", flush=True)
    if not holds:
        _broken.append(name)


@contextmanager
def running(
    *,
    concurrency: int,
    settings: str = "",
    delay_s: float = 0.0,
) -> Iterator[tuple[Stack, Upstream]]:
    """chatd with local Ollama only, and the scripted upstream behind it."""
    with tempfile.TemporaryDirectory() as folder:
        upstream = Upstream(delay_s=delay_s).start()
        stack = Stack(
            Path(folder), {"ollama": upstream.url}, concurrency=concurrency, settings=settings
        )
        try:
            yield stack.start(), upstream
        finally:
            upstream.release()
            stack.stop()
            upstream.stop()


def admit(
    stack: Stack, count: int, *, lane: Lane = Lane.BATCH, tag: str = "q", timeout_s: float = 3600
) -> list[str]:
    """Jobs put into the queue the way the front end does it, without HTTP in between."""
    ids = []
    for number in range(count):
        request = ChatRequest("echo", (Message(Role.USER, f"{tag} {number}"),))
        job = NewJob(new_job_id(), request, "ollama", "echo", lane, int(timeout_s * 1000))
        ids.append(stack.store.admit(job).job_id)
    return ids


def call_many(stack: Stack, count: int, *, tag: str = "call") -> list[Future[requests.Response]]:
    """Synchronous chats, all at once."""
    pool = ThreadPoolExecutor(count)
    futures = [pool.submit(stack.chat, f"{tag} {n}", timeout_s=120) for n in range(count)]
    pool.shutdown(wait=False)
    return futures


def endings(stack: Stack, ids: list[str]) -> Counter[str]:
    """How jobs ended: the state, or the error's code."""
    found: Counter[str] = Counter()
    for job_id in ids:
        record = stack.store.record(job_id)
        found[record.error["code"] if record.error else record.state.value] += 1
    return found


def answers(futures: list[Future[requests.Response]], tag: str) -> Counter[str]:
    """How calls ended; an answer to another question is "wrong"."""
    found: Counter[str] = Counter()
    for number, future in enumerate(futures):
        reply = future.result(timeout=300)
        body = reply.json()
        if reply.status_code == 200:
            right = body["content"] == f"echo: {tag} {number}"
            found["answered" if right else "wrong"] += 1
        else:
            found[body["error"]["code"]] += 1
    return found


def ledger(stack: Stack) -> Counter[str]:
    """Every attempt of every record, by outcome and bill."""
    found: Counter[str] = Counter()
    for key in stack.redis.client.scan_iter("job:*", count=1000):
        for attempt in stack.store.record(key.removeprefix("job:")).attempts:
            found[f"{attempt.outcome}, billed {attempt.billed}"] += 1
    return found


def books(stack: Stack) -> None:
    """accepted = the sum over the states + retired."""
    try:
        acct = stack.balanced()
    except AssertionError as error:
        rule(f"the counters add up: {error}", holds=False)
    else:
        say("counters", json.dumps(acct))
        rule("the counters add up", holds=True)


def over(stack: Stack) -> bool:
    """Whether no job is alive."""
    acct = stack.store.counters()
    return all(acct.get(state, 0) == 0 for state in ("queued", "waiting", "calling"))


# -- scenarios ------------------------------------------------------------------------------------


def backlog(_: float) -> None:
    """50,000 queued jobs, 8 threads: what left the list has started."""
    with running(concurrency=8, delay_s=0.5) as (stack, _upstream):
        client = stack.redis.client
        stack.workers["ollama"].stop()
        began = time.perf_counter()
        admit(stack, 50_000)
        say("50,000 admitted one by one, seconds", f"{time.perf_counter() - began:.1f}")
        stack.workers["ollama"].start()
        eventually(lambda: client.zcard("leases:ollama") == 8)

        def sample(seconds: float) -> Counter[int]:
            found: Counter[int] = Counter()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                pipeline = client.pipeline(transaction=True)
                pipeline.llen("chat.ollama.batch")
                pipeline.zcard("queued:chat.ollama.batch")
                left, queued = pipeline.execute()
                found[queued - left] += 1
                time.sleep(0.002)
            return found

        for name in ("before", "after"):
            found = sample(10)
            say(f"popped and not started, {name} a reconnect: samples", dict(found))
            zero = found[0] / found.total()
            rule(
                f"{name}: 0 but for the moment between pop and start ({zero:.1%} of samples)",
                zero > 0.9 and max(found) <= 8,
            )
            if name == "before":
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        books(stack)


def worker_kill(_: float) -> None:
    """kill -9 of the worker while 50 calls run and 200 jobs wait."""
    with running(concurrency=50) as (stack, upstream):
        upstream.hold()
        calls = call_many(stack, 25)
        batch = admit(stack, 25)
        eventually(lambda: upstream.in_flight == 50)
        waiting_calls = call_many(stack, 100, tag="later")
        waiting = admit(stack, 100, tag="batch later")
        eventually(lambda: stack.store.counters()["queued"] == 200)
        stack.workers["ollama"].kill()
        upstream.release()
        began = time.perf_counter()
        stack.workers["ollama"].start()
        eventually(lambda: over(stack), within_s=120)
        say(
            "seconds from the restart until every job had ended",
            f"{time.perf_counter() - began:.1f}",
        )
        ran, later = answers(calls, "call"), answers(waiting_calls, "later")
        say("25 interactive calls that ran", dict(ran))
        say("25 batch jobs that ran", dict(endings(stack, batch)))
        say("100 interactive calls that waited", dict(later))
        say("100 batch jobs that waited", dict(endings(stack, waiting)))
        attempts = ledger(stack)
        say("the ledger", dict(attempts))
        extra = upstream.calls.total() - len(upstream.calls)
        say("upstream calls, questions", f"{upstream.calls.total()}, {len(upstream.calls)}")
        rule(
            "every interactive call that ran ended as outcome_unknown",
            ran == {"outcome_unknown": 25},
        )
        rule(
            "every waiting job was answered",
            later == {"answered": 100} and endings(stack, waiting) == {"succeeded": 100},
        )
        rule(
            "batch jobs that ran were repeated and answered",
            endings(stack, batch) == {"succeeded": 25},
        )
        rule(
            f"each of the {extra} upstream calls beyond one per job is in the ledger as lost",
            attempts["lost, billed maybe"] - 25 == extra == 25,
        )
        rule("attempts in the ledger = upstream calls", attempts.total() == upstream.calls.total())
        books(stack)


def redis_stop(_: float) -> None:
    """Redis stopped for 5 s and started again, with 100 calls in flight."""
    with running(concurrency=100) as (stack, upstream):
        upstream.hold()
        calls = call_many(stack, 100)
        eventually(lambda: upstream.in_flight == 100)
        pid = stack.workers["ollama"].pid
        stack.redis.child.stop()
        began = time.perf_counter()
        time.sleep(2)
        refused = stack.chat("during")
        upstream.release()
        time.sleep(max(0.0, 5 - (time.perf_counter() - began)))
        stack.redis.start()
        restarted = time.perf_counter()
        found = answers(calls, "call")
        say("100 calls in flight", dict(found))
        say("seconds from the restart to the last answer", f"{time.perf_counter() - restarted:.1f}")
        say(
            "a call during the outage",
            f"{refused.status_code} {refused.json()['error']['code']}, "
            f"Retry-After {refused.headers.get('Retry-After')}",
        )
        eventually(stack.ready, within_s=60)
        again = stack.chat("after")
        say("a call afterwards", again.status_code)
        rule("each ended in its answer", found == {"answered": 100})
        rule("one upstream call each", all(n == 1 for n in upstream.calls.values()))
        rule(
            "refused cleanly during the outage",
            refused.status_code == 503 and "Retry-After" in refused.headers,
        )
        rule(
            "the worker process lived on",
            stack.workers["ollama"].alive
            and stack.workers["ollama"].pid == pid
            and again.status_code == 200,
        )
        books(stack)


def redis_pause(_: float) -> None:
    """Redis frozen for 40 s, longer than a lease, with 50 calls in flight."""
    with running(concurrency=50) as (stack, upstream):
        upstream.hold()
        calls = call_many(stack, 50)
        eventually(lambda: upstream.in_flight == 50)
        stack.redis.pause()
        time.sleep(40)
        stack.redis.resume()
        # The keeper gets every chance to do the wrong thing before the answers come.
        time.sleep(8)
        reclaimed = stack.store.counters().get("reclaimed", 0)
        upstream.release()
        found = answers(calls, "call")
        say("50 calls in flight", dict(found))
        say("reclaimed", reclaimed)
        say("upstream calls", upstream.calls.total())
        rule("none was reclaimed", reclaimed == stack.store.counters().get("reclaimed", 0) == 0)
        rule(
            "50 upstream calls, 50 answers",
            upstream.calls.total() == 50 and found == {"answered": 50},
        )
        books(stack)


def lost_wake_ups(_: float) -> None:
    """30 % of 1,000 wake-ups deleted by hand."""
    with running(concurrency=8, delay_s=0.1) as (stack, upstream):
        client = stack.redis.client
        stack.workers["ollama"].stop()
        ids = admit(stack, 1000)
        messages = [str(m) for m in client.lrange("chat.ollama.batch", 0, -1)]
        gone = messages[::10] + messages[1::10] + messages[2::10]
        pipeline = client.pipeline()
        for message in gone:
            pipeline.lrem("chat.ollama.batch", 1, message)
        pipeline.execute()
        say("wake-ups deleted", len(gone))
        stack.workers["ollama"].start()
        began = time.perf_counter()
        eventually(lambda: over(stack), within_s=180)
        say("seconds until every job had ended", f"{time.perf_counter() - began:.1f}")
        sent = stack.store.counters().get("republished", 0)
        lost = {json.loads(message)["headers"]["id"] for message in gone}
        audit: Any = client.xrange("audit")
        again = {entry["job"] for _, entry in audit if entry["event"] == "republished"}
        say("sent again", sent)
        say("ended", dict(endings(stack, ids)))
        rule("exactly the deleted ones were sent again", sent == len(gone) and again == lost)
        rule(
            "every job was answered by one call",
            endings(stack, ids) == {"succeeded": 1000}
            and all(n == 1 for n in upstream.calls.values()),
        )
        books(stack)


def healthy_backlog(seconds: float) -> None:
    """A backlog of 50,000 that is being worked off: no wake-up is sent again."""
    with running(concurrency=8, delay_s=0.1) as (stack, _upstream):
        admit(stack, 50_000)
        until = time.monotonic() + seconds
        low = 50_000
        while time.monotonic() < until:
            time.sleep(5)
            low = stack.redis.client.llen("chat.ollama.batch")
        say(f"jobs still queued after {seconds:.0f} s", low)
        say("started meanwhile", stack.store.counters().get("succeeded", 0))
        sent = stack.store.counters().get("republished", 0)
        say("sent again", sent)
        rule("none was sent again", sent == 0 and low > 0)
        books(stack)


def close_times(_: float) -> None:
    """How soon the upstream sees its connection closed after a cancel, and after a deadline."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
    for tls in (None, context):
        for half_body in (False, True):
            upstream = Upstream(tls=tls, half_body=half_body).start()
            with tempfile.TemporaryDirectory() as folder:
                environ = {"REQUESTS_CA_BUNDLE": str(CERTIFICATE)} if tls else {}
                stack = Stack(
                    Path(folder), {"ollama": upstream.url}, concurrency=21, environ=environ
                ).start()
                try:
                    _close_times(
                        stack,
                        upstream,
                        f"{'https' if tls else 'http'}, "
                        f"{'in mid-body' if half_body else 'headers pending'}",
                    )
                finally:
                    upstream.release()
                    stack.stop()
                    upstream.stop()


def _close_times(stack: Stack, upstream: Upstream, name: str) -> None:
    upstream.hold()
    cancelled = [stack.submit(f"cancel {n}") for n in range(20)]
    eventually(lambda: upstream.in_flight == 20)
    asked = {}
    for number, job_id in enumerate(cancelled):
        asked[f"cancel {number}"] = time.monotonic()
        stack.store.cancel(job_id)
        eventually(partial(upstream.dropped_at.__contains__, f"cancel {number}"), within_s=20)
    times = sorted(1000 * (upstream.dropped_at[q] - at) for q, at in asked.items())
    say(f"{name}: cancel -> closed, ms, median / worst of 20", f"{times[10]:.0f} / {times[-1]:.0f}")
    due, given = [], []
    for number in range(20):
        given.append(time.monotonic() + 2)
        due.append(stack.submit(f"deadline {number}", timeout_s=2))
    records = [stack.ended(job_id) for job_id in due]
    eventually(lambda: len(upstream.dropped_at) == 40)
    late = sorted(1000 * (upstream.dropped_at[f"deadline {n}"] - given[n]) for n in range(20))
    say(
        f"{name}: deadline -> closed, ms late, median / worst of 20",
        f"{late[10]:.0f} / {late[-1]:.0f}",
    )
    rule(
        f"{name}: cancelled and deadline_exceeded, billed maybe",
        {stack.ended(j)["state"] for j in cancelled} == {"cancelled"}
        and {r["error"]["code"] for r in records} == {"deadline_exceeded"}
        and {r["attempts"][0]["billed"] for r in records} == {"maybe"},
    )


SCENARIOS: dict[str, Callable[[float], None]] = {
    "backlog": backlog,
    "worker-kill": worker_kill,
    "redis-stop": redis_stop,
    "redis-pause": redis_pause,
    "lost-wake-ups": lost_wake_ups,
    "close-times": close_times,
    "healthy-backlog": healthy_backlog,
}


def main(arguments: list[str]) -> int:
    """Run the scenarios named; 1 when a rule was broken."""
    seconds = 300.0
    if "--seconds" in arguments:
        place = arguments.index("--seconds")
        seconds = float(arguments[place + 1])
        del arguments[place : place + 2]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for name in arguments or [name for name in SCENARIOS if name != "healthy-backlog"]:
        scenario = SCENARIOS[name]
        print(f"{name}: {scenario.__doc__}", flush=True)
        scenario(seconds)
    print(f"{len(_broken)} rules broken" if _broken else "every rule holds")
    return 1 if _broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
