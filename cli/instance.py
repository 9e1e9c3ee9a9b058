"""The one ``chatd up`` of a ``data_dir``: which process it is, and how its restarts go.

``up.pid`` has its process id and is locked as long as it lives: the kernel drops the lock with the
process, so that a file which a killed one left behind is known for what it is. ``up.json`` counts
restarts, for those who have asked for one.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from chat.disk import lock_file, read_json, write_json
from chat.errors import ConfigError

__all__ = ["Instance", "Restarts", "restarts_of", "running_pid"]

#: Seconds for which a lock is waited for: whoever asks who runs holds it for a moment.
_LOCK_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """How many restarts a `chatd up` has begun and ended.

    ``doing`` is what it does now, empty when it does nothing. ``fault`` says why the last restart
    was given up, empty when it was not.
    """

    begun: int = 0
    ended: int = 0
    doing: str = ""
    fault: str = ""


class Instance:
    """The files of this process. Making one claims the folder until ``close``.

    Raises ``ConfigError`` when another `chatd up` has it, or it cannot be written.
    """

    def __init__(self, data_dir: Path) -> None:
        self._state = _state_file(data_dir)
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._file = _locked(_pid_file(data_dir))
            write_json(self._state, asdict(Restarts()))
        except OSError as error:
            raise ConfigError(
                f"{data_dir} cannot be made or written ({error.strerror}); let this user write "
                "there and see that its disk has room, or set [chatd] data_dir to another folder"
            ) from error

    def tell(self, restarts: Restarts) -> None:
        """Write down how far it is. Raises ``OSError``."""
        write_json(self._state, asdict(restarts))

    def close(self) -> None:
        """Give the folder up."""
        self._file.truncate(0)
        self._file.close()


def running_pid(data_dir: Path) -> int | None:
    """The process id of the `chatd up` that has this folder; ``None`` when there is none.

    Raises ``OSError`` when the file may not be read.
    """
    try:
        file = _pid_file(data_dir).open("r", encoding="ascii")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            # Empty in the moment in which that process starts or ends.
            text = file.read().strip()
            return int(text) if text else None
    return None


def restarts_of(data_dir: Path) -> Restarts:
    """What the `chatd up` of this folder has written down last."""
    return Restarts(**read_json(_state_file(data_dir)))


def _pid_file(data_dir: Path) -> Path:
    return data_dir / "up.pid"


def _state_file(data_dir: Path) -> Path:
    return data_dir / "up.json"


def _locked(path: Path) -> TextIO:
    path.touch(mode=0o600)
    # Not "w", which would empty the file of whoever has the lock.
    file = path.open("a", encoding="ascii")
    if not lock_file(file, within_s=_LOCK_WAIT_S):
        file.close()
        raise ConfigError(
            f"another `chatd up` runs in {path.parent}; stop that one, or give this one a "
            "data_dir of its own"
        )
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
