"""What ``chatd up`` does with its children, on small processes that do as told."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from cli.child import Part
from cli.supervisor import Process, Supervisor
from tests.servers import python
from tests.waiting import eventually

#: Writes down when it is told to stop and, a little later, that it has stopped.
TIDY = """
import signal, sys, threading
name, diary = sys.argv[1:]
told = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
def write(line):
    with open(diary, "a") as file:
        file.write(f"{name} {line}\\n")
write("up")
told.wait()
write("told")
threading.Event().wait(0.2)
write("gone")
"""

#: Does not stop when it is told to; says so to its parent when there is a third argument.
STUBBORN = """
import os, signal, sys, threading
name, diary, *impatient = sys.argv[1:]
def refuse(*_):
    if impatient:
        os.kill(os.getppid(), signal.SIGTERM)
signal.signal(signal.SIGTERM, refuse)
open(diary, "a").write(f"{name} up\\n")
while True:
    threading.Event().wait(60)
"""

#: Leaves a process of its own behind, and ends at once or when it is told to.
PARENT = """
import subprocess, sys, threading
name, diary, *stays = sys.argv[1:]
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
open(diary, "a").write(f"{name} left {child.pid}\\n")
if stays:
    threading.Event().wait()
"""

#: Says that it is ready when there is a file to wait for, then does as ``TIDY``.
READY = """
import os, signal, sys, threading
name, diary, gate = sys.argv[1:]
told = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
while not os.path.exists(gate):
    threading.Event().wait(0.02)
os.write(int(os.environ["CHATD_READY_FD"]), b"\\n")
told.wait()
open(diary, "a").write(f"{name} gone\\n")
"""

#: A supervisor without children; writes down what it is told.
WATCHER = """
import sys
from cli.supervisor import Supervisor
diary = open(sys.argv[1], "a", buffering=1)
supervisor = Supervisor(environ={})
supervisor.follow_signals()
print("up", file=diary)
while supervisor.watch(supervisor.restart_asked):
    print("asked", file=diary)
print("drained", file=diary)
"""


class Household:
    """A supervisor, what it said, and the diary that its children write."""

    def __init__(self, folder, log, **environ):
        log.set_level(logging.INFO)
        self.log = log
        self.diary = folder / "diary"
        self.diary.touch()
        self.supervisor = Supervisor(environ={**os.environ, **environ})

    def part(self, name, script, *arguments, grace_s=60, kind=""):
        command = [sys.executable, "-c", script, name, str(self.diary), *arguments]
        return Part(name=name, command=command, grace_s=grace_s, kind=kind)

    def add(self, name, script, *arguments, **fields):
        self.supervisor.add(self.part(name, script, *arguments, **fields))

    @property
    def said(self):
        return [each.getMessage() for each in self.log.records if each.name == "cli.supervisor"]

    def lines(self):
        return self.diary.read_text("utf-8").splitlines()

    def watch(self, condition):
        """Let the supervisor watch until ``condition`` holds."""
        until = time.monotonic() + 30
        reached = self.supervisor.watch(lambda: condition() or time.monotonic() > until)

        assert condition(), self.said
        return reached

    def wait_for(self, *lines):
        eventually(lambda: set(lines) <= set(self.lines()), what=f"{lines} are written")

    def left_behind(self):
        """The processes that children of ``PARENT`` have started."""
        return [int(line.split()[-1]) for line in self.lines() if " left " in line]

    def restarts(self):
        return [line for line in self.said if "starting it again" in line]


@pytest.fixture
def household(tmp_path, caplog):
    household = Household(tmp_path, caplog)
    yield household
    household.supervisor._signals = 2
    household.supervisor.stop()


@pytest.fixture
def signals():
    """The handlers of the signals that are followed, put back after the test."""
    followed = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in followed}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ended(pid):
    """Whether a process is gone, or nothing but its exit code is left."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b""
    except FileNotFoundError:
        return True


def test_children_stop_in_the_opposite_order_one_by_one(household):
    """The front end goes first, while the workers still answer what it waits for."""
    for name in ("redis", "worker", "api"):
        household.add(name, TIDY)
        household.wait_for(f"{name} up")
    household.supervisor.stop()

    assert household.lines()[3:] == [
        "api told",
        "api gone",
        "worker told",
        "worker gone",
        "redis told",
        "redis gone",
    ]
    assert [re.sub(r"\d+", "N", line) for line in household.said[3:]] == [
        f"stopping {name} (pid N)" for name in ("api", "worker", "redis")
    ]


