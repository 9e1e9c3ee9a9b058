"""What one upstream call costs the process that makes it, step by step.

    python -m bench.speed.call [--calls 3000] [--runs 3]

Each way to make the same call is measured in a process of its own, for its CPU time: one call after
the other, and with 64 in flight, in threads and in gevent's greenlets. ``Registry.chat`` is all
that a worker's thread does for a call; the others show what its parts would cost alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import requests
import urllib3

from chat.keys import Secret
from chat.providers.ollama import Ollama
from chat.providers.upstream import Upstream
from chat.registry import Registry, Route
from chat.types import JSON, Cancelled, ChatRequest, Deadline, Message, Role
from cli.redis_server import free_port
from tests.servers import Child, python
from tests.waiting import eventually

__all__ = ["main"]

Call = Callable[[], object]

_TEXT = "A question of a usual length, for which an answer of a usual length comes back. " * 6
_BODY: JSON = {
    "model": "m",
    "stream": False,
    "think": False,
    "messages": [{"role": "user", "content": _TEXT}],
}
_HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer key"}
_TIMEOUT = (10, 60)

#: How many calls are under way at once.
_IN_FLIGHT = (1, 64)
_POOLS = ("threads", "gevent")


def _requests_post(url: str) -> Call:
    return lambda: requests.post(url, json=_BODY, headers=_HEADERS, timeout=_TIMEOUT).json()


def _session_post(url: str) -> Call:
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=max(_IN_FLIGHT)))
    return lambda: session.post(url, json=_BODY, headers=_HEADERS, timeout=_TIMEOUT).json()


def _adapter_send(url: str) -> Call:
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=max(_IN_FLIGHT))

    def call() -> object:
        prepared = requests.PreparedRequest()
        body = json.dumps(_BODY).encode()
        prepared.method, prepared.url, prepared.body = "POST", url, body
        length = {"Content-Length": str(len(body))}
        prepared.headers = requests.structures.CaseInsensitiveDict(_HEADERS | length)
        return json.loads(adapter.send(prepared, stream=True, timeout=_TIMEOUT).raw.read())

    return call


def _urllib3(url: str) -> Call:
    pool = urllib3.PoolManager(maxsize=max(_IN_FLIGHT))

    def call() -> object:
        body = json.dumps(_BODY).encode()
        return json.loads(pool.urlopen("POST", url, body=body, headers=_HEADERS).data)

    return call


def _upstream(url: str) -> Upstream:
    return Upstream("ollama", url.removesuffix("/api/chat"), secret=Secret("key"))


def _upstream_post(url: str) -> Call:
    upstream = _upstream(url)

    def call() -> object:
        deadline, cancelled = Deadline.after(60), Cancelled()
        return upstream.post("/api/chat", _BODY, deadline=deadline, cancelled=cancelled)

    return call


def _registry_chat(url: str) -> Call:
    registry = Registry({"ollama": Ollama(_upstream(url))})
    route = Route("ollama", "m")
    request = ChatRequest("ollama/m", (Message(Role.USER, _TEXT),))

    def call() -> object:
        deadline, cancelled = Deadline.after(60), Cancelled()
        return registry.chat(route, request, deadline=deadline, cancelled=cancelled)

    return call


_WAYS: dict[str, Callable[[str], Call]] = {
    "requests.post": _requests_post,
    "Session.post": _session_post,
    "adapter.send": _adapter_send,
    "urllib3": _urllib3,
    "Upstream.post": _upstream_post,
    "Registry.chat": _registry_chat,
}


def _measure(way: str, url: str, in_flight: int, calls: int) -> float:
    """CPU of this process for one call, in microseconds."""
    call = _WAYS[way](url)
    share = calls // in_flight

    def caller() -> None:
        for _ in range(share):
            call()

    def run() -> float:
        callers = [threading.Thread(target=caller) for _ in range(in_flight)]
        begun = time.process_time()
        for each in callers:
            each.start()
        for each in callers:
            each.join()
        return time.process_time() - begun

    run()  # Connections are made, code is warm.
    return run() / (share * in_flight) * 1e6


def _in_a_process(way: str, url: str, pool: str, in_flight: int, calls: int) -> float:
    command = [sys.executable, "-m", "bench.speed.call", "--measure", way, "--url", url]
    command += ["--pool", pool, "--in-flight", str(in_flight), "--calls", str(calls)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _table(ways: list[str], calls: int, runs: int) -> None:
    columns = [(pool, in_flight) for pool in _POOLS for in_flight in _IN_FLIGHT]
    print(f"us of CPU per call, median of {runs} runs of {calls} calls")
    print("".ljust(16) + "".join(f"{pool} {n}".rjust(14) for pool, n in columns))
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        server = Child(python("-m", "bench.upstream", str(port)), Path(folder) / "upstream.log")
        server.start()
        try:
            eventually(lambda: _answers(port), within_s=20, what="the upstream answers")
            url = f"http://127.0.0.1:{port}/api/chat"
            for way in ways:
                cells = [
                    statistics.median(
                        _in_a_process(way, url, pool, in_flight, calls) for _ in range(runs)
                    )
                    for pool, in_flight in columns
                ]
                print(way.ljust(16) + "".join(f"{cell:14.0f}" for cell in cells), flush=True)
        finally:
            server.stop()


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/stats", timeout=1).ok
    except requests.ConnectionError:
        return False


def main(arguments: list[str]) -> int:
    """Print the table; with ``--measure``, one figure of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed.call")
    parser.add_argument("--ways", default=",".join(_WAYS), help="default: %(default)s")
    parser.add_argument("--calls", type=int, default=3000, help="of one run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--measure", choices=_WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--pool", choices=_POOLS, help=argparse.SUPPRESS)
    parser.add_argument("--in-flight", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(_measure(options.measure, options.url, options.in_flight, options.calls))
    else:
        _table(options.ways.split(","), options.calls, options.runs)
    return 0


if __name__ == "__main__":
    if "gevent" in sys.argv:
        # As a worker does, though later: nothing that was imported has made a lock to wait on.
        from gevent import monkey

        monkey.patch_all()
    sys.exit(main(sys.argv[1:]))
