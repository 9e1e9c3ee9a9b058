"""The units of systemd: what its own checks say of them, and their commands as processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest
import requests

from tests.servers import ROOT, Child
from tests.stack import Stack
from tests.units import CHATD, SERVICES, UNITS, Unit, needs
from tests.waiting import eventually

#: 10 times the exposure that is allowed to a service; the page says it too.
MOST_EXPOSED = 20
#: As systemd does it: the socket is the third descriptor, and meant for this very process.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-m", "cli", *sys.argv[2:]])
"""


@pytest.fixture
def installed(tmp_path):
    """The files of a system that has the units, and commands where they look for them."""
    needs("systemd-analyze")
    folder = tmp_path / "etc" / "systemd" / "system"
    folder.mkdir(parents=True)
    for unit in UNITS.glob("chatd*"):
        shutil.copy(unit, folder)
    for command in (CHATD, "/usr/bin/redis-server"):
        file = tmp_path / command.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o755)
    shutil.copytree("/lib/systemd/system", tmp_path / "lib" / "systemd" / "system", symlinks=True)
    return tmp_path


def test_systemd_has_nothing_to_say_about_the_units(installed):
    """No unknown key, no command that is missing, no loop in the order of starting."""
    units = sorted(path.name for path in UNITS.glob("chatd*"))
    verify = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={installed}", *units],
        capture_output=True,
        text=True,
        check=False,
    )

    assert len(units) == 6
    assert (verify.returncode, verify.stdout, verify.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", [*SERVICES, "chatd-redis.service"])
def test_no_service_is_exposed(unit):
    """systemd's own measure; an unprotected service has 9.6."""
    needs("systemd-analyze")
    measure = ["systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSED}"]
    checked = subprocess.run(
        [*measure, str(UNITS / unit)], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stdout
    assert f"--threshold={MOST_EXPOSED} " in (UNITS / "README.md").read_text("utf-8")


class Systemd:
    """As much of it as a process meets: a socket for its word, and one to accept on."""

    def __init__(self, stack, folder):
        self.stack, self.etc = stack, folder / "etc"
        (self.etc / "lakehouse").mkdir(parents=True)
        (self.etc / "lakehouse" / "lakehouse.toml").symlink_to(stack.config_file)
        self.words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # One of the kernel's, since a path may be longer than a socket's name can be.
        self.address = f"@chatd-test-{os.getpid()}"
        self.words.bind(self.address.replace("@", "\0", 1))
        self.words.settimeout(0)
        self.listener = socket.create_server(("127.0.0.1", stack.port), backlog=100)

    def close(self):
        self.words.close()
        self.listener.close()

    @contextmanager
    def runs(self, unit, log):
        """A unit's process, from its word that it is ready until it has ended in time."""
        arguments, listener = unit.arguments(), self.listener.fileno()
        command = [sys.executable, "-m", "cli", *arguments]
        if arguments == ["api"]:
            command = [sys.executable, "-c", ACTIVATE, str(listener), *arguments]
        keys = dict.fromkeys(self.stack.environ, "")
        environ = {**os.environ, **keys, **unit.environment(self.etc)}
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**environ, "NOTIFY_SOCKET": self.address},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(listener,) if arguments == ["api"] else (),
            )
        child = Child(command, log, process=process)
        try:
            assert eventually(lambda: self.heard(child), within_s=90, what="READY=1") == b"READY=1"
            yield child
            process.terminate()
            assert process.wait(int(unit.one("TimeoutStopSec"))) == 0
        finally:
            child.kill()

    def heard(self, child):
        assert child.alive, child.output()
        try:
            return self.words.recv(100)
        except BlockingIOError:
            return b""


@pytest.fixture
def stack(redis_server, upstream, tmp_path):
    """A configuration; its processes are started by the test."""
    providers = {"ollama": upstream.url, "kimi": f"{upstream.url}/v1"}
    stack = Stack(tmp_path / "stack", providers, redis=redis_server, tail="enabled = true")
    yield stack
    stack.http.close()


@pytest.fixture
def systemd(stack, tmp_path):
    systemd = Systemd(stack, tmp_path)
    yield systemd
    systemd.close()


def test_each_process_says_that_it_is_ready_works_and_ends(systemd, stack, tmp_path):
    """The commands of the units with their environment; the key comes from the worker's file."""
    (systemd.etc / "lakehouse" / "kimi-3.env").write_text("KIMI_API_KEY=sk-1\n")
    api, keeper, worker = (Unit(name, "kimi-3") for name in SERVICES)
    with (
        systemd.runs(keeper, tmp_path / "keeper.log"),
        systemd.runs(worker, tmp_path / "worker.log"),
        systemd.runs(api, tmp_path / "api.log"),
    ):
        # It accepts at once when it has said so.
        answer = stack.chat("hi", "kimi/m")
        record = stack.record(answer.headers["X-Chatd-Job-Id"])
        worker_name = record["attempts"][0]["worker"]

    assert answer.status_code == 200
    assert worker_name == f"kimi-3@{socket.gethostname()}"


def test_a_caller_waits_at_the_port_while_the_front_end_is_started_anew(systemd, stack, tmp_path):
    """The socket is systemd's, and open before and after each life of the front end."""
    api = Unit("chatd-api.service")
    with systemd.runs(api, tmp_path / "api.log"):
        before = requests.get(f"{stack.url}/health", timeout=30)
    early = socket.create_connection(("127.0.0.1", stack.port), timeout=30)
    early.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    with early, systemd.runs(api, tmp_path / "api.log"):
        after = early.recv(100)

    assert before.status_code == 200
    assert after.startswith(b"HTTP/1.1 200 ")


def test_a_socket_of_another_address_ends_the_front_end(systemd, stack, tmp_path):
    """With one line that says what to write."""
    text = stack.config_file.read_text().replace(f"127.0.0.1:{stack.port}", "127.0.0.1:1234")
    stack.config_file.write_text(text)
    with (
        pytest.raises(AssertionError, match=rf"open at 127\.0\.0\.1 port {stack.port}, and"),
        systemd.runs(Unit("chatd-api.service"), tmp_path / "api.log"),
    ):
        pass