def test_who_does_not_stop_in_time_is_killed(household):
    """Each part has a grace period of its own."""
    household.add("stubborn", STUBBORN, grace_s=0.3)
    household.wait_for("stubborn up")
    (process,) = household.supervisor._processes
    household.supervisor.stop()

    assert process.child.exit_code == -signal.SIGKILL
    assert household.said[-1] == f"killing stubborn (pid {process.child.pid})"


@pytest.mark.usefixtures("signals")
def test_the_first_signal_drains_and_the_second_kills(household):
    """Here the child itself sends the second one, to show that a minute's grace is cut short."""
    household.supervisor.follow_signals()
    household.add("stubborn", STUBBORN, "impatient")
    household.wait_for("stubborn up")
    (process,) = household.supervisor._processes
    signal.raise_signal(signal.SIGINT)
    watched = household.supervisor.watch(lambda: False)
    alive = process.alive
    began = time.monotonic()
    household.supervisor.stop()

    assert watched is False
    assert alive
    assert process.child.exit_code == -signal.SIGKILL
    assert time.monotonic() - began < 30


def test_what_dies_is_started_again_after_a_pause_that_doubles(household):
    """Something that cannot start does not keep the machine busy."""
    household.add("broken", "raise SystemExit(3)")
    reached = household.watch(lambda: len(household.restarts()) == 3)

    assert reached
    assert household.restarts() == [
        f"broken ended with 3, starting it again in {seconds} s" for seconds in (0.5, 1.0, 2.0)
    ]
    assert sum(line.startswith("broken: pid") for line in household.said) == 3


def test_the_pause_has_a_limit(household):
    """After a long outage a process comes back within a quarter of a minute."""
    household.add("broken", "raise SystemExit(3)")
    (process,) = household.supervisor._processes
    process.pause_s = 12.0
    for _ in range(2):
        household.watch(lambda: process.child is None)
        process.restart_at = 0.0
        household.watch(lambda: process.child is not None)
    household.watch(lambda: len(household.restarts()) == 3)

    assert [line.rsplit(" ", 2)[1] for line in household.restarts()] == ["12.0", "15.0", "15.0"]


def test_who_lived_long_enough_is_started_again_quickly(household):
    """The pause is for what keeps failing, not for the second accident of a day."""
    household.add("worker", TIDY)
    household.wait_for("worker up")
    (process,) = household.supervisor._processes
    process.pause_s = 8.0
    process.child.started_at -= 31.0
    household.watch(lambda: process.pause_s == 0.5)
    process.child.kill()
    household.watch(lambda: bool(household.restarts()))

    assert household.restarts() == ["worker ended with -9, starting it again in 0.5 s"]


def test_what_cannot_be_started_again_is_tried_again_after_a_pause(household, tmp_path):
    """An upgrade has taken its program away for a while, or the machine has no process left."""
    program = tmp_path / "program"
    program.symlink_to("/bin/true")
    part = Part(name="worker", command=[str(program)], grace_s=60)
    household.supervisor.add(part)
    program.unlink()

    def failures():
        return [line for line in household.said if "cannot be started" in line]

    reached = household.watch(lambda: len(failures()) == 2)
    program.symlink_to("/bin/true")
    household.watch(lambda: len(household.restarts()) == 2)

    assert reached
    assert [line.rsplit(" ", 2)[1] for line in failures()] == ["1.0", "2.0"]
    assert str(program) in failures()[0]


def test_what_a_dead_child_leaves_is_cleared_before_it_starts_again(household):
    """A front end's own processes would keep the port."""
    household.add("api", PARENT)
    household.watch(lambda: len(household.left_behind()) == 2)
    first = household.left_behind()[0]

    eventually(lambda: ended(first), what="the leftover has ended")
    household.supervisor.stop()
    eventually(lambda: all(map(ended, household.left_behind())), what="the other one as well")


@pytest.mark.parametrize("how", ["stopped", "died unseen"])
def test_nothing_is_left_after_the_stop(household, how):
    """Whether the child ended because it was told to, or just before."""
    household.add("api", PARENT, *(["stays"] if how == "stopped" else []))
    eventually(household.left_behind)
    (process,) = household.supervisor._processes
    if how == "died unseen":
        process.child.wait(30)
    household.supervisor.stop()

    (pid,) = household.left_behind()
    eventually(lambda: ended(pid), what="the leftover has ended")


