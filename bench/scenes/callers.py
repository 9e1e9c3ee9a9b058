"""Callers at a steady pace who never ask twice: whatever goes wrong on the way is theirs to see.

Each keeps to one way of calling: a chat over connections that are kept, a chat over a connection of
its own, a job that is fetched later. The pace is held whatever becomes of the calls.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import urllib3

__all__ = ["Call", "Callers", "Way", "clients"]

#: Seconds after which a caller takes its call for lost.
_PATIENCE_S = 90.0
_ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})


class Way(StrEnum):
    """How one question is asked."""

    KEPT = "chat, kept connections"
    FRESH = "chat, a connection each"
    JOB = "job, fetched later"
    OPENAI = "completion with a key"


@dataclass(slots=True)
class Call:
    """One question and what came of it; times are monotonic seconds.

    ``said`` is ``answered``, ``wrong``, or what went wrong. ``handed_over``: the answer was fetched
    in a second call, since the front end was told to stop before it was there.
    """

    way: Way
    question: str
    sent_at: float
    ended_at: float | None = None
    said: str = "nothing"
    handed_over: bool = False


def clients(connections: int) -> urllib3.PoolManager:
    """Kept connections to one server, as most clients have them. Nothing is sent a second time."""
    return urllib3.PoolManager(num_pools=2, maxsize=connections, retries=False)


@dataclass
class Callers:
    """Ask at ``rate`` a second inside of the ``with`` block; ``calls`` has everything they asked.

    At its end they ask nothing more, and everybody waits for an answer or gives up. ``mix`` has the
    ways and how often each is taken; ``question`` makes the text of a number.
    """

    url: str
    rate: float
    mix: Mapping[Way, int]
    question: Callable[[int], str] = "question {}".format
    seed: int = 1
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._http = clients(200)
        self._chance = random.Random(self.seed)  # noqa: S311 - a load, no secret
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(200, "caller")
        self._pacing = threading.Thread(target=self._pace, name="pace", daemon=True)

    def __enter__(self) -> Self:
        self._pacing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pacing.join()
        self._pool.shutdown()
        self._http.clear()

    def _pace(self) -> None:
        ways, weights = list(self.mix), list(self.mix.values())
        began, number = time.monotonic(), 0
        while not self._over.wait(max(0.0, began + number / self.rate - time.monotonic())):
            (way,) = self._chance.choices(ways, weights)
            call = Call(way, self.question(number), time.monotonic())
            self.calls.append(call)
            self._pool.submit(self._ask, call)
            number += 1

    def _ask(self, call: Call) -> None:
        ask = {
            Way.KEPT: self._kept,
            Way.FRESH: self._fresh,
            Way.JOB: self._job,
            Way.OPENAI: self._openai,
        }
        try:
            content = ask[call.way](call)
        except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
            call.said = type(error).__name__
        except _Refused as error:
            call.said = str(error)
        else:
            call.said = "answered" if content == f"echo: {call.question}" else "wrong"
        call.ended_at = time.monotonic()

    def _kept(self, call: Call) -> str:
        status, headers, answer = self._send("POST", "/v1/chat", _chat(call.question))
        return self._content(call, status, headers, answer)

    def _fresh(self, call: Call) -> str:
        host, port = self.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=_PATIENCE_S)
        try:
            connection.request("POST", "/v1/chat", json.dumps(_chat(call.question)))
            reply = connection.getresponse()
            answer = json.loads(reply.read())
        finally:
            connection.close()
        return self._content(call, reply.status, dict(reply.getheaders()), answer)

    def _job(self, call: Call) -> str:
        status, _, answer = self._send("POST", "/v1/jobs", _chat(call.question))
        if status != 202:
            raise _Refused.of(status, answer)
        return self._fetched(f"/v1/jobs/{answer['id']}")

    def _openai(self, call: Call) -> str:
        """As OpenAI's client does with a key: 503 means that the same call may be sent again."""
        key = {"Idempotency-Key": call.question.replace(" ", "-")}
        while True:
            status, headers, answer = self._send(
                "POST", "/v1/chat/completions", _chat(call.question), key
            )
            if status == 200:
                content: str = answer["choices"][0]["message"]["content"]
                return content
            if answer["error"]["code"] != "draining" or "X-Should-Retry" in headers:
                raise _Refused.of(status, answer)
            call.handed_over = True
            time.sleep(float(headers["Retry-After"]))

    def _content(self, call: Call, status: int, headers: Mapping[str, str], answer: Any) -> str:
        if status == 202:
            call.handed_over = True
            time.sleep(float(headers["Retry-After"]))
            return self._fetched(headers["Location"])
        if status != 200:
            raise _Refused.of(status, answer)
        content: str = answer["content"]
        return content

    def _fetched(self, path: str) -> str:
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            status, _, record = self._send("GET", f"{path}?wait=20")
            if status != 200:
                raise _Refused.of(status, record)
            if record["state"] in _ENDED:
                response = record["response"]
                if response is None:
                    raise _Refused(record["state"])
                content: str = response["content"]
                return content
        raise _Refused("never ended")

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], Any]:
        reply = self._http.request(
            method,
            f"{self.url}{path}",
            body=None if body is None else json.dumps(body),
            headers=headers,
            timeout=_PATIENCE_S,
        )
        return reply.status, reply.headers, json.loads(reply.data)


class _Refused(Exception):
    """chatd answered something that is not an answer."""

    @classmethod
    def of(cls, status: int, answer: Any) -> _Refused:
        """What it said."""
        return cls(f"{status} {answer.get('error', {}).get('code', '')}".strip())


def _chat(question: str) -> dict[str, object]:
    return {"model": "echo", "messages": [{"role": "user", "content": question}]}
