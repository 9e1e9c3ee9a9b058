"""A running chatd in which one process reaches Redis through the proxy that strikes."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import requests

from bench.processes import kill_family
from bench.redis_proxy import Place, RedisProxy, Strike
from bench.upstream import Upstream
from chat.audit import Auditor
from chat.jobs import NewJob, new_job_id, queue_name
from chat.store import JobStore
from chat.types import ChatRequest, Lane, Message, Role
from tests.servers import Child, python
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["PROVIDER", "RETRIED", "Action", "World", "running"]

PROVIDER = "ollama"
#: Questions that begin with it are refused with 503 at their first call.
RETRIED = "again"
_PERMITS = 8
_LOCK = "chatd:keeper"
#: What the keeper only reads in its rounds, dozens of times a second. Struck before one of them, it
#: leaves behind what it leaves when it is struck after the write that came before.
_READS = frozenset(
    {"EXEC", "EXISTS", "GET", "HGET", "HGETALL", "INFO"}
    | {"LLEN", "MGET", "MULTI", "PING", "ZRANGE"}
)
#: Seconds a job may be queued without a wake-up in the list before it counts as lost here.
_LOST_S = 0.5
#: A process that has sent nothing for so many seconds is not about to send something again. One
#: that is never quiet has done so after these, since it tries again within half a second.
_QUIET_S = 0.3
_SURELY_S = 1.0
#: How long an audit waits before it looks at a suspect again. Nothing moves meanwhile.
_AGAIN_S = 0.2
_COMMANDS = {
    "worker": ("worker", PROVIDER, "--instance", "1"),
    "api": ("api",),
    "keeper": ("keeper",),
}


class Action(StrEnum):
    """What happens at the n-th command."""

    KILL = "kill"
    CUT = "cut"


class World:
    """All of chatd, the process under test, and the strike that its next life will meet.

    ``reached`` is whether the n-th command of the last life was sent. ``mended`` counts wake-ups
    that were sent again, ``deaths`` the times the process ended although nobody had killed it.
    """

    def __init__(self, folder: Path, process: str) -> None:
        self.process = process
        self.upstream = Upstream(reply=self._reply).start()
        self.stack = Stack(folder, {PROVIDER: self.upstream.url}, concurrency=_PERMITS)
        self.proxy = RedisProxy(self.stack.redis.port).start()
        self.child = self._through_the_proxy(folder)
        self.mended = self.deaths = 0
        self.reached = self._armed = False
        self._strike: tuple[int, Place, Action] = (0, Place.BEFORE, Action.CUT)
        self._killed = False
        self._dying = threading.Lock()
        self._stuck_since: dict[str, float] = {}

    def _through_the_proxy(self, folder: Path) -> Child:
        stack = self.stack
        text = stack.config_file.read_text("utf-8")
        file = folder / "proxied.toml"
        file.write_text(text.replace(stack.redis.url, self.proxy.url), "utf-8")
        child = Child(
            python("-m", "cli", *_COMMANDS[self.process]),
            folder / f"{self.process}-proxied.log",
            {**stack.environ, "LAKEHOUSE_CONFIG": str(file)},
        )
        if self.process == "worker":
            stack.workers[PROVIDER] = child
        else:
            setattr(stack, self.process, child)
        return child

    def _reply(self, _path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        question = body["messages"][-1]["content"]
        if question.startswith(RETRIED) and self.upstream.calls[question] == 1:
            return 503, {"error": "the model is loading"}
        return None

    # -- the strike

    def prepare(self, n: int, place: Place, action: Action) -> None:
        """What the next ``arm`` arms the proxy with; ``n`` = 0 leaves the life undisturbed."""
        self._strike = (n, place, action)
        self._killed = self.reached = False
        self.proxy.acted.clear()

    def arm(self) -> None:
        """From here on the commands count."""
        n, place, action = self._strike
        then = self.kill if action is Action.KILL else lambda: None
        uncounted = _READS if self.process == "keeper" else frozenset[str]()
        self.proxy.arm(Strike(n, place, then, uncounted))
        self._armed = True

    def rest(self) -> None:
        """Strike no more, and let the process come to an end with all that belongs to this life.

        A job may be over before the strike, and a script that was struck is sent again after it.
        """
        if self._armed:
            self._armed, self.reached = False, self.proxy.disarm()
        self.upstream.release()
        if self.struck and not self.kills:
            began = time.monotonic()
            self.until(
                lambda: self.proxy.quiet_s > _QUIET_S or time.monotonic() - began > _SURELY_S,
                "what was struck is sent again",
            )
        self.until(self.idle, f"the {self.process} is idle")

    def kill(self) -> None:
        """kill -9, the processes of the front end included; returns when it is dead."""
        with self._dying:
            self._killed = True
            kill_family(self.child.pid)
            self.child.kill()

    @property
    def struck(self) -> bool:
        """Whether the n-th command has come and the proxy has acted."""
        return self.proxy.acted.is_set()

    @property
    def kills(self) -> bool:
        """Whether the strike of this life is a kill."""
        return self._strike[2] is Action.KILL

    # -- time goes by

    def tend(self) -> None:
        """What a supervisor and the keeper would do, as soon as it has to be done.

        A dead process is started again. Its lock of the keeper is taken away, which would last five
        seconds; a wake-up that a worker took to its grave is sent again by the keeper's own script,
        which the keeper would do after thirty.
        """
        with self._dying:
            if not self.child.alive:
                if not self._killed:
                    self.deaths += 1
                if self.process == "keeper":
                    self.stack.redis.client.delete(_LOCK)
                self._killed = False
                self.child.start()
        if self.process == "worker":
            for lane in Lane:
                self._mend(queue_name(PROVIDER, lane))

    def _mend(self, queue: str) -> None:
        store = self.stack.store
        seq, _, empty = store.marks(queue)
        if not empty or not self.stack.redis.client.zcard(f"queued:{queue}"):
            self._stuck_since.pop(queue, None)
            return
        since = self._stuck_since.setdefault(queue, time.monotonic())
        if time.monotonic() - since >= _LOST_S:
            self.mended += store.republish(queue, seq, only_if_empty=True)
            del self._stuck_since[queue]

    def until(self, condition: Callable[[], object], what: str, within_s: float = 60.0) -> None:
        """Tend until that holds. Raises ``AssertionError`` when it does not come."""

        def look() -> bool:
            self.tend()
            return bool(condition())

        eventually(look, within_s=within_s, what=what)

    def idle(self) -> bool:
        """Whether the process is up and has nothing to do."""
        if not self.child.alive:
            return False
        if self.process == "api":
            return self.stack.ready()
        if self.process == "keeper":
            return bool(self.stack.redis.client.exists(_LOCK))
        # Both queues stand in the pop that waits, and the channel for cancels is open.
        queues = {queue_name(PROVIDER, lane).encode() for lane in Lane}
        pops = [words for words in self.proxy.in_flight() if words[0] in {b"BRPOP", b"BLMPOP"}]
        return self.proxy.subscribers() > 0 and any(queues <= set(words) for words in pops)

    # -- what lives are made of

    def admit(
        self,
        question: str,
        lane: Lane,
        *,
        provider: str = PROVIDER,
        timeout_s: float = 120,
        retention_s: int | None = None,
    ) -> str:
        """Put a job into the queue past the front end and the proxy; its id."""
        store = self.stack.store
        if retention_s is not None:
            store = JobStore(store.redis, replace(self.stack.config, retention_s=retention_s))
        request = ChatRequest("echo", (Message(Role.USER, question),))
        job = NewJob(new_job_id(), request, provider, "echo", lane, int(timeout_s * 1000))
        return store.admit(job).job_id

    def over(self, job_id: str) -> bool:
        """Whether the job has ended."""
        state = self.stack.store.states([job_id])[0]
        return state is not None and state.terminal

    def until_over(self, job_id: str) -> None:
        """Tend until the job has ended."""
        self.until(lambda: self.over(job_id), f"job {job_id} ends")

    def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        **request: Any,
    ) -> requests.Response:
        """An HTTP request, sent again after a broken connection or a 503 until it is answered."""
        sent = {**(headers or {}), **({"Idempotency-Key": key} if key else {})}
        answers: list[requests.Response] = []

        def ask() -> bool:
            try:
                reply = self.stack.http.request(
                    method, self.stack.url + path, headers=sent, timeout=30, **request
                )
            except requests.RequestException:
                return False
            if reply.status_code != 503:
                answers.append(reply)
            return bool(answers)

        self.until(ask, f"an answer to {method} {path}")
        return answers[0]

    # -- the books

    def unsettled(self) -> str:
        """What is still held or queued though no job is alive; empty when nothing is."""
        client = self.stack.redis.client
        pipeline = client.pipeline(transaction=True)
        pipeline.zcard(f"leases:{PROVIDER}")
        pipeline.hgetall(f"in_use:{PROVIDER}")
        for lane in Lane:
            pipeline.llen(queue_name(PROVIDER, lane))
            pipeline.zcard(f"queued:{queue_name(PROVIDER, lane)}")
        leases, in_use, *queues = pipeline.execute()
        permits = {name: count for name, count in in_use.items() if int(count)}
        if leases or permits or any(queues):
            return f"leases {leases}, permits in use {permits}, lists and queues {queues}"
        return ""

    def books(self) -> list[str]:
        """What is wrong in the books while no job is alive: nothing, as a rule."""
        faults = []
        try:
            self.until(lambda: not self.unsettled(), "nothing is held", within_s=10)
        except AssertionError:
            faults.append(f"still held: {self.unsettled()}")
        try:
            acct = self.stack.balanced()
        except AssertionError as error:
            faults.append(f"the counters do not add up: {error}")
        else:
            alive = {name: acct.get(name, 0) for name in ("queued", "waiting", "calling")}
            faults += [f"jobs still alive: {json.dumps(alive)}"] if any(alive.values()) else []
        auditor = Auditor(
            self.stack.store.redis,
            self.stack.config,
            sleep=lambda seconds: time.sleep(min(seconds, _AGAIN_S)),
        )
        report = auditor.audit()
        faults += [f"audit: {breach}" for breach in report.breaches]
        return faults

    def ends_told(self, job_id: str) -> Counter[str]:
        """How often the audit stream tells of each end of a job."""
        lines: Any = self.stack.redis.client.xrevrange("audit", count=500)
        ends = ("succeeded", "failed", "cancelled", "expired")
        return Counter(
            line["event"] for _, line in lines if line["job"] == job_id and line["event"] in ends
        )

    def stop(self) -> None:
        """Stop everything by its process id."""
        # Calls that are held would keep the worker from stopping.
        self.upstream.release()
        self.stack.stop()
        self.proxy.stop()
        self.upstream.stop()


@contextmanager
def running(process: str) -> Iterator[World]:
    """A world whose ``process`` is worker, api or keeper; stopped at the end, Ctrl-C included."""
    with tempfile.TemporaryDirectory(prefix="chatd-cuts-") as folder:
        world = World(Path(folder), process)
        try:
            world.stack.start()
            eventually(world.idle, within_s=60, what=f"the {process} is idle")
            yield world
        finally:
            world.stop()