def test_a_child_is_out_of_reach_of_the_terminals_ctrl_c(household):
    """It leads a session and a group of its own; the supervisor alone decides the order."""
    household.add("worker", TIDY)
    (process,) = household.supervisor._processes

    assert os.getsid(process.child.pid) == os.getpgid(process.child.pid) == process.child.pid
    household.supervisor.stop()


def test_children_get_the_environment_they_are_given(tmp_path, caplog):
    """Above all the configuration file."""
    household = Household(tmp_path, caplog, LAKEHOUSE_CONFIG="/some/where.toml")
    household.add(
        "child",
        "import os, sys; open(sys.argv[2], 'a').write(os.environ['LAKEHOUSE_CONFIG'] + '\\n')",
    )
    household.wait_for("/some/where.toml")
    household.supervisor.stop()


def test_watching_ends_with_its_condition(household):
    """And says which of the two it was."""
    household.add("worker", TIDY)
    reached = household.watch(lambda: "worker up" in household.lines())
    household.supervisor.stop()

    assert reached is True
    assert household.supervisor.watch(lambda: False) is False


def test_a_process_that_was_never_started_is_not_alive():
    """It has no exit code either."""
    part = Part(name="worker", command=["chatd", "worker", "kimi"], grace_s=1)

    assert Process(part).alive is False


def test_parts_of_one_kind_stop_side_by_side(household):
    """Otherwise the second worker would go on taking jobs while the first one finishes."""
    for name, kind in (("one", "worker"), ("two", "worker"), ("api", "api")):
        household.add(name, TIDY, kind=kind)
        household.wait_for(f"{name} up")
    household.supervisor.stop()
    after = household.lines()[3:]

    assert after[:2] == ["api told", "api gone"]
    assert sorted(after[2:4]) == ["one told", "two told"]


