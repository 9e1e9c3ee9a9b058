"""Processes killed, or cut from Redis, between two commands. All their lives are in bench/cuts."""

from __future__ import annotations

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bench.cuts.lives import LIVES
from bench.cuts.run import play
from bench.cuts.world import Action, running
from bench.redis_proxy import Place, RedisProxy, Strike
from bench.scenes.scene import Report


@pytest.fixture
def proxy(redis_server):
    proxy = RedisProxy(redis_server.port).start()
    yield proxy
    proxy.stop()


@pytest.fixture
def through(proxy):
    """A client that tries nothing twice, through the proxy."""
    with redis.Redis.from_url(proxy.url, protocol=2, retry=Retry(NoBackoff(), 0)) as client:
        client.ping()
        yield client


@pytest.mark.parametrize(
    ("place", "done"), [(Place.BEFORE, b"1"), (Place.AFTER, b"2")], ids=["before", "after"]
)
def test_a_strike_falls_before_the_command_or_after_it(through, proxy, redis_server, place, done):
    """Redis has done the n-th or it has not; the client hears of neither, and may come back."""
    acts = []
    proxy.arm(Strike(2, place, lambda: acts.append(proxy.seen[-1])))
    through.incr("count")
    with pytest.raises(redis.ConnectionError):
        through.incr("count")

    assert redis_server.client.get("count") == done.decode()
    assert (proxy.disarm(), proxy.acted.is_set(), acts) == (True, True, ["INCRBY"])
    assert through.get("count") == done


def test_a_command_that_waits_can_still_lose_its_answer(proxy, redis_server):
    """What a BRPOP has taken from the list is gone with its answer."""
    with redis.Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 0)) as client:
        connection = client.connection_pool.get_connection()
        connection.send_command("BRPOP", "list", 30)
        while not any(words[0] == b"BRPOP" for words in proxy.in_flight()):
            pass
        proxy.arm(Strike(1, Place.AFTER, lambda: None))
        redis_server.client.lpush("list", "wake-up")
        with pytest.raises(redis.ConnectionError):
            connection.read_response()
        client.connection_pool.release(connection)

    assert proxy.seen[0] == "BRPOP"
    assert redis_server.client.llen("list") == 0


def test_a_strike_that_was_not_reached_never_falls(through, proxy):
    """The life was over before."""
    proxy.arm(Strike(2, Place.BEFORE, lambda: None))
    through.incr("count")
    reached = proxy.disarm()
    through.incr("count")

    assert (reached, proxy.acted.is_set(), proxy.seen) == (False, False, ["INCRBY"])


@pytest.mark.parametrize(
    ("process", "name", "most", "struck", "strikes"),
    [
        pytest.param("worker", "batch", 4, {"start", "finish"}, 4, id="worker"),
        pytest.param("api", "sync", 1, {"admit"}, 4, id="front end"),
        # Where in its round the keeper is just then, is chance: the job may have ended before.
        pytest.param("keeper", "expire", 1, set(), 1, id="keeper"),
    ],
)
def test_whichever_command_is_the_last_the_job_ends_once(
    process, name, most, struck, strikes, capsys
):
    """Killed or cut, before the command or after it: books and ledger are right every time."""
    life = next(life for life in LIVES if (life.process, life.name) == (process, name))
    report = Report()
    with running(process) as world:
        tally = play(world, life, report, actions=Action, most=most)

    assert report.broken == [], capsys.readouterr().out
    assert tally.struck.keys() >= struck
    assert tally.struck.total() >= strikes
