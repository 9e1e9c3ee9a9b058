"""The systems that the tables compare: how each is started, asked, and told apart in /proc."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from bench.speed import proxies
from bench.speed.target import Target, answers
from cli.redis_server import free_port
from tests.servers import Child, RedisProcess, python
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["SYSTEMS", "System"]

#: Calls at the same time that chatd and the textbook's worker may make.
_PERMITS = 512


@dataclass(frozen=True, slots=True)
class System:
    """One of the things to measure.

    ``running`` starts it with its files in a folder, before the upstream of that URL. ``missing``
    says what is not there to start it, "" if all is.
    """

    title: str
    version: Callable[[], str]
    running: Callable[[Path, str], AbstractContextManager[Target]]
    missing: Callable[[], str] = field(default=lambda: "")


@contextmanager
def _direct(_: Path, upstream_url: str) -> Iterator[Target]:
    yield Target(upstream_url, "ollama", {})


@contextmanager
def _chatd(folder: Path, upstream_url: str) -> Iterator[Target]:
    """All of chatd as it comes: record, budgets, ledger, log at INFO, AOF synced each second."""
    stack = Stack(folder, {"ollama": upstream_url}, concurrency=_PERMITS)
    try:
        stack.start()
        parts = {
            "front end": stack.api.pid,
            "worker": stack.workers["ollama"].pid,
            "Redis": stack.redis.child.pid,
            "keeper": stack.keeper.pid,
        }
        yield Target(stack.url, "chat", parts)
    finally:
        stack.stop()


@contextmanager
def _textbook(folder: Path, upstream_url: str) -> Iterator[Target]:
    folder.mkdir(parents=True, exist_ok=True)
    redis = RedisProcess(folder / "redis").start()
    environ = {"TEXTBOOK_REDIS": redis.url, "TEXTBOOK_OLLAMA": upstream_url}
    address = f"127.0.0.1:{free_port()}"
    module = "bench.speed.textbook"
    served = ("-k", "gevent", "--worker-connections", "4000", "--keep-alive", "75", "-b", address)
    pool = ("-P", "gevent", "-c", str(_PERMITS), "--loglevel", "INFO")
    worker = Child(
        python("-m", "celery", "-A", module, "worker", *pool), folder / "worker.log", environ
    )
    front = Child(python("-m", "gunicorn", *served, f"{module}:web"), folder / "front.log", environ)
    try:
        worker.start()
        front.start()
        url = f"http://{address}"
        eventually(lambda: answers(f"{url}/v1/chat"), within_s=60, what="the textbook answers")
        yield Target(
            url, "chat", {"front end": front.pid, "worker": worker.pid, "Redis": redis.child.pid}
        )
    finally:
        front.stop(60)
        worker.stop(60)
        redis.stop()


def _chatd_version() -> str:
    return f"{version('chatd')}, Celery {version('celery')}"


def _textbook_version() -> str:
    return f"Flask {version('flask')}, gunicorn {version('gunicorn')}, Celery {version('celery')}"


#: All of them, in the order of the first pass.
SYSTEMS = {
    "direct": System("the upstream itself", lambda: "", _direct),
    "chatd": System("chatd", _chatd_version, _chatd),
    "textbook": System("Flask and Celery by the book", _textbook_version, _textbook),
    "litellm": System(
        "LiteLLM proxy", proxies.litellm_version, proxies.litellm, proxies.litellm_missing
    ),
    "portkey": System(
        "Portkey gateway", proxies.portkey_version, proxies.portkey, proxies.portkey_missing
    ),
}