class TestSuccessors:
    """A part that is replaced by another process of itself."""

    @pytest.fixture
    def gate(self, tmp_path):
        """While there is no such file, no successor is ready."""
        return tmp_path / "gate"

    @pytest.fixture
    def part(self, household, gate):
        """A part that runs, and becomes what the test needs when it is replaced."""

        def part(name="worker", script=READY, **fields):
            return household.part(name, script, str(gate), **fields)

        household.supervisor.add(part())
        return part

    @staticmethod
    def is_ready(household, successor):
        household.watch(lambda: successor.ready)

    def test_it_takes_over_when_it_is_ready(self, household, gate, part):
        """Then the one before ends, and the supervisor looks after the new one."""
        supervisor = household.supervisor
        (process,) = supervisor._processes
        before = process.child
        successor = supervisor.begin_successor(part())
        alive = successor.ready, before.alive
        gate.touch()
        self.is_ready(household, successor)
        supervisor.promote("worker")
        leaving = supervisor.leaving()
        household.watch(lambda: not supervisor.leaving())

        assert alive == (False, True)
        assert leaving == [before]
        assert before.exit_code == 0
        assert (process.child, process.successor) == (successor, None)
        process.child.kill()
        household.watch(lambda: len(household.restarts()) == 1)

    def test_one_that_ends_leaves_the_one_before(self, household, part):
        """It says so by an exit code, and never that it is ready."""
        supervisor = household.supervisor
        (process,) = supervisor._processes
        successor = supervisor.begin_successor(part(script="raise SystemExit(3)"))
        household.watch(lambda: successor.exit_code is not None)
        ready = successor.ready
        supervisor.abandon("worker")

        assert (ready, successor.exit_code) == (False, 3)
        assert process.alive
        assert process.successor is None
        assert household.restarts() == []

    def test_it_takes_over_from_one_that_has_died_meanwhile(self, household, gate, part):
        """Which is not started again beside it."""
        supervisor = household.supervisor
        (process,) = supervisor._processes
        successor = supervisor.begin_successor(part())
        process.child.kill()
        gate.touch()
        self.is_ready(household, successor)
        supervisor.promote("worker")
        household.watch(lambda: not supervisor.leaving())

        assert process.child is successor
        assert household.restarts() == []

    def test_the_one_before_is_killed_after_its_grace_period(self, household, gate, part):
        """Meanwhile the others are looked after."""
        supervisor = household.supervisor
        supervisor.add(household.part("stubborn", STUBBORN, grace_s=0.3))
        household.wait_for("stubborn up")
        old = supervisor._processes[-1].child
        successor = supervisor.begin_successor(part("stubborn"))
        gate.touch()
        self.is_ready(household, successor)
        supervisor.promote("stubborn")
        household.watch(lambda: not supervisor.leaving())

        assert old.exit_code == -signal.SIGKILL
        assert f"killing stubborn (pid {old.pid})" in household.said

    def test_a_new_part_is_added_beside_its_like(self, household, gate, part):
        """So that it is stopped with them; when it cannot start, nothing is left of it."""
        supervisor = household.supervisor
        supervisor.add(household.part("api", TIDY))
        broken = household.part("worker 2", "raise SystemExit(3)", kind="worker")
        supervisor._processes[0].part = part(kind="worker")
        supervisor.begin_successor(broken)
        during = [each.name for each in supervisor.parts()]
        household.watch(lambda: supervisor._processes[1].successor.exit_code is not None)
        supervisor.abandon("worker 2")
        after = [each.name for each in supervisor.parts()]
        gate.touch()
        successor = supervisor.begin_successor(part("worker 2", kind="worker"))
        self.is_ready(household, successor)
        supervisor.promote("worker 2")

        assert (during, after) == (["worker", "worker 2", "api"], ["worker", "api"])
        assert [each.name for each in supervisor.parts()] == ["worker", "worker 2", "api"]
        assert household.restarts() == []

    @pytest.mark.usefixtures("part")
    def test_of_a_new_part_that_cannot_be_started_nothing_is_left(self, household):
        """The others are looked after as before."""
        supervisor = household.supervisor
        missing = Part(name="worker 2", command=["/nowhere/chatd"], grace_s=1)
        with pytest.raises(FileNotFoundError):
            supervisor.begin_successor(missing)
        supervisor.abandon("worker 2")
        supervisor._processes[0].child.kill()
        household.watch(lambda: len(household.restarts()) == 1)

        assert [each.name for each in supervisor.parts()] == ["worker"]

    def test_a_part_without_a_place_ends_for_good(self, household, gate, part):
        """It is not started again."""
        supervisor = household.supervisor
        gate.touch()
        supervisor.add(part("worker 2"))
        supervisor.retire("worker 2")
        household.watch(lambda: not supervisor.leaving() and len(supervisor._processes) == 1)

        assert [each.name for each in supervisor.parts()] == ["worker"]
        assert household.restarts() == []

    def test_a_stop_ends_both(self, household, gate, part):
        """And those that were leaving already."""
        supervisor = household.supervisor
        gate.touch()
        successor = supervisor.begin_successor(part())
        self.is_ready(household, successor)
        supervisor.promote("worker")
        children = [*supervisor.leaving(), successor, supervisor.begin_successor(part())]
        supervisor.stop()

        assert all(child.exit_code is not None for child in children)


@pytest.mark.usefixtures("signals")
class TestHangUp:
    """SIGHUP is a wish for a restart, unless a terminal was closed."""

    def test_it_asks_for_a_restart(self, household):
        """Once, and ends nothing."""
        household.supervisor.follow_signals()
        signal.raise_signal(signal.SIGHUP)

        assert household.supervisor.restart_asked() is True
        assert household.supervisor.restart_asked() is False
        assert not household.supervisor.stopping.is_set()

    @pytest.mark.parametrize("ignored", [False, True], ids=["as usual", "nohup"])
    def test_a_closed_terminal_drains(self, household, monkeypatch, ignored):
        """As it always has; unless the process was started to outlive it."""
        monkeypatch.setattr(household.supervisor._terminal, "just_closed", lambda: True)
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        household.supervisor.follow_signals()
        signal.raise_signal(signal.SIGHUP)

        assert household.supervisor.stopping.is_set() is not ignored
        assert household.supervisor.restart_asked() is False

    def test_the_kernels_own_signal_is_told_from_a_wish(self, tmp_path):
        """A process in a terminal of its own: first somebody asks it, then the terminal goes."""
        diary = tmp_path / "diary"
        ours, theirs = pty.openpty()
        child = subprocess.Popen(
            python("-c", WATCHER, str(diary)),
            stdin=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY),  # noqa: PLW1509 - a test
        )
        os.close(theirs)
        eventually(lambda: diary.exists() and "up" in diary.read_text("utf-8"))
        child.send_signal(signal.SIGHUP)
        eventually(lambda: "asked" in diary.read_text("utf-8"))
        os.close(ours)
        child.wait(30)

        assert diary.read_text("utf-8").split() == ["up", "asked", "drained"]
