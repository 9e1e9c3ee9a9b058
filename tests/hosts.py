"""Hosts for tests: network namespaces on one bridge, whose links can be cut and healed.

    with Network(["front", "redis"]) as network:
        child = Child(network["front"].command(["chatd", "api"]), log)   # a process on that host
        with network["front"].inside():                                  # this thread, for a moment
            socket.create_connection((network["redis"].address, 6379))
        network["redis"].cut(Cut.SILENT)
        network["redis"].heal()

The bridge lies in a namespace of its own: nothing of the machine's own network is touched. A
namespace has no name that could be left behind; it lives as long as a process in it, and those are
ended by the kernel with the thread that started them, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers import python
from tests.waiting import eventually

__all__ = ["Cut", "Host", "Network", "missing"]

_TOOLS = ("ip", "nsenter", "unshare", "setpriv")
_SUBNET = "10.213.0"
_BRIDGE, _LINK = "bridge", "eth0"
_NOBODY = "02:00:00:00:00:ff"
_NEW_NET = 0x40000000  # CLONE_NEWNET

_libc = ctypes.CDLL(None, use_errno=True)


class Cut(StrEnum):
    """How a link is cut: the host sees that it is down, or packets just do not arrive any more."""

    DOWN = "link down"
    SILENT = "silent loss"


def missing() -> str | None:
    """What keeps this machine from having hosts, or ``None``."""
    tools = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if tools:
        return f"{', '.join(tools)} of iproute2 and util-linux"
    if os.geteuid() != 0:
        return "root, who alone may make network namespaces"
    done = subprocess.run(
        ["unshare", "--net", "--uts", "ip", "link", "add", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else f"a kernel with bridges: {done.stderr.strip()}"


class _Namespace:
    """A network and a host name, kept by a process that sleeps in them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = subprocess.Popen(
            _ended_with_us(["unshare", "--net", "--uts", "sleep", "infinity"]),
            stdin=subprocess.DEVNULL,
        )
        ours = Path("/proc/self/ns/net").readlink()
        eventually(lambda: self._is_made(ours), what=f"the namespace of {name}")
        self.run(*python("-c", f"import socket; socket.sethostname({name!r})"))
        self.run("ip", "link", "set", "lo", "up")
        # What a dead process leaves open is forgotten within seconds, as if the power had failed.
        self.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_orphan_retries")

    def _is_made(self, ours: Path) -> bool:
        folder = Path(f"/proc/{self.pid}")
        # It is made before the program is replaced by the one that sleeps.
        made = (folder / "ns/net").readlink() != ours
        return made and (folder / "comm").read_text().strip() == "sleep"

    @property
    def pid(self) -> int:
        """The process that keeps it."""
        return self._holder.pid

    def command(self, command: Sequence[str]) -> list[str]:
        """``command`` in here. Its process has the id of the one that is started."""
        inside = ["nsenter", f"--target={self.pid}", "--net", "--uts", "--", *command]
        return _ended_with_us(inside)

    def run(self, *command: str) -> None:
        """Run something short in here. Raises ``CalledProcessError``."""
        subprocess.run(self.command(command), check=True, capture_output=True, timeout=30)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread in: the sockets it opens are of this network, and stay so.

        Threads that are started meanwhile are in here for good.
        """
        with Path("/proc/thread-self/ns/net").open() as before:
            with Path(f"/proc/{self.pid}/ns/net").open() as there:
                _move_to(there.fileno())
            try:
                yield
            finally:
                _move_to(before.fileno())

    def close(self) -> None:
        """Let the kernel take it down."""
        self._holder.kill()
        self._holder.wait(10)


def _ended_with_us(command: Sequence[str]) -> list[str]:
    """``command``, killed by the kernel when the thread that has started it is no more."""
    return ["setpriv", "--pdeathsig", "KILL", "--", *command]


def _move_to(descriptor: int) -> None:
    if _libc.setns(descriptor, _NEW_NET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"this thread cannot change its network: {os.strerror(number)}")


@dataclass(frozen=True, slots=True)
class _Port:
    """What stands where a host is plugged in."""

    address: str
    mac: str

    @classmethod
    def of(cls, number: int) -> Self:
        return cls(f"{_SUBNET}.{number}", f"02:00:00:00:00:{number:02x}")


class Host(_Namespace):
    """One host: a name, an address, and a link to all others."""

    def __init__(self, name: str, port: _Port, others: Sequence[_Port], bridge: _Namespace) -> None:
        super().__init__(name)
        self.address = port.address
        self._bridge = bridge
        self._others = others
        self._cut: Cut | None = None
        self._loses = False
        peer = ("peer", "name", _LINK, "address", port.mac, "netns", str(self.pid))
        bridge.run("ip", "link", "add", name, "type", "veth", *peer)
        bridge.run("ip", "link", "set", name, "master", _BRIDGE, "up")
        self.run("ip", "address", "add", f"{port.address}/24", "dev", _LINK)
        self._up()

    def cut(self, how: Cut) -> None:
        """Cut this host off from all others."""
        assert self._cut is None, f"{self.name} is cut off already"
        self._cut = how
        if how is Cut.DOWN:
            self.run("ip", "link", "set", _LINK, "down")
        else:
            self._bridge.run("ip", "link", "set", self.name, "nomaster")

    def lose(self, other: Host) -> None:
        """Lose silently what is sent to one other host, and reach all the rest."""
        self._loses = True
        self._know(other.address, _NOBODY)

    def heal(self) -> None:
        """Mend the link, and the ways to all others."""
        if self._cut is Cut.SILENT:
            self._bridge.run("ip", "link", "set", self.name, "master", _BRIDGE)
        if self._cut is Cut.DOWN or self._loses:
            self._up()
        self._cut, self._loses = None, False

    def connections(self) -> int:
        """How many TCP connections its kernel still knows, those of dead processes too."""
        done = subprocess.run(
            self.command(["cat", "/proc/net/tcp"]), capture_output=True, check=True, timeout=30
        )
        return len(done.stdout.splitlines()) - 1

    def _up(self) -> None:
        self.run("ip", "link", "set", _LINK, "up")
        # Known for good, as behind a router: nobody is told that a host does not answer for itself.
        for port in self._others:
            self._know(port.address, port.mac)

    def _know(self, address: str, mac: str) -> None:
        known = ("to", address, "lladdr", mac, "nud", "permanent")
        self.run("ip", "neighbour", "replace", *known, "dev", _LINK)


class Network:
    """Hosts by their names, all on one bridge."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._made: list[_Namespace] = []
        self._hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        try:
            bridge = _Namespace(_BRIDGE)
            self._made.append(bridge)
            bridge.run("ip", "link", "add", _BRIDGE, "type", "bridge")
            bridge.run("ip", "link", "set", _BRIDGE, "up")
            ports = [_Port.of(number) for number in range(1, len(self._names) + 1)]
            for name, port in zip(self._names, ports, strict=True):
                others = [other for other in ports if other is not port]
                self._hosts[name] = Host(name, port, others, bridge)
                self._made.append(self._hosts[name])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def heal(self) -> None:
        """Mend every link."""
        for host in self._hosts.values():
            host.heal()

    def close(self) -> None:
        """End the hosts; processes that still run on them keep theirs until they end."""
        while self._made:
            self._made.pop().close()
