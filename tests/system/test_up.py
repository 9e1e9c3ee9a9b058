"""`chatd up`: everything with one command, restarted when it dies, and nothing left afterwards."""

from __future__ import annotations

import os
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import redis
import requests

from chat.config import load_config
from chat.connection import redis_url
from cli.instance import running_pid
from cli.redis_server import free_port
from tests.servers import Child, await_written, python
from tests.up import Up, processes
from tests.waiting import eventually


@pytest.fixture
def up(tmp_path, upstream):
    up = Up(tmp_path, upstream)
    yield up
    upstream.release()
    up.child.stop(60)
    assert processes(up.config) == {}


def test_one_command_serves_and_ctrl_c_leaves_nothing(up):
    """One line per process and the URL; SIGINT ends every process."""
    answer = up.chat()
    ready = f"ready on {up.url}"
    eventually(lambda: ready in "\n".join(up.said()), what="it says that it is ready")
    said = "\n".join(up.said())
    commands = list(processes(up.config).values())
    up.child.send(signal.SIGINT)
    code = up.child.wait(60)

    assert answer.json()["content"] == "echo: hi"
    assert len(commands) >= 6
    for name in ("redis (", "keeper: pid", "worker ollama: pid", "api: pid"):
        assert name in said
    assert any(command.rstrip().endswith("chatd worker ollama") for command in commands)
    assert code == 0
    assert processes(up.config) == {}


@pytest.mark.parametrize("name", ["keeper", "worker ollama", "api", "redis"])
def test_what_dies_is_started_again(up, name):
    """kill -9 of any of them: soon chats are answered again."""

    def pids():
        pattern = re.compile(rf"{name}.*: pid (\d+)")
        return [int(found[1]) for found in map(pattern.fullmatch, up.said()) if found]

    os.kill(pids()[0], signal.SIGKILL)
    eventually(lambda: len(pids()) == 2, what="it was started a second time")

    def answered():
        try:
            return up.chat().status_code == 200
        except requests.ConnectionError:
            return False

    eventually(answered, within_s=60)

    assert up.child.alive
    assert pids()[1] in processes(up.config)


def test_ctrl_c_lets_running_calls_finish(up, upstream):
    """The answer still arrives; then everything ends."""
    upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(up.chat, "wait for me")
        eventually(lambda: upstream.calls["wait for me"] == 1)
        up.child.send(signal.SIGINT)
        eventually(lambda: "stopping api" in up.child.output())
        upstream.release()
        answer = call.result(60)
    code = up.child.wait(60)

    assert answer.json()["content"] == "echo: wait for me"
    assert code == 0


def test_a_second_ctrl_c_kills(up, upstream):
    """Somebody who cannot wait does not have to."""
    upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(up.chat, "stuck")
        eventually(lambda: upstream.calls["stuck"] == 1)
        up.child.send(signal.SIGINT)
        eventually(lambda: "stopping api" in up.child.output())
        up.child.send(signal.SIGINT)
        up.child.wait(60)
        failure = call.exception(60)

    assert isinstance(failure, requests.RequestException)
    assert processes(up.config) == {}


def test_children_end_when_up_itself_is_killed(up):
    """The kernel tells them; nothing is left behind."""
    up.child.kill()

    eventually(lambda: processes(up.config) == {}, within_s=60)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        pytest.param('ollama_url = ""', "no provider is registered", id="no-provider"),
        pytest.param('data_dir = "/proc/nope"', "set [chatd] data_dir", id="no-folder"),
        pytest.param("", "cannot be listened on", id="port-taken"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(tmp_path, settings, says):
    """And nothing is started."""
    with socket.socket() as taken:
        port = free_port()
        if not settings:
            taken.bind(("127.0.0.1", port))
            taken.listen()
        config = tmp_path / "lakehouse.toml"
        data_dir = "" if "data_dir" in settings else f'data_dir = "{tmp_path / "data"}"\n'
        bind = f'bind = "127.0.0.1:{port}"\n'
        config.write_text(f"[chatd]\n{bind}{data_dir}{settings}\n", "utf-8")
        environ = {"LAKEHOUSE_CONFIG": str(config)}
        child = Child(python("-m", "cli", "up"), tmp_path / "up.log", environ).start()
        code = child.wait(60)

    assert code == 1
    assert says in child.output()
    assert len(child.output().splitlines()) == 1


def test_a_restart_that_is_asked_for_during_the_start_ends_nothing(tmp_path):
    """Here it waits for its port; SIGHUP comes as soon as anybody can know the process id."""
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        config = tmp_path / "lakehouse.toml"
        config.write_text(f'[chatd]\nbind = "127.0.0.1:{port}"\ndata_dir = "{tmp_path}"\n', "utf-8")
        environ = {"LAKEHOUSE_CONFIG": str(config)}
        child = Child(python("-m", "cli", "up"), tmp_path / "up.log", environ).start()
        eventually(lambda: running_pid(tmp_path) == child.pid, what="its process id is known")
        child.send(signal.SIGHUP)
        code = child.wait(60)

    assert code == 1
    assert "cannot be listened on" in child.output()


def test_a_redis_that_does_not_answer_is_named(tmp_path):
    """Instead of silence; it may come up later."""
    port, redis_port = free_port(), free_port()
    config = tmp_path / "lakehouse.toml"
    config.write_text(
        f'[chatd]\nbind = "127.0.0.1:{port}"\nredis_url = "redis://127.0.0.1:{redis_port}/0"\n'
        f'data_dir = "{tmp_path / "data"}"\n',
        "utf-8",
    )
    environ = {"LAKEHOUSE_CONFIG": str(config)}
    child = Child(python("-m", "cli", "up"), tmp_path / "up.log", environ).start()
    eventually(lambda: "waiting for Redis" in child.output())
    child.stop(30)

    assert str(redis_port) in child.output()


def test_two_cannot_share_a_folder(tmp_path, up):
    """A second Redis on the same files would ruin them."""
    config = tmp_path / "second.toml"
    text = up.config.read_text("utf-8").replace(str(up.port), str(free_port()))
    config.write_text(text, "utf-8")
    environ = {"LAKEHOUSE_CONFIG": str(config), "PATH": "/usr/bin:/bin"}
    second = Child(python("-m", "cli", "up"), tmp_path / "second.log", environ).start()

    assert second.wait(60) == 1
    assert "another `chatd up` runs in" in second.output()
    assert up.chat().status_code == 200


def test_what_was_queued_survives_a_restart_of_everything(tmp_path, upstream):
    """The embedded Redis keeps its files, its address and its password."""
    first = Up(tmp_path, upstream)
    upstream.hold()
    body: Any = {"model": "echo", "messages": [{"role": "user", "content": "tomorrow"}]}
    ids = [
        requests.post(f"{first.url}/v1/jobs", json=body, timeout=30).json()["id"] for _ in range(12)
    ]
    with redis.Redis.from_url(redis_url(load_config(first.config))) as client:
        await_written(client)
    first.child.kill()
    for pid in processes(first.config):
        with suppress(ProcessLookupError):  # It has ended with its parent.
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: processes(first.config) == {}, within_s=60)
    upstream.release()
    first.child.log.unlink()
    second = Up(tmp_path, upstream)
    try:
        states = []
        for job_id in ids:
            record = requests.get(f"{second.url}/v1/jobs/{job_id}?wait=60", timeout=90).json()
            assert "state" in record, (record, second.child.output()[-3000:])
            states.append(record["state"])
    finally:
        second.child.stop(60)

    assert states == ["succeeded"] * 12
