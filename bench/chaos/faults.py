"""The faults: each is done to a world under load, and returns when nothing is held down."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from bench.chaos.disk import AppendOnlyFile, filled
from bench.chaos.world import PROVIDER, NotRun, Setting, World
from tests.waiting import eventually

__all__ = ["FAULTS", "ROUNDS", "Fault"]

_DOWN_S = 1.0
_FROZEN_S = 35.0
_PAUSED_S = 40.0
_STOPS_WITHIN_S = 60.0


def worker_kill(world: World, chance: random.Random) -> None:
    """kill -9 of one worker, started again after a second."""
    _kill(world, chance.choice(["worker 1", "worker 2"]))


def second_worker_kill(world: World, _: random.Random) -> None:
    """kill -9 of the second worker, started again after a second."""
    _kill(world, "worker 2")


def front_end_kill(world: World, _: random.Random) -> None:
    """kill -9 of the front end, master and worker process, started again after a second."""
    _kill(world, "front end")


def keeper_kill(world: World, _: random.Random) -> None:
    """kill -9 of the keeper, started again after a second."""
    _kill(world, "keeper")


def _kill(world: World, part: str) -> None:
    world.kill(part)
    time.sleep(_DOWN_S)
    world.start(part)


def redis_kill(world: World, _: random.Random) -> None:
    """kill -9 of Redis, started again from its append-only file after 1.5 s."""
    with world.redis_away():
        world.redis.kill()
        time.sleep(1.5)
        _redis_again(world)


def redis_shutdown(world: World, chance: random.Random) -> None:
    """An orderly end of Redis, by its SHUTDOWN command or by SIGTERM; 1.5 s later it is back."""
    with world.redis_away():
        if chance.random() < 0.5:
            world.redis.client.shutdown()
        else:
            world.redis.child.send(signal.SIGTERM)
        world.redis.child.wait()
        time.sleep(1.5)
        _redis_again(world)


def _redis_again(world: World) -> None:
    """Start Redis; not waited for, so that the time that it reads its file is part of recovery."""
    world.redis.child.start()


def redis_pause(world: World, _: random.Random) -> None:
    """Redis frozen (SIGSTOP) for 40 s, longer than a lease."""
    with world.redis_away():
        world.redis.pause()
        try:
            time.sleep(_PAUSED_S)
        finally:
            world.redis.resume()


def connections_cut(world: World, chance: random.Random) -> None:
    """Redis cuts every connection, those with subscriptions too, five times."""
    with world.redis_away():
        for _ in range(5):
            for kind in ("normal", "pubsub"):
                world.redis.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            time.sleep(chance.uniform(0.1, 0.8))


def redis_full(world: World, _: random.Random) -> None:
    """Redis has 32 KiB left for 3 s: it refuses what needs memory."""
    client = world.redis.client
    with world.redis_away():
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 2**15)
        time.sleep(3)
        client.config_set("maxmemory", 0)


def disk_full(world: World, _: random.Random) -> None:
    """The disk of data_dir and Redis is full to the last byte for 3 s."""
    if world.disk is None:
        raise NotRun("it needs a disk of its own")
    with world.redis_away():
        with filled(world.disk):
            time.sleep(3)
        # Redis takes writes again when it has tried once more, which it does each second.
        eventually(lambda: _takes_writes(world), what="Redis takes writes again")


def _takes_writes(world: World) -> bool:
    try:
        return bool(world.redis.client.set("chaos:probe", "1", px=1))
    except RedisError:
        return False


def power_loss(world: World, _: random.Random) -> None:
    """Redis dies and its append-only file ends where it ended a second before; the others live."""
    file = AppendOnlyFile(world.redis.folder)
    with file.watched(), world.redis_away():
        time.sleep(1.5)
        world.redis.kill()
        file.cut_back(1.0)
        time.sleep(1.5)
        _redis_again(world)


def power_failure(world: World, chance: random.Random) -> None:
    """All parts die at once, and Redis' file ends a second before: nobody knows of that second."""
    file = AppendOnlyFile(world.redis.folder)
    with file.watched(), world.redis_away():
        time.sleep(1.5)
        world.redis.kill()
        for part in world.parts:
            world.kill(part)
        file.cut_back(1.0)
        _all_again(world, chance)


def power_loss_durable(world: World, _: random.Random) -> None:
    """The same where each write is synced before its reply: nothing of the file is missing."""
    with world.redis_away():
        world.redis.kill()
        time.sleep(1.5)
        _redis_again(world)


