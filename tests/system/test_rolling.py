"""`chatd restart`: every process is replaced, and nobody who calls meanwhile can tell."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from bench.rolling import Run, scene_of_hand_over
from bench.scenes.callers import Callers, Way
from bench.scenes.scene import Report
from cli.instance import restarts_of
from tests.servers import ROOT, python
from tests.up import Up, processes
from tests.waiting import eventually

SETTINGS = "models_refresh_s = 0\ndrain_s = 30"
TAIL = "[chatd.providers.ollama]\nworkers = 2\n"


@pytest.fixture
def up(tmp_path, upstream):
    up = Up(tmp_path, upstream, settings=SETTINGS, tail=TAIL)
    # `chatd up` is ready with one worker of each provider; the second may still be reading its
    # configuration, which some tests change.
    eventually(lambda: up.child.output().count(' ready."}') == 2)
    yield up
    upstream.release()
    up.child.stop(60)
    assert processes(up.config) == {}


def restart(up):
    """`chatd restart`: its exit code, and what it says."""
    done = subprocess.run(
        python("-m", "cli", "--config", str(up.config), "restart"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return done.returncode, done.stdout + done.stderr


def change(up, before, after):
    """Edit its configuration."""
    text = up.config.read_text("utf-8")
    assert before in text
    up.config.write_text(text.replace(before, after), "utf-8")


def test_a_restart_under_load_harms_nobody(up, upstream):
    """Every answer is right, each question was asked upstream once, and all but Redis is new."""
    upstream.delay_s = 0.1
    before = up.pids()
    with Callers(up.url, 20, {Way.KEPT: 2, Way.FRESH: 1, Way.JOB: 1}) as callers:
        code, said = restart(up)
    after = up.pids()

    assert (code, said.splitlines()[-1]) == (0, "restarted")
    assert {call.said for call in callers.calls} == {"answered"}
    assert set(upstream.calls.values()) == {1}
    assert len(upstream.calls) == len(callers.calls) > 20
    assert [name for name in before if before[name] == after[name]] == [
        name for name in before if name.startswith("redis")
    ]
    assert set(after) == set(before)
    assert set(before.values()) & set(processes(up.config)) == {
        pid for name, pid in before.items() if name.startswith("redis")
    }


def test_callers_wait_while_the_front_end_is_started_anew(up):
    """Also after it was killed: the port belongs to `chatd up`, and refuses nobody."""
    pid = up.pids()["api"]
    os.killpg(pid, signal.SIGKILL)
    with socket.create_connection(("127.0.0.1", up.port), timeout=5):
        answer = up.chat("after the kill")

    assert answer.json()["content"] == "echo: after the kill"
    assert up.pids()["api"] != pid


def test_a_caller_of_the_old_front_end_gets_its_answer(up, upstream):
    """It waits on, while the new one serves others."""
    upstream.hold()
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(up.chat, "patience")
        eventually(lambda: upstream.calls["patience"] == 1)
        done = pool.submit(restart, up)
        eventually(lambda: "stopping api" in "\n".join(up.said()), within_s=60)
        status = requests.get(f"{up.url}/health", timeout=30).status_code
        doing = eventually(
            lambda: "waiting for" in restarts_of(up.config.parent / "data").doing, within_s=30
        )
        upstream.release()
        answer = call.result(60)
        code, said = done.result(60)

    assert status == 200
    assert doing
    assert answer.json()["content"] == "echo: patience"
    assert (code, upstream.calls["patience"]) == (0, 1)
    assert "waiting for what" in said


def test_the_calls_of_a_successor_that_dies_are_given_up_at_once(up, upstream):
    """What is started in its place has another name, and waits for no lease to run out."""
    change(up, "workers = 2", "workers = 1")
    restart(up)
    upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(up.chat, "lost")
        eventually(lambda: upstream.calls["lost"] == 1)
        os.kill(up.pids()["worker ollama"], signal.SIGKILL)
        answer = call.result(25)

    assert answer.json()["error"]["code"] == "outcome_unknown"


def test_a_broken_configuration_touches_nothing(up):
    """Whoever sends the signal by hand finds it in the log; the command does not even send it."""
    before = up.pids()
    change(up, "[chatd]", "[chatd]\nworkres = 5")
    code, said = restart(up)
    up.child.send(signal.SIGHUP)
    eventually(lambda: any("nothing was restarted" in line for line in up.said()))

    assert code != 0
    assert "workres" in said
    assert "workres" in up.said()[-1]
    assert up.pids() == before
    assert up.chat().status_code == 200


def test_what_only_a_new_start_can_change_is_refused(up):
    """All processes meet at the address, the folder and Redis."""
    before = up.pids()
    change(up, f":{up.port}", ":3220")
    code, said = restart(up)

    assert code == 1
    assert "bind was changed" in said
    assert up.pids() == before


def test_a_successor_that_cannot_start_leaves_the_one_before(up):
    """The command says so, and calls are answered as before."""
    before = up.pids()
    lock = up.config.parent / "data" / "workers"
    lock.rename(lock.with_name("away"))
    lock.touch()
    code, said = restart(up)
    lock.unlink()
    lock.with_name("away").rename(lock)
    alive = processes(up.config)

    assert code == 1
    assert "the new worker ollama ended with 1" in said
    assert before["worker ollama"] in alive
    assert before["worker ollama 2"] in alive
    assert up.chat().status_code == 200


def test_a_changed_configuration_is_taken_over(up):
    """Here one worker less, and a limit of the front end."""
    change(up, "workers = 2", "workers = 1")
    change(up, "drain_s = 30", 'drain_s = 30\nbody_limit = "1KiB"')
    code, _ = restart(up)
    answer = up.chat("x" * 2000)
    commands = list(processes(up.config).values())

    assert code == 0
    assert answer.status_code == 413
    assert sum(command.rstrip().endswith("worker ollama") for command in commands) == 1
    assert up.chat().status_code == 200


def test_callers_whose_calls_take_too_long_are_handed_their_jobs():
    """The bench's own scene, with every rule that it checks."""
    report = Report()
    scene_of_hand_over(Run(), report)

    assert report.broken == []
