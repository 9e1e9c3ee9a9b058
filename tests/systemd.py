"""A real systemd, as the first process of namespaces that are thrown away after the test.

It has processes, users and files of its own; what its units write stays in memory. Only the network
is that of the test, so that a unit can call an upstream of the test.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from tests.servers import ROOT, Child
from tests.units import needs
from tests.waiting import eventually

__all__ = ["Machine"]

#: Run as root inside new namespaces. What $1 has goes over /etc and /opt; what is written there, to
#: /tmp and to /var, goes into memory. What can be set in the kernel cannot be set from here.
_BOOT = """
set -euo pipefail
mount --make-rprivate /
mount -o bind,ro /proc/sys /proc/sys
mount -t tmpfs -o mode=755 tmpfs /run
for over in etc opt tmp var; do
    mkdir -p "/run/$over" "/run/$over.work"
    [[ ! -d $1/$over ]] || cp -a "$1/$over" /run/
    layers="lowerdir=/$over,upperdir=/run/$over,workdir=/run/$over.work"
    mount -t overlay -o "$layers" overlay "/$over"
done
mount -t tmpfs -o mode=755 tmpfs /dev
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r name major minor <<<"$node"
    mknod -m 666 "/dev/$name" c "$major" "$minor"
done
mkdir /dev/pts
mount -t devpts -o newinstance,ptmxmode=666 devpts /dev/pts
ln -s pts/ptmx /dev/ptmx
mkdir -m 1777 /dev/shm
umount -R /sys/fs/cgroup || umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
export container=test SYSTEMD_UNIT_PATH=/etc/systemd/system
exec /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=no
"""

#: What every unit wants of a system, and nothing of it is there.
_STUBS = ("sysinit", "basic", "shutdown", "network", "network-online", "sockets")


class Machine:
    """A copy of this machine, with the files of ``etc`` and ``opt`` over its own.

    Nothing runs on it but systemd, until a test starts its units. Entering it skips the test where
    such a machine cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        needs("systemctl", "systemd-sysusers", "unshare", "nsenter")
        if os.geteuid() != 0:
            pytest.skip("only root can make the namespaces of a machine")
        self.etc, self.opt = folder / "etc", folder / "opt"
        self.units = self.etc / "systemd" / "system"
        for made in (self.opt, self.units):
            made.mkdir(parents=True)
        for name in _STUBS:
            (self.units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        script = folder / "boot.sh"
        script.write_text(_BOOT, "utf-8")
        self._cgroup = _own_cgroup() / f"chatd-test-{os.getpid()}"
        inside = ("--mount", "--pid", "--cgroup", "--uts", "--ipc", "--mount-proc", "--fork")
        boot = ["unshare", *inside, "--kill-child", "bash", str(script), str(folder)]
        # A group of its own, so that all of it is found again.
        enter = f'echo $$ > {self._cgroup}/cgroup.procs && exec "$@"'
        self.child = Child(["bash", "-c", enter, "bash", *boot], folder / "boot.log")

    def drop_in(self, unit: str, *lines: str) -> None:
        """Further lines of a unit's section [Service], or of [Socket]."""
        folder = self.units / f"{unit}.d"
        folder.mkdir(exist_ok=True)
        section = "Socket" if unit.endswith(".socket") else "Service"
        (folder / "test.conf").write_text("\n".join([f"[{section}]", *lines, ""]), "utf-8")

    def __enter__(self) -> Self:
        try:
            self._cgroup.mkdir()
        except OSError as error:
            pytest.skip(f"no control group can be made here ({error.strerror})")
        self.child.start()
        eventually(self._booted, what="systemd answers")
        return self

    def __exit__(self, *_: object) -> None:
        # The end of its first process is the end of all of them.
        self.child.kill()
        eventually(lambda: _removed(self._cgroup), what="nothing of it is left")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command on that machine."""
        entered = ["nsenter", "--target", self._first(), "--mount", "--pid", "--uts", "--ipc"]
        return subprocess.run(
            [*entered, "--", *command], capture_output=True, text=True, check=False, timeout=300
        )

    def shell(self, script: str, **environ: str) -> str:
        """What a script prints that root runs in the project's folder; each line has to succeed."""
        variables = [f"{name}={value}" for name, value in environ.items()]
        result = self.run("env", f"--chdir={ROOT}", *variables, "bash", "-euc", script)
        assert result.returncode == 0, f"{result.stderr}\n{self.child.output()[-3000:]}"
        return result.stdout

    def systemctl(self, *arguments: str) -> str:
        """What systemctl says; it has to succeed."""
        result = self.run("systemctl", "--no-pager", *arguments)
        assert result.returncode == 0, f"{result.stderr}\n{self.child.output()[-3000:]}"
        return result.stdout

    def shown(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.systemctl("show", "--value", "-p", name, unit).strip()

    def environ(self, unit: str) -> dict[str, str]:
        """The environment of a unit's main process."""
        found = self.run("cat", f"/proc/{self.shown(unit, 'MainPID')}/environ").stdout
        return dict(entry.split("=", 1) for entry in found.split("\0") if entry)

    def _booted(self) -> bool:
        if not self.child.alive:
            # As in a container that may not: it says so at once.
            pytest.skip(f"no machine can be made here: {self.child.output()[-500:]}")
        return bool(self._first()) and self.run("systemctl", "list-units").returncode == 0

    def _first(self) -> str:
        children = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
        return (children.read_text("ascii").split() or [""])[0]


def _own_cgroup() -> Path:
    """The control group (of the second version) that the tests run in."""
    lines = Path("/proc/self/cgroup").read_text("ascii").splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    unified = Path("/sys/fs/cgroup/unified")
    return (unified if unified.is_dir() else unified.parent) / path.lstrip("/")


def _removed(group: Path) -> bool:
    """Whether a control group and all below it are gone: those in which somebody is, stay."""
    for each in sorted(group.glob("**/"), reverse=True):
        with suppress(OSError):
            each.rmdir()
    return not group.exists()
