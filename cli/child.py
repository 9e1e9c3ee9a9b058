"""One child process of ``chatd up``: what it is, and one life of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chat.handover import READY_FD

__all__ = ["Child", "Part"]

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of chatd as it is to run.

    ``grace_s`` is how long it may take to end once it is told to. It inherits the file
    ``descriptors``; ``environ`` comes on top of what all parts get. Parts of the same ``kind`` are
    told to end together.
    """

    name: str
    command: Sequence[str]
    grace_s: float
    kind: str = ""
    descriptors: tuple[int, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


class Child:
    """One process of a part, from its start to its end."""

    def __init__(self, part: Part, environ: Mapping[str, str]) -> None:
        self.part = part
        # It writes a byte when it is ready, and closes its end without one when it dies before.
        self._pipe, theirs = os.pipe()
        os.set_blocking(self._pipe, False)
        try:
            self._process = subprocess.Popen(
                part.command,
                env={**environ, **part.environ, READY_FD: str(theirs)},
                stdin=subprocess.DEVNULL,
                pass_fds=(*part.descriptors, theirs),
                # A group of its own: Ctrl-C in the terminal reaches the supervisor alone.
                start_new_session=True,
                # The supervisor has one thread: nothing can hold a lock across the fork.
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)
        self.started_at = time.monotonic()
        self.end_by = float("inf")
        self._ready = False

    @property
    def pid(self) -> int:
        """Its process id, also when it has ended."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it has ended, negative for a signal; ``None`` while it runs."""
        return self._process.poll()

    @property
    def ready(self) -> bool:
        """Whether it has said that it works."""
        if not self._ready and self._pipe >= 0:
            with contextlib.suppress(BlockingIOError):
                self._ready = bool(os.read(self._pipe, 1))
        return self._ready

    def terminate(self) -> None:
        """Tell it to end; its grace period begins."""
        self.end_by = time.monotonic() + self.part.grace_s
        self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, waiting up to ``seconds`` for that."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()

    def clear(self) -> None:
        """End what it has left behind, once it has ended: it was the leader of a group."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _die_with_parent() -> None:
    """Should the supervisor be killed, the kernel tells its children to end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
