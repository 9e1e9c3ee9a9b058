"""chatd under a real systemd, with the units of ``deploy/systemd`` as they stand."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from bench.upstream import Upstream
from cli.redis_server import find_binary, free_port
from tests.servers import ROOT
from tests.systemd import UNITS, Machine
from tests.waiting import eventually

KEYS = {"openrouter": "OPENROUTER_API_KEY", "kimi": "KIMI_API_KEY"}
WORKERS = [f"chatd-worker-{name}@1.service" for name in ("ollama", *KEYS)]
SERVICES = ["chatd-redis.service", "chatd-keeper.service", *WORKERS, "chatd-api.service"]
CONFIG = """
[chatd]
bind = "127.0.0.1:{port}"
redis_url = "unix:///run/chatd-redis/redis.sock"
data_dir = "/var/lib/chatd"
ollama_url = "{upstream}"
models_refresh_s = 0
[chatd.providers.openrouter]
enabled = true
base_url = "{upstream}/v1"
[chatd.providers.kimi]
enabled = true
base_url = "{upstream}/v1"
"""

#: What pip makes of the project's script, for the code of this folder.
COMMAND = f"""
import sys
sys.path.insert(0, "{ROOT}")
from cli.main import main
main(prog_name="chatd")
"""


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream().start()
    yield upstream
    upstream.release()
    upstream.stop()


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def booted(upstream, port, tmp_path_factory):
    """Installed as the operator's page has it, and everything started."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    lakehouse = machine.etc / "lakehouse"
    lakehouse.mkdir()
    (lakehouse / "lakehouse.toml").write_text(CONFIG.format(port=port, upstream=upstream.url))
    shutil.copy(UNITS / "redis.conf", lakehouse)
    for provider in ("ollama", *KEYS):
        file = lakehouse / f"{provider}.env"
        file.touch(mode=0o600)
        if provider in KEYS:
            file.write_text(f"# A key.\n{KEYS[provider]}=key-of-{provider}\n")
        shutil.copy(
            UNITS / "chatd-worker@.service", machine.units / f"chatd-worker-{provider}@.service"
        )
    for path in UNITS.glob("chatd*"):
        if "@" not in path.name:
            shutil.copy(path, machine.units)
    (machine.etc / "sysusers.d").mkdir()
    shutil.copy(UNITS / "sysusers.conf", machine.etc / "sysusers.d" / "chatd.conf")
    command = machine.opt / "chatd" / "bin" / "chatd"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!{sys.executable}\n{COMMAND}", "utf-8")
    command.chmod(0o755)
    enabled = ["chatd.target", "chatd-api.socket", *SERVICES]
    subprocess.run(
        ["systemctl", f"--root={machine.etc.parent}", "enable", *enabled],
        check=True,
        capture_output=True,
    )
    adapt(machine, port)
    with machine:
        yield machine


def adapt(machine, port):
    """What differs from an installed machine: Python and chatd lie elsewhere, the port is free."""
    # They may be in somebody's home or among temporary files, where the units see nothing.
    places = [f"BindReadOnlyPaths={path}" for path in (ROOT, sys.prefix, sys.base_prefix)]
    for unit in SERVICES:
        log = f"StandardOutput=append:/var/log/{unit}.log"
        machine.drop_in(unit, "ProtectHome=tmpfs", *places, log)
    redis = f"ExecStart={find_binary()} /etc/lakehouse/redis.conf"
    machine.drop_in("chatd-redis.service", "ProtectHome=tmpfs", *places, "ExecStart=", redis)
    machine.drop_in("chatd-api.socket", "ListenStream=", f"ListenStream=127.0.0.1:{port}")


@pytest.fixture
def machine(booted, upstream, port):
    eventually(lambda: ready(port), within_s=90, what="chatd is ready")
    upstream.calls.clear()
    yield booted
    upstream.release()


def ready(port):
    try:
        return requests.get(f"http://127.0.0.1:{port}/ready", timeout=5).ok
    except requests.RequestException:
        return False


def chat(port, model="echo", question="hi"):
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    return requests.post(f"http://127.0.0.1:{port}/v1/chat", json=body, timeout=120)


def test_everything_starts_and_answers(machine, port):
    """Each provider's worker is there, and each unit said itself that it is ready."""
    states = {unit: machine.shown(unit, "ActiveState") for unit in SERVICES}
    answers = [chat(port, model) for model in ("echo", "openrouter/v/m", "kimi/m")]

    assert set(states.values()) == {"active"}
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert answers[1].json()["provider"] == "openrouter"


