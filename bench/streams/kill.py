"""kill -9 of the worker in mid-stream: what each client sees, when, and what the record keeps."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import openai

from bench.speed.sheet import Sheet
from bench.streams.follower import Follower
from bench.streams.reading import FORMS
from bench.streams.script import Script
from bench.streams.world import World, running
from tests.waiting import eventually

__all__ = ["kill"]

#: Pieces that each client has before the worker is killed.
_BEFORE = 20
_CODE = "outcome_unknown"


@dataclass(slots=True)
class Saw:
    """What a client saw: its text, and how its stream ended at which moment.

    ``ended`` is ``answer``, the code of an error event, or how else it broke off.
    """

    script: Script
    text: str = ""
    pieces: int = 0
    ended: str = ""
    at: float = 0.0
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What one client saw of one kill, ``seconds`` after it, and what the record of its job says.

    ``calls`` counts the upstream calls.
    """

    client: str
    anew: bool
    saw: Saw
    seconds: float
    record: dict[str, Any]
    calls: int

    @property
    def in_record(self) -> str:
        """The state, or the code of the error, with what is kept of the answer."""
        error = self.record["error"]
        if error is None:
            return str(self.record["state"])
        kept = (error.get("partial") or {}).get("content") or ""
        beside = "all of it" if kept == self.saw.text else f"{len(kept)} of {len(self.saw.text)}"
        return f"{error['code']}, billed {error['billed']}, text: {beside}"

    @property
    def right(self) -> bool:
        """Whether the client was told what the record says, and has a part of the right text."""
        if not self.saw.script.whole().startswith(self.saw.text):
            return False
        error = self.record["error"]
        if self.client == _REPEATED:
            return self.saw.ended == "answer" and error is None and self.calls == 2
        kept = ((error or {}).get("partial") or {}).get("content") or ""
        told = error is not None and self.saw.ended.endswith(_CODE) and error["code"] == _CODE
        return told and kept.startswith(self.saw.text) and self.calls == 1


def _raw(form: str, **fields: Any) -> Callable[[World, Saw], None]:
    def follow(world: World, saw: Saw) -> None:
        url, question = world.stack.url, saw.script.question
        with Follower.asking(url, FORMS[form], question, **fields) as follower:
            while not follower.over:
                seen = len(follower.reading.texts)
                follower.until(lambda reading: len(reading.texts) > seen)  # noqa: B023 - at once
                saw.pieces, saw.job_id = len(follower.reading.texts), follower.job_id
        reading, response = follower.reading, follower.response
        saw.at, saw.text = time.monotonic(), reading.text
        if reading.error is not None:
            saw.ended = str(reading.error["code"])
        elif response.over and not response.streams:
            refusal = follower.refusal()
            saw.job_id = refusal["job_id"]
            saw.ended = f"status {response.status}, {refusal['code']}"
        else:
            saw.ended = "answer" if reading.ended else "broke off"

    return follow


def _library(world: World, saw: Saw) -> None:
    with openai.OpenAI(base_url=f"{world.stack.url}/v1", api_key="none", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": saw.script.question}]
        try:
            raw = client.chat.completions.with_raw_response.create(
                model="echo", messages=messages, stream=True
            )
            saw.job_id = raw.headers["X-Chatd-Job-Id"]
            for chunk in raw.parse():
                text = chunk.choices[0].delta.content if chunk.choices else None
                saw.text += text or ""
                saw.pieces += bool(text)
            saw.ended = "answer"
        except openai.APIError as error:
            saw.ended = str(error.code)
        saw.at = time.monotonic()


_EARLY = "before its first piece"
_REPEATED = "the same in the batch lane"
_CLIENTS = {
    "chatd's format": _raw("chat"),
    "OpenAI's format": _raw("completion"),
    "openai.OpenAI": _library,
    _EARLY: _raw("chat"),
    _REPEATED: _raw("chat", lane="batch"),
}
#: Those that are in the middle when the worker is killed.
_STREAMING = [name for name in _CLIENTS if name not in (_EARLY, _REPEATED)]


def _killed(world: World, *, anew: bool) -> list[Told]:
    """All clients ask, the worker is killed, and perhaps started anew at once."""
    worker = world.stack.workers["ollama"]
    saws = {
        name: Saw(Script(name=secrets.token_hex(8), pieces=100, first_ms=_first_ms(name)))
        for name in _CLIENTS
    }
    with ThreadPoolExecutor(len(_CLIENTS)) as pool:
        asked = {name: pool.submit(follow, world, saws[name]) for name, follow in _CLIENTS.items()}
        eventually(
            lambda: all(saws[name].pieces >= _BEFORE for name in _STREAMING),
            what="every client is in the middle",
        )
        killed_at = time.monotonic()
        worker.kill()
        if anew:
            worker.start()
        else:
            # The one that is repeated waits for a worker, whenever it comes.
            eventually(
                lambda: all(one.done() for name, one in asked.items() if name != _REPEATED),
                within_s=120,
                what="everybody else is told",
            )
            worker.start()
        for one in asked.values():
            one.result()
    return [
        Told(
            name,
            anew,
            saw,
            saw.at - killed_at,
            world.stack.ended(saw.job_id),
            len(world.upstream.calls_of(saw.script.name)),
        )
        for name, saw in saws.items()
    ]


def _first_ms(client: str) -> float:
    return 0.0 if client in _STREAMING else 2000.0


def kill(*, times: int) -> int:
    """Kill a worker that is started anew at once, as a supervisor does, then one that is not."""
    sheet = Sheet(name="streams-kill")
    sheet.begin(f"kill -9 of the worker after {_BEFORE} pieces of 100")
    with running() as world:
        found = [told for _ in range(times) for told in _killed(world, anew=True)]
        found += _killed(world, anew=False)
        world.stack.balanced()
    _show(sheet, found)
    sheet.rule("each was told what the record says, and has the right text so far", _all(found))
    sheet.raw["told"] = [
        {**asdict(told), "saw": {**asdict(told.saw), "script": told.saw.script.name}}
        for told in found
    ]
    return sheet.end()


def _all(found: Sequence[Told]) -> bool:
    return all(told.right for told in found)


def _show(sheet: Sheet, found: Sequence[Told]) -> None:
    rows = []
    for anew in (True, False):
        for client in _CLIENTS:
            mine = [told for told in found if told.client == client and told.anew == anew]
            if not mine:
                continue
            seconds = sorted(told.seconds for told in mine)
            rows.append(
                (
                    client,
                    "anew at once" if anew else "gone",
                    len(mine),
                    _listed(told.saw.ended for told in mine),
                    f"{seconds[len(seconds) // 2]:.2f}",
                    f"{seconds[-1]:.2f}",
                    _listed(told.in_record for told in mine),
                    _listed(f"{told.calls}" for told in mine),
                )
            )
    head = ("client", "worker", "kills", "saw", "after s, median", "most", "record", "calls")
    sheet.table(head, rows)


def _listed(texts: Any) -> str:
    return "; ".join(dict.fromkeys(texts))
