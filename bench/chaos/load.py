"""The load: chats, jobs and a batch at a steady pace, and what their senders were told.

The pace is kept whatever becomes of the requests. Those that go with an Idempotency-Key are sent
again, with the same key, until they have an answer; the others never are.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import requests

from bench.chaos.batch import Batch
from bench.chaos.recovery import Recovery

__all__ = ["ACCEPTED", "ANSWERED", "SILENT", "WRONG", "Asked", "Kind", "Load"]

#: What a sender was told, where it is not the code of an error.
ANSWERED, WRONG, ACCEPTED, SILENT = "answered", "wrong", "accepted", "no answer"

#: Seconds after which a sender hangs up: later than chatd's own end of every wait.
_PATIENCE_S = 60.0
#: What asking for a job again cannot change: it is over, or there is no such job.
_FINAL = frozenset({"succeeded", "failed", "cancelled", "expired", "status 404", "status 410"})


class Kind(StrEnum):
    """What is sent, and whether it goes with an Idempotency-Key."""

    CHAT = "chat"
    CHAT_KEY = "chat, key"
    JOB = "job"
    JOB_KEY = "job, key"

    @property
    def keyed(self) -> bool:
        """Whether it is sent again until it has an answer."""
        return self in (Kind.CHAT_KEY, Kind.JOB_KEY)

    @property
    def waits(self) -> bool:
        """Whether its sender waits for the end of the job."""
        return self in (Kind.CHAT, Kind.CHAT_KEY)


#: How often each kind is sent: most callers wait.
_MIX = {Kind.CHAT: 30, Kind.CHAT_KEY: 30, Kind.JOB: 15, Kind.JOB_KEY: 25}


@dataclass(slots=True)
class Asked:
    """One request of the load and what came of it; times are monotonic seconds.

    ``said`` is the last thing its sender was told. ``final`` is the record at the end of the run,
    for those that were only accepted: its state, and its answer if there is one. ``url`` is where
    it goes if not to the front end of all others.
    """

    question: str
    kind: Kind
    sent_at: float
    tries: int = 0
    ended_at: float | None = None
    said: str = SILENT
    job_id: str | None = None
    final: tuple[str, str | None] | None = None
    url: str = ""


@dataclass
class Load:
    """Sends requests at ``rate`` a second from ``start`` to ``stop``.

    ``name`` begins every question, and has no spaces, since questions are keys as well. Everything
    that was sent is in ``asked``, every batch in ``batches``.
    """

    url: str
    name: str
    seed: int
    rate: float
    asked: list[Asked] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._http = requests.Session()
        self._http.trust_env = False
        adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=2000)
        self._http.mount("http://", adapter)
        self._chance = random.Random(f"load {self.seed}")  # noqa: S311 - seeded
        self._stopped = threading.Event()
        self._given_up = threading.Event()
        self._senders: list[threading.Thread] = []
        self._pace = threading.Thread(target=self._send_all, name="load")
        self.recovery = Recovery()

    def start(self) -> None:
        """Begin."""
        self._pace.start()

    def stop(self) -> None:
        """Send nothing new; what was sent goes on."""
        self._stopped.set()
        self._pace.join()

    def finish(self, within_s: float) -> int:
        """Wait until every sender has an answer; returns how many have none after that time."""
        until = time.monotonic() + within_s
        for sender in self._senders:
            sender.join(max(0.0, until - time.monotonic()))
        open_ = sum(sender.is_alive() for sender in self._senders)
        self._given_up.set()
        for sender in self._senders:
            sender.join(2 * _PATIENCE_S)
        return open_

    def close(self) -> None:
        """End everything, also in the middle of a run."""
        self._stopped.set()
        self._given_up.set()
        if self._pace.ident is not None:
            self._pace.join()
        self._http.close()

    def submit(self, lines: int) -> None:
        """Send a batch of so many lines, in the background."""
        name = f"{self.name}/batch-{len(self.batches) + 1}"
        batch = Batch(self.url, self._http, name, lines)
        self.batches.append(batch)
        self._spawn(lambda: batch.submit(self._given_up))

    def ask_at(self, url: str, count: int) -> None:
        """Beside the load, ask for some chats at another address, one after the other."""
        for number in range(1, count + 1):
            question = f"{self.name}/elsewhere-{len(self.asked)}-{number}"
            asked = Asked(question, Kind.CHAT, time.monotonic(), url=url)
            self.asked.append(asked)
            self._ask(asked)

    @property
    def over(self) -> bool:
        """Whether the end of every batch is known."""
        return all(batch.over for batch in self.batches)

    def collect(self, within_s: float, *, polls: bool = True) -> None:
        """Read the results of the batches, and ask for the end of all jobs that were accepted.

        The latter only if ``polls``: as long as their records are kept.
        """
        until = time.monotonic() + within_s
        with ThreadPoolExecutor(8) as pool:
            for batch in self.batches:
                pool.submit(batch.collect, until)
            accepted = [asked for asked in self.asked if polls and asked.said == ACCEPTED]
            # Raises what went wrong in a thread.
            list(pool.map(lambda asked: self._poll(asked, until), accepted))

    # -- one request

    def _send_all(self) -> None:
        began = time.monotonic()
        kinds, weights = list(_MIX), list(_MIX.values())
        number = 0
        while not self._stopped.wait(max(0.0, began + number / self.rate - time.monotonic())):
            (kind,) = self._chance.choices(kinds, weights)
            number += 1
            asked = Asked(f"{self.name}/{kind.name.lower()}-{number}", kind, time.monotonic())
            self.asked.append(asked)
            self.recovery.offered(kind.waits, asked.sent_at)
            self._spawn(lambda asked=asked: self._ask(asked))  # type: ignore[misc]

    def _spawn(self, send: Callable[[], None]) -> None:
        self._senders = [sender for sender in self._senders if sender.is_alive()]
        sender = threading.Thread(target=send, daemon=True)
        self._senders.append(sender)
        sender.start()

    def _ask(self, asked: Asked) -> None:
        pause_s = 0.1
        while True:
            asked.tries += 1
            again = self._try(asked) and asked.kind.keyed
            if not again or self._given_up.wait(pause_s):
                break
            pause_s = min(1.0, pause_s * 2)
        asked.ended_at = time.monotonic()
        if asked.said in (ANSWERED, ACCEPTED):
            self.recovery.answered(asked.kind.waits, asked.ended_at)

    def _try(self, asked: Asked) -> bool:
        """Send it once; whether its sender would send it again."""
        path = "/v1/chat" if asked.kind.waits else "/v1/jobs"
        body: dict[str, Any] = {
            "model": "echo",
            "messages": [{"role": "user", "content": asked.question}],
            "metadata": {"q": asked.question},
        }
        headers = {"Idempotency-Key": asked.question} if asked.kind.keyed else {}
        try:
            reply = self._http.post(
                (asked.url or self.url) + path, json=body, headers=headers, timeout=_PATIENCE_S
            )
        except requests.RequestException:
            asked.said = SILENT
            return True
        value = _json(reply)
        asked.job_id = value.get("id")
        if reply.status_code == 200:
            asked.said = ANSWERED if value["content"] == f"echo: {asked.question}" else WRONG
        elif reply.status_code == 202:
            asked.said = ACCEPTED
        else:
            error = value.get("error", {})
            asked.said = error.get("code", f"status {reply.status_code}")
            asked.job_id = error.get("job_id")
        return reply.status_code == 503

    def _poll(self, asked: Asked, until: float) -> None:
        while True:
            try:
                reply = self._http.get(f"{self.url}/v1/jobs/{asked.job_id}", timeout=_PATIENCE_S)
            except requests.RequestException:
                state, content = SILENT, None
            else:
                value = _json(reply)
                state = value.get("state", f"status {reply.status_code}")
                content = (value.get("response") or {}).get("content")
            asked.final = (state, content)
            if state in _FINAL or time.monotonic() >= until:
                return
            time.sleep(0.2)


def _json(reply: requests.Response) -> dict[str, Any]:
    """The body; empty when it is none of chatd's."""
    try:
        value = reply.json()
    except requests.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