def test_each_process_has_the_key_of_its_provider_and_no_other(machine):
    """Neither in its environment, nor in a file that it can read."""
    # Redis, the first one, writes its title over its environment.
    has = {unit: sorted(set(machine.environ(unit)) & set(KEYS.values())) for unit in SERVICES[1:]}
    files = [f"/etc/lakehouse/{provider}.env" for provider in KEYS]
    looked = machine.run(
        "setpriv", "--reuid=chatd", "--regid=chatd", "--init-groups", "cat", *files
    )

    assert {unit: names for unit, names in has.items() if names} == {
        f"chatd-worker-{provider}@1.service": [name] for provider, name in KEYS.items()
    }
    assert looked.stdout == ""
    assert looked.stderr.count("Permission denied") == len(KEYS)


def test_what_the_units_take_away_is_gone(machine):
    """Of every process: no new rights, no capability, system calls filtered, no root."""
    for unit in SERVICES:
        status = machine.run("cat", f"/proc/{machine.shown(unit, 'MainPID')}/status").stdout
        found = dict(line.split(":\t", 1) for line in status.splitlines())

        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2"), unit
        assert int(found["CapBnd"], 16) == 0, unit
        assert "0" not in found["Uid"].split(), unit


def test_a_restart_of_the_front_end_refuses_nobody(machine, port):
    """systemd has the port open meanwhile; who comes then waits for the next front end."""
    stop, before = threading.Event(), machine.shown("chatd-api.service", "MainPID")

    def ask():
        statuses = []
        while not stop.is_set():
            statuses.append(chat(port).status_code)
        return statuses

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(ask) for _ in range(4)]
        machine.systemctl("restart", "chatd-api.service")
        stop.set()
        statuses = [status for caller in callers for status in caller.result()]

    assert set(statuses) == {200}
    assert machine.shown("chatd-api.service", "MainPID") != before


def test_a_worker_that_is_stopped_finishes_its_call(machine, upstream, port):
    """It is told once, and not killed; another one goes on in its place."""
    unit = "chatd-worker-ollama@1.service"
    upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(chat, port)
        eventually(upstream.calls.total, what="the call has begun")
        machine.systemctl("stop", "--no-block", unit)
        eventually(lambda: machine.shown(unit, "SubState") == "stop-sigterm", what="it is told")
        upstream.release()
        answer = waiting.result()
    eventually(lambda: machine.shown(unit, "ActiveState") == "inactive", what="it has ended")
    ended = machine.shown(unit, "Result")
    machine.systemctl("start", unit)

    assert (answer.status_code, ended) == (200, "success")
    assert chat(port).status_code == 200


@pytest.mark.parametrize("unit", SERVICES)
def test_what_dies_is_started_again(machine, port, unit):
    """Each of them, after kill -9; calls are answered then."""
    before = machine.shown(unit, "MainPID")
    machine.systemctl("kill", "--kill-whom=main", "--signal=KILL", unit)

    def is_new():
        state = machine.shown(unit, "ActiveState"), machine.shown(unit, "MainPID")
        return state[0] == "active" and state[1] not in {"0", before}

    eventually(is_new, within_s=60, what=f"{unit} is back")
    eventually(lambda: chat(port).status_code == 200, within_s=60, what="an answer")


def test_everything_stops_in_an_orderly_way(machine, port):
    """Front end first, Redis last; nothing is killed, nothing is left. Then it starts again."""
    machine.systemctl("stop", "chatd.target")
    eventually(
        lambda: {machine.shown(unit, "ActiveState") for unit in SERVICES} == {"inactive"},
        within_s=90,
        what="all have ended",
    )
    results = {machine.shown(unit, "Result") for unit in SERVICES}
    ended = [
        int(machine.shown(unit, "InactiveEnterTimestampMonotonic"))
        for unit in ("chatd-api.service", WORKERS[0], "chatd-keeper.service", "chatd-redis.service")
    ]
    with pytest.raises(requests.ConnectionError):
        chat(port)
    machine.systemctl("start", "chatd.target")
    eventually(lambda: ready(port), within_s=90, what="chatd is ready again")

    assert results == {"success"}
    assert ended == sorted(ended)
    assert chat(port).status_code == 200
