"""Scripts of many threads in one round trip, on a connection that does what a test says."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import fakeredis
import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError
from redis.retry import Retry

from chat.errors import QueueUnavailable
from chat.pipeline import ScriptPipeline
from chat.settings import ChatdConfig
from chat.store import JobStore
from tests.waiting import eventually

TRIES = 3


class Server:
    """A pool, its one connection and the server behind it: a reply is the script's argument.

    ``hold`` keeps the next round trip until ``go``; ``answer`` says of each argument what to do.
    """

    def __init__(self, answer: Callable[[str], Any] = str) -> None:
        self.connection_pool = self
        self.connection_class = self._connect
        self.connection_kwargs: dict[str, Any] = {}
        self.retry = Retry(NoBackoff(), TRIES - 1)
        self.retry.update_supported_errors([ReadOnlyError])
        self.answer = answer
        self.trips: list[list[str]] = []
        self.connected = 0
        self.lost = 0
        self._unread: list[str] = []
        self._free = threading.Event()
        self._free.set()

    def _connect(self) -> Server:
        self.connected += 1
        return self

    def hold(self) -> None:
        self._free.clear()

    def go(self) -> None:
        self._free.set()

    def send_packed_command(self, pieces: list[bytes]) -> None:
        words = b"".join(pieces).decode().split("*4\r\n")[1:]
        self._unread = [word.split("\r\n")[7] for word in words]
        self.trips.append(list(self._unread))
        assert self._free.wait(10)

    def read_response(self) -> Any:
        answer = self.answer(self._unread.pop(0))
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def disconnect(self) -> None:
        self.lost += 1
        self._unread = []


def pipeline_on(server: Server) -> ScriptPipeline:
    return ScriptPipeline(server)  # type: ignore[arg-type]


class Callers:
    """Threads that run a script each; the first is on its way while the others queue."""

    def __init__(self, server: Server, pool: ThreadPoolExecutor) -> None:
        self.pipeline = pipeline_on(server)
        self._server = server
        self._pool = pool

    def begin(self, *names: str) -> list[Any]:
        """Let each in turn come to the pipeline, and stop there."""
        self._server.hold()
        futures = []
        for name in names:
            waiting = len(self.pipeline._waiting)
            trips = len(self._server.trips)
            futures.append(self._pool.submit(self.pipeline.run, "f00", [name]))
            eventually(partial(self._came, waiting, trips))
        return futures

    def _came(self, waiting: int, trips: int) -> bool:
        return len(self.pipeline._waiting) > waiting or len(self._server.trips) > trips


@pytest.fixture
def pool():
    with ThreadPoolExecutor(200) as threads:
        yield threads


def test_one_caller_has_its_round_trip_at_once():
    """Each time one, on the same connection, and in its own thread."""
    server = Server()
    pipeline = pipeline_on(server)
    replies = [pipeline.run("f00", [name]) for name in ("a", "b")]

    assert replies == ["a", "b"]
    assert server.trips == [["a"], ["b"]]
    assert server.connected == 1


def test_those_who_come_meanwhile_travel_together(pool):
    """In the order in which they came, each with its own reply."""
    server = Server()
    futures = Callers(server, pool).begin("a", "b", "c", "d")
    server.go()

    assert [future.result(10) for future in futures] == ["a", "b", "c", "d"]
    assert server.trips == [["a"], ["b", "c", "d"]]


def test_a_round_trip_has_its_limit(pool):
    """The first who does not fit begins the next one."""
    server = Server()
    names = [str(number) for number in range(180)]
    futures = Callers(server, pool).begin(*names)
    server.go()

    assert [future.result(10) for future in futures] == names
    assert [len(trip) for trip in server.trips] == [1, 128, 51]


class Line:
    """One connection of a ``Crossing``: what was sent on it. Replies come once it is ``free``."""

    def __init__(self, crossing: Crossing) -> None:
        self.retry = Retry(NoBackoff(), 0)
        self.trips: list[list[str]] = []
        self.free = threading.Event()
        self._crossing = crossing
        self._unread: list[str] = []

    def connect(self) -> None:
        self._crossing.opened.append(self)

    def send_packed_command(self, pieces: list[bytes]) -> None:
        words = b"".join(pieces).decode().split("*4\r\n")[1:]
        self._unread = [word.split("\r\n")[7] for word in words]
        self.trips.append(list(self._unread))

    def read_response(self) -> Any:
        assert self.free.wait(10)
        return self._unread.pop(0)

    def disconnect(self) -> None:
        self._unread = []


class Crossing:
    """A pool of any number of connections, all of them free or none from ``hold`` to ``go``."""

    def __init__(self) -> None:
        self.connection_pool = self
        self.connection_class = self._connect
        self.connection_kwargs: dict[str, Any] = {}
        self.lines: list[Line] = []
        self.opened: list[Line] = []
        self._held = False

    def _connect(self) -> Line:
        line = Line(self)
        self.lines.append(line)
        if not self._held:
            line.free.set()
        return line

    def hold(self) -> None:
        self._held = True
        for line in self.lines:
            line.free.clear()

    def go(self) -> None:
        self._held = False
        for line in self.lines:
            line.free.set()

    @property
    def trips(self) -> list[int]:
        """How many commands travelled in each round trip, of all connections."""
        return [len(trip) for line in self.lines for trip in line.trips]


def _arrived(pipeline: ScriptPipeline, crossing: Crossing, before: int) -> bool:
    return len(pipeline._waiting) + sum(crossing.trips) > before


def _crowd(crossing: Crossing, pipeline: ScriptPipeline, pool: ThreadPoolExecutor, callers: int):
    """So many callers, of whom none has a reply; each is where it stays before the next comes."""
    crossing.hold()
    futures = []
    for name in map(str, range(callers)):
        arrived = len(pipeline._waiting) + sum(crossing.trips)
        futures.append(pool.submit(pipeline.run, "f00", [name]))
        eventually(partial(_arrived, pipeline, crossing, arrived))
    return futures


def test_a_crowd_does_not_wait_for_a_reply(pool):
    """Those who come while nobody reads have been sent all the same, on further connections."""
    crossing = Crossing()
    pipeline = ScriptPipeline(crossing, 3)  # type: ignore[arg-type]
    pipeline.run("f00", ["first"])
    futures = _crowd(crossing, pipeline, pool, 100)
    before = sorted(crossing.trips)
    crossing.go()

    assert [future.result(10) for future in futures] == [str(number) for number in range(100)]
    # The first, one alone, thirty-two and whoever found them, sixty-four and one more.
    assert before == [1, 1, 33, 65]
    assert len(crossing.lines) == 3


def test_further_connections_stand_before_the_crowd_comes(pool):
    """From the first callers on who meet: a crowd would wait for them as long as for a reply."""
    crossing = Crossing()
    pipeline = ScriptPipeline(crossing, 4)  # type: ignore[arg-type]
    pipeline.run("f00", ["alone"])
    alone = len(crossing.lines)
    futures = _crowd(crossing, pipeline, pool, 3)
    crossing.go()
    for future in futures:
        future.result(10)

    eventually(lambda: len(crossing.opened) == 3, what="the further ones stand")

    assert alone == 1
    assert crossing.opened == crossing.lines[1:]


def test_a_connection_is_left_alone_when_the_crowd_has_gone(pool):
    """The few who wait travel together, with whoever is still in charge."""
    crossing = Crossing()
    pipeline = ScriptPipeline(crossing, 2)  # type: ignore[arg-type]
    futures = _crowd(crossing, pipeline, pool, 40)
    first, second = crossing.lines
    first.free.set()
    futures[0].result(10)
    eventually(lambda: len(pipeline._free) == 1 and not pipeline._lock.locked())
    before = [[len(trip) for trip in line.trips] for line in (first, second)]
    second.free.set()
    for future in futures:
        future.result(10)

    assert before == [[1], [33]]
    assert sorted(len(trip) for line in crossing.lines for trip in line.trips) == [1, 6, 33]


def test_what_is_large_does_not_travel_with_others(pool):
    """A write has a time limit, and the small ones would miss it with the large one."""
    server = Server()
    large = "x" * (1 << 20)
    futures = Callers(server, pool).begin("a", "b", large, "c")
    server.go()

    assert [future.result(10) for future in futures] == ["a", "b", large, "c"]
    assert server.trips == [["a"], ["b"], [large], ["c"]]


@pytest.mark.parametrize("fault", [ResponseError("ERR"), NoScriptError("NOSCRIPT")])
def test_a_scripts_own_error_is_its_callers_alone(pool, fault):
    """Nothing is sent again for it."""
    server = Server(lambda name: fault if name == "bad" else name)
    _, good, bad, last = Callers(server, pool).begin("a", "good", "bad", "last")
    server.go()

    assert (good.result(10), last.result(10)) == ("good", "last")
    assert bad.exception(10) is fault
    assert server.trips == [["a"], ["good", "bad", "last"]]


def test_what_cannot_be_sent_is_its_callers_alone():
    """It never reaches the others."""
    server = Server()
    with pytest.raises(UnicodeEncodeError):
        pipeline_on(server).run("f00", ["\ud800"])

    assert server.trips == []


@pytest.mark.parametrize(
    "fault", [redis.ConnectionError("cut"), redis.TimeoutError("slow"), ReadOnlyError("replica")]
)
def test_a_cut_connection_costs_a_second_try_of_what_has_no_reply(pool, fault):
    """Who has a reply keeps it."""
    faults = [fault]
    server = Server(lambda name: faults.pop() if name == "c" and faults else name)
    futures = Callers(server, pool).begin("a", "b", "c", "d")
    server.go()

    assert [future.result(10) for future in futures] == ["a", "b", "c", "d"]
    assert server.trips == [["a"], ["b", "c", "d"], ["c", "d"]]
    assert server.lost == 1


def test_a_reply_that_is_no_text_is_its_callers_alone(pool):
    """The connection is lost with it, so that the others ask again."""
    fault = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    server = Server(lambda name: fault if name == "b" else name)
    _, b, c = Callers(server, pool).begin("a", "b", "c")
    server.go()

    assert c.result(10) == "c"
    assert b.exception(10) is fault


def test_trouble_that_lasts_reaches_everybody_at_once(pool):
    """Those who queue by then as well: one after the other they would wait for the same."""
    there = threading.Event()
    server = Server(lambda name: name if there.is_set() else redis.TimeoutError("frozen"))
    callers = Callers(server, pool)
    futures = callers.begin("a", "b", "c")
    server.go()
    faults = [future.exception(10) for future in futures]
    tries = len(server.trips)
    there.set()

    assert [str(fault) for fault in faults] == ["frozen"] * 3
    assert len({id(fault) for fault in faults}) == 3
    assert tries == TRIES
    assert callers.pipeline.run("f00", ["later"]) == "later"


def test_a_caller_who_is_stopped_stops_nobody_else(pool):
    """What it had taken along is sent by the next one; the connection is in an unknown state."""
    faults = [SystemExit()]
    server = Server(lambda name: faults.pop() if name == "b" and faults else name)
    _, b, c, d = Callers(server, pool).begin("a", "b", "c", "d")
    server.go()

    assert (c.result(10), d.result(10)) == ("c", "d")
    assert isinstance(b.exception(10), SystemExit)
    assert server.trips == [["a"], ["b", "c", "d"], ["c", "d"]]
    assert server.lost == 1


_KILLED = """
from gevent import monkey; monkey.patch_all()
import gevent
from tests.unit.test_pipeline import Server, pipeline_on
server = Server()
pipeline = pipeline_on(server)
server.hold()
first, killed, third, fourth = (gevent.spawn(pipeline.run, "f00", [name]) for name in "abcd")
gevent.sleep(0)
killed.kill()
server.go()
print(first.get(10), repr(killed.value), third.get(10), fourth.get(10), server.trips)
server.hold()
first, second = (gevent.spawn(pipeline.run, "f00", [name]) for name in "ef")
gevent.sleep(0)
first.kill()
server.go()
print(repr(first.value), second.get(10), server.trips[2:])
def answer(name):
    if name == "g":
        second.kill(block=False)   # It dies at the next switch; by then it has the charge.
    return name
