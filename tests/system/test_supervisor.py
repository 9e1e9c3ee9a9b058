"""What ``chatd up`` does with its children, on small processes that do as told."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from cli.supervisor import Process, Supervisor
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


class Household:
    """A supervisor, what it said, and the diary that its children write."""

    def __init__(self, folder, log, **environ):
        log.set_level(logging.INFO)
        self.log = log
        self.diary = folder / "diary"
        self.diary.touch()
        self.supervisor = Supervisor(grace_s=60, environ={**os.environ, **environ})

    def add(self, name, script, *arguments):
        self.supervisor.add(name, [sys.executable, "-c", script, name, str(self.diary), *arguments])

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
    household.supervisor._grace_s = 0
    household.supervisor.stop()


@pytest.fixture
def signals():
    """The handlers of SIGINT and SIGTERM, put back after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
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
    """The grace period is for all of them together."""
    household.supervisor._grace_s = 0.3
    household.add("stubborn", STUBBORN)
    household.wait_for("stubborn up")
    (process,) = household.supervisor._processes
    household.supervisor.stop()

    assert process.child.returncode == -signal.SIGKILL
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
    assert process.child.returncode == -signal.SIGKILL
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
    process.started_at -= 31.0
    household.watch(lambda: process.pause_s == 0.5)
    process.child.kill()
    household.watch(lambda: bool(household.restarts()))

    assert household.restarts() == ["worker ended with -9, starting it again in 0.5 s"]


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
    assert Process("worker", ["chatd", "worker", "kimi"]).alive is False
