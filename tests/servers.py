"""Real processes for the system tests: Redis, and the parts of chatd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from cli.redis_server import find_binary, free_port
from tests.waiting import eventually

__all__ = ["Child", "RedisProcess", "await_written", "python"]

ROOT = Path(__file__).parent.parent


@dataclass
class Child:
    """One process of a test; its output goes to a file that can be searched."""

    command: list[str]
    log: Path
    environ: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Child:
        """Start it, or start it again."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environ},
                cwd=ROOT,
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, within_s: float = 30.0) -> int:
        """Its exit code."""
        assert self.process is not None
        return self.process.wait(within_s)

    def kill(self) -> None:
        """SIGKILL, and reap."""
        if self.alive:
            assert self.process is not None
            self.process.kill()
            self.process.wait(10)

    def stop(self, within_s: float = 30.0) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if self.alive:
            assert self.process is not None
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(within_s)
            except subprocess.TimeoutExpired:
                self.kill()
                message = f"{self.command} did not stop within {within_s} s"
                raise AssertionError(message) from None

    def output(self) -> str:
        """Everything it has printed so far."""
        return self.log.read_text("utf-8", errors="replace") if self.log.exists() else ""


class RedisProcess:
    """The Redis that `chatd up` would start: append-only file synced each second, no eviction.

    ``appendfsync`` is Redis' own: ``always`` syncs before each reply. ``options`` are further ones
    of its command line.
    """

    def __init__(
        self, folder: Path, *, appendfsync: str = "everysec", options: Sequence[str] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        arguments = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": appendfsync,
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        words = [word for name, value in arguments.items() for word in (f"--{name}", value)]
        self.child = Child([str(find_binary()), *words, *options], folder / "redis.log")
        self.client = redis.Redis.from_url(self.url, decode_responses=True, protocol=2)

    def start(self) -> RedisProcess:
        """Start it, or start it again on the same files, and wait until it answers."""
        self.child.start()
        eventually(self._answers, what="Redis answers")
        return self

    def pause(self) -> None:
        """Freeze the process; its sockets stay open."""
        self.child.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after ``pause``."""
        self.child.send(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9."""
        self.child.kill()

    @property
    def newest_file(self) -> Path:
        """The append-only file that it writes to."""
        files = self.folder.glob("appendonlydir/*.incr.aof")
        return max(files, key=lambda path: path.stat().st_mtime_ns)

    def written(self) -> int:
        """How long that file is now."""
        return self.newest_file.stat().st_size

    def lose_after(self, size: int) -> None:
        """Take back what was written after that, as a power failure does. It must not run."""
        os.truncate(self.newest_file, size)

    def stop(self) -> None:
        """An orderly end."""
        self.client.close()
        self.child.stop()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


def await_written(client: redis.Redis) -> None:
    """Wait until a kill -9 can take back nothing of what this Redis has confirmed.

    While a sync of its append-only file takes its time, Redis confirms further commands and holds
    them back from the file for up to two seconds (``flushAppendOnlyFile`` in its aof.c).
    """
    eventually(
        lambda: client.info("persistence").get("aof_buffer_length", 0) == 0,
        what="Redis has handed to its file what it has confirmed",
    )


def python(*arguments: str) -> list[str]:
    """A command line of this very Python."""
    return [sys.executable, *arguments]