server.answer = answer
server.hold()
first, second, third = (gevent.spawn(pipeline.run, "f00", [name]) for name in "ghi")
gevent.sleep(0)
server.go()
print(first.get(10), repr(second.value), third.get(10), server.trips[4:])
"""


def test_a_greenlet_that_is_killed_takes_nothing_along():
    """Whether it queues, has a command on its way, or has just been given the charge."""
    done = subprocess.run(
        [sys.executable, "-c", _KILLED], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.splitlines() == [
        "a GreenletExit() c d [['a'], ['c', 'd']]",
        "GreenletExit() f [['e'], ['f']]",
        "g GreenletExit() i [['g'], ['i']]",
    ], done.stderr


def test_a_store_asks_in_the_usual_way_what_redis_does_not_know(monkeypatch):
    """A server that was started anew has lost the scripts; they are loaded once more."""
    client = fakeredis.FakeRedis(decode_responses=True)
    store = JobStore(client, ChatdConfig(), pipelined=1)
    first = store.expire("job_unknown")
    client.script_flush()
    second = store.expire("job_unknown")
    loads: list[str] = []
    monkeypatch.setattr(client, "script_load", loads.append)
    third = store.expire("job_unknown")

    assert (first, second, third) == (None, None, None)
    assert loads == []


def test_trouble_of_the_pipeline_is_the_stores_one_error():
    """Whichever way a script goes."""
    fake = fakeredis.FakeServer()
    store = JobStore(
        fakeredis.FakeRedis(server=fake, decode_responses=True), ChatdConfig(), pipelined=1
    )
    fake.connected = False
    with pytest.raises(QueueUnavailable, match="ConnectionError"):
        store.expire("job_unknown")
