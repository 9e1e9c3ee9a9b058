"""All of chatd as processes that a fault may kill, before an upstream that forgets nothing."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import kill_family
from bench.upstream import Conduct, Upstream
from cli.redis_server import free_port
from tests.servers import Child, RedisProcess
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["PROVIDER", "NotRun", "Setting", "World", "running"]

PROVIDER = "ollama"
_PERMITS = 12
_DELAYS_S = (0.02, 0.2)
_SETTINGS = "timeout_s = 8\n"
_DISK = "24m"


class NotRun(Exception):
    """A fault cannot be made on this machine; the message says what it needs."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a fault needs of the world before it starts.

    ``lines`` are further lines of [chatd]; ``appendfsync`` is that of Redis; with ``small_disk``
    ``data_dir`` and the files of Redis lie on a file system of their own that can be filled.
    """

    lines: str = ""
    appendfsync: str = "everysec"
    small_disk: bool = False


@dataclass(slots=True)
class World:
    """A running chatd: two workers, one keeper, one front end, Redis, and the upstream.

    ``parts`` has the processes that are to be alive, by a name for people. ``away`` are the times
    (monotonic seconds) in which Redis could not be used. ``resets`` and ``silences`` are the shares
    of calls that the upstream breaks in mid-body and never answers.
    """

    stack: Stack
    upstream: Upstream
    disk: Path | None
    parts: dict[str, Child] = field(default_factory=dict)
    away: list[tuple[float, float]] = field(default_factory=list)
    resets: float = 0.0
    silences: float = 0.0

    @property
    def redis(self) -> RedisProcess:
        """The Redis of all of them."""
        return self.stack.redis

    def kill(self, part: str) -> None:
        """SIGKILL for a part and the processes that it has started."""
        child = self.parts[part]
        kill_family(child.pid)
        child.kill()

    def start(self, part: str) -> None:
        """Start a part again."""
        self.parts[part].start()

    def add(self, part: str, name: str, *arguments: str) -> Child:
        """One more process, started; it is stopped with the others."""
        child = self.stack.child(name, *arguments).start()
        # The stack stops whatever it knows as a worker after the front end.
        self.stack.workers[name] = child
        self.parts[part] = child
        return child

    @contextmanager
    def redis_away(self) -> Iterator[None]:
        """The time inside is one in which Redis cannot be used."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.away.append((began, time.monotonic()))

    def alive(self) -> dict[str, int]:
        """How many jobs are in each state that is not the last. Raises ``QueueUnavailable``."""
        acct = self.stack.store.counters()
        return {state: acct.get(state, 0) for state in ("queued", "waiting", "calling")}

    def dead(self) -> list[str]:
        """The parts that should be alive and are not."""
        parts = {**self.parts, "Redis": self.redis.child}
        return [name for name, child in parts.items() if not child.alive]

    def logs(self) -> Mapping[str, Path]:
        """The logs of all parts, those too that a fault has replaced."""
        return {path.stem: path for path in sorted(self.stack.folder.glob("*.log"))}


@contextmanager
def running(seed: int, setting: Setting, lines: str = "") -> Iterator[World]:
    """Start everything, and stop it by process id at the end, Ctrl-C included.

    ``lines`` are further lines of [chatd]. Raises ``NotRun`` and ``ConfigError``.
    """
    with tempfile.TemporaryDirectory(prefix="chatd-chaos-") as name, _disk(name, setting) as disk:
        folder = Path(name)
        # Its port is known before it serves: nothing has to be stopped if the stack is refused.
        upstream = Upstream(port=free_port())
        stack = Stack(
            folder,
            {PROVIDER: upstream.url},
            concurrency=_PERMITS,
            settings=_SETTINGS + setting.lines + lines,
            redis=RedisProcess(folder / "redis", appendfsync=setting.appendfsync),
        )
        second = stack.child("worker-2", "worker", PROVIDER, "--instance", "2")
        stack.workers["second"] = second
        world = World(stack, upstream, disk)
        world.parts |= {
            "front end": stack.api,
            "keeper": stack.keeper,
            "worker 1": stack.workers[PROVIDER],
            "worker 2": second,
        }
        upstream.conduct = _conduct(world, random.Random(f"upstream {seed}"))  # noqa: S311 - seeded
        try:
            upstream.start(upstream.port)
            stack.start()
            client = stack.redis.client
            eventually(lambda: client.zcard(f"workers:{PROVIDER}") == 2, what="two workers")
            yield world
        finally:
            world.resets = world.silences = 0.0
            _stop(world)


def _conduct(world: World, chance: random.Random) -> Callable[[str], Conduct]:
    def conduct(_: str) -> Conduct:
        delay_s, lot = chance.uniform(*_DELAYS_S), chance.random()
        if lot < world.resets:
            return Conduct(delay_s, "reset")
        if lot < world.resets + world.silences:
            return Conduct(delay_s, "silence")
        return Conduct(delay_s)

    return conduct


def _stop(world: World) -> None:
    """Stop all parts in good order, and what does not stop without it."""
    try:
        world.stack.stop()
    finally:
        for child in (*world.stack.workers.values(), *world.parts.values(), world.redis.child):
            child.kill()
        world.upstream.stop()


@contextmanager
def _disk(name: str, setting: Setting) -> Iterator[Path | None]:
    """A small file system under ``data_dir`` and the folder of Redis, if that is asked for."""
    if not setting.small_disk:
        yield None
        return
    folder = Path(name)
    disk = folder / "disk"
    disk.mkdir()
    _mount("mount", "-t", "tmpfs", "-o", f"size={_DISK}", "chaos", str(disk))
    try:
        for part in ("data", "redis"):
            (disk / part).mkdir()
            (folder / part).symlink_to(disk / part)
        yield disk
    finally:
        _mount("umount", str(disk))


def _mount(tool: str, *arguments: str) -> None:
    """Raises ``NotRun`` when this user may not mount."""
    path = shutil.which(tool)
    if path is None:
        raise NotRun(f"it needs {tool}, which is not there")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = done.stderr.strip().partition("\n")[0]
        raise NotRun(f"it needs the right to mount a small file system: {why}")