def body_reset(world: World, chance: random.Random) -> None:
    """For 3 s the upstream resets some of its connections in the middle of the body."""
    world.resets = chance.uniform(0.2, 0.5)
    time.sleep(3)
    world.resets = 0.0


def upstream_silent(world: World, chance: random.Random) -> None:
    """For 2 s some calls are never answered."""
    world.silences = chance.uniform(0.08, 0.15)
    time.sleep(2)
    world.silences = 0.0


def worker_frozen(world: World, _: random.Random) -> None:
    """One worker is frozen (SIGSTOP) for 35 s, longer than its leases, and goes on."""
    worker = world.parts["worker 2"]
    worker.send(signal.SIGSTOP)
    try:
        time.sleep(_FROZEN_S)
    finally:
        worker.send(signal.SIGCONT)


def two_keepers(world: World, _: random.Random) -> None:
    """A second keeper beside the first; then the first dies by kill -9 and stays dead."""
    second = world.add("second keeper", "keeper-2", "keeper")
    eventually(lambda: "keeper" in second.output(), what="the second keeper is up")
    time.sleep(2)
    world.kill("keeper")
    del world.parts["keeper"]


def sigterm_in_turn(world: World, chance: random.Random) -> None:
    """SIGTERM and a new start of every part but Redis, one after the other."""
    parts = list(world.parts)
    chance.shuffle(parts)
    for part in parts:
        child = world.parts[part]
        child.stop(_STOPS_WITHIN_S)
        child.start()
        eventually(lambda: _is_back(world), within_s=_STOPS_WITHIN_S, what=f"{part} is back")


def _is_back(world: World) -> bool:
    """The front end is ready, and both workers have been seen within two heartbeats."""
    client: Any = world.redis.client
    newest = client.zrange(f"workers:{PROVIDER}", 0, -1, withscores=True)
    now_s = client.time()[0]
    return world.stack.ready() and all(now_s - at / 1000 < 10 for _, at in newest)


def everything_kill(world: World, chance: random.Random) -> None:
    """kill -9 of all parts at once, Redis too; all are started again in any order."""
    with world.redis_away():
        for part in world.parts:
            world.kill(part)
        world.redis.kill()
        _all_again(world, chance)


def _all_again(world: World, chance: random.Random) -> None:
    time.sleep(_DOWN_S)
    parts = [*world.parts, "Redis"]
    chance.shuffle(parts)
    for part in parts:
        if part == "Redis":
            _redis_again(world)
        else:
            world.start(part)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, what it needs, and what may be asked after it.

    ``quick`` when it takes no more than some seconds. ``forgets`` when Redis loses what it had
    acknowledged and every process that knew of it dies: what is lost then is counted, and no rule.
    """

    run: Callable[[World, random.Random], None]
    quick: bool = True
    setting: Setting = field(default_factory=Setting)
    forgets: bool = False

    @property
    def says(self) -> str:
        """What it does, in a line."""
        return (self.run.__doc__ or "").splitlines()[0]


FAULTS: dict[str, Fault] = {
    "worker-kill": Fault(worker_kill),
    "front-end-kill": Fault(front_end_kill),
    "keeper-kill": Fault(keeper_kill),
    "redis-kill": Fault(redis_kill),
    "redis-shutdown": Fault(redis_shutdown),
    "redis-pause": Fault(redis_pause, quick=False),
    "connections-cut": Fault(connections_cut),
    "redis-full": Fault(redis_full),
    "disk-full": Fault(disk_full, setting=Setting(small_disk=True)),
    "power-loss": Fault(power_loss),
    "power-failure": Fault(power_failure, forgets=True),
    "power-loss-durable": Fault(
        power_loss_durable,
        setting=Setting(lines='durability = "always"\n', appendfsync="always"),
    ),
    "body-reset": Fault(body_reset),
    "upstream-silent": Fault(upstream_silent),
    "worker-frozen": Fault(worker_frozen, quick=False),
    "two-keepers": Fault(two_keepers),
    "sigterm-in-turn": Fault(sigterm_in_turn),
    "everything-kill": Fault(everything_kill),
}

#: What a long run is given again and again: the first worker, the keeper and the front end live on.
ROUNDS: dict[str, Callable[[World, random.Random], None]] = {
    "second-worker-kill": second_worker_kill,
    "redis-kill": redis_kill,
    "redis-shutdown": redis_shutdown,
    "redis-pause": redis_pause,
    "connections-cut": connections_cut,
    "redis-full": redis_full,
    "body-reset": body_reset,
    "upstream-silent": upstream_silent,
    "worker-frozen": worker_frozen,
}
