"""A load generator that counts every request and checks every answer against its question.

One asyncio loop, one keep-alive connection per client. The clock of a request runs from the moment
it is sent; none is left out because it began before or ended after some window.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

__all__ = ["Result", "run"]


@dataclass
class Result:
    """What came of ``sent`` requests: ``right`` answers, ``wrong`` ones, and errors by status."""

    sent: int = 0
    right: int = 0
    wrong: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Requests that got no answer of any kind."""
        return self.sent - self.right - self.wrong - sum(self.errors.values())

    @property
    def per_second(self) -> float:
        """Right answers per second of the whole run."""
        return self.right / self.seconds if self.seconds else 0.0

    def percentile_ms(self, share: float) -> float:
        """The latency that ``share`` of all requests did not exceed."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def _client(
    url: str, path: str, model: str, questions: asyncio.Queue[str], result: Result
) -> None:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=16 << 20)
    ollama = path == "/api/chat"
    while True:
        try:
            question = questions.get_nowait()
        except asyncio.QueueEmpty:
            break
        body = json.dumps(
            {
                "model": model,
                "messages": [{"role": "user", "content": question}],
                **({"stream": False} if ollama else {}),
            }
        ).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        began = time.perf_counter()
        result.sent += 1
        writer.write(head.encode() + body)
        answer_head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(answer_head.split(" ", 2)[1])
        lines = answer_head.lower().split("\r\n")
        length = next(int(h.split(":")[1]) for h in lines if h.startswith("content-length:"))
        answer = json.loads(await reader.readexactly(length))
        result.latencies_ms.append((time.perf_counter() - began) * 1000)
        if status != 200:
            code = str(answer.get("error", {}).get("code", status))
            result.errors[code] = result.errors.get(code, 0) + 1
        elif (answer["message"] if ollama else answer)["content"] == f"echo: {question}":
            result.right += 1
        else:
            result.wrong += 1
    writer.close()


async def _all(url: str, path: str, model: str, count: int, clients: int, tag: str) -> Result:
    questions: asyncio.Queue[str] = asyncio.Queue()
    for number in range(count):
        questions.put_nowait(f"{tag} {number}")
    result = Result()
    began = time.perf_counter()
    await asyncio.gather(*(_client(url, path, model, questions, result) for _ in range(clients)))
    result.seconds = time.perf_counter() - began
    return result


def run(
    url: str,
    *,
    count: int,
    clients: int,
    path: str = "/v1/chat",
    model: str = "echo",
    tag: str = "q",
) -> Result:
    """Send ``count`` chats over ``clients`` connections and wait for every one of them."""
    return asyncio.run(_all(url, path, model, count, clients, tag))
