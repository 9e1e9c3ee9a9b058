"""chatd under a real systemd, installed and run by the commands of ``deploy/systemd/README.md``."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from bench.upstream import Upstream
from cli.redis_server import find_binary, free_port
from tests.pages import indented, page
from tests.servers import ROOT
from tests.systemd import Machine
from tests.waiting import eventually

PAGE = page("deploy/systemd/README.md")
KEYS = {"openrouter": "OPENROUTER_API_KEY", "kimi": "KIMI_API_KEY"}
WORKERS = [f"chatd-worker@{name}-1.service" for name in ("ollama", *KEYS)]
SERVICES = ["chatd-redis.service", "chatd-keeper.service", *WORKERS, "chatd-api.service"]
#: What pip makes of the project's script, for the code of this folder.
COMMAND = f"""#!{sys.executable}
import sys
sys.path.insert(0, "{ROOT}")
from cli.main import main
main(prog_name="chatd")
"""
#: What a person does in an editor: the template of a key file gets a key.
EDITOR = """#!/bin/bash
sed -i "s/^#\\([A-Z_]*\\)=$/\\1=key-in-$(basename "$1")/" "$1"
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
    """Installed as the page has it, and everything started."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    bin_folder = machine.opt / "chatd" / "bin"
    bin_folder.mkdir(parents=True)
    for name, script in (("chatd", COMMAND), ("editor", EDITOR)):
        (bin_folder / name).write_text(script, "utf-8")
        (bin_folder / name).chmod(0o755)
    adapt(machine, port)
    with machine:
        machine.shell(indented(PAGE, "install -D -m 0644 deploy/systemd/sysusers.conf"))
        for provider in KEYS:
            script = indented(PAGE, "provider=openrouter").replace("openrouter", provider, 1)
            machine.shell(script, EDITOR="/opt/chatd/bin/editor")
        machine.shell(indented(PAGE, "touch /etc/lakehouse/ollama-1.env"))
        configure(machine, upstream, port)
        machine.shell(indented(PAGE, "systemctl enable chatd.target"))
        yield machine


def adapt(machine, port):
    """What differs from an installed machine: Python and chatd lie elsewhere, the port is free."""
    # They may be in somebody's home or among temporary files, where the units see nothing.
    places = [f"BindReadOnlyPaths={path}" for path in (ROOT, sys.prefix, sys.base_prefix)]
    for unit in ("chatd-redis", "chatd-keeper", "chatd-worker@", "chatd-api"):
        log = f"StandardOutput=append:/var/log/{unit}.log"
        machine.drop_in(f"{unit}.service", "ProtectHome=tmpfs", *places, log)
    redis = f"ExecStart={find_binary()} /etc/lakehouse/redis.conf"
    machine.drop_in("chatd-redis.service", "ProtectHome=tmpfs", *places, "ExecStart=", redis)
    machine.drop_in("chatd-api.socket", "ListenStream=", f"ListenStream=127.0.0.1:{port}")


def configure(machine, upstream, port):
    """The same in its configuration: the port, and an upstream of the test."""
    changes = {
        'bind = "127.0.0.1:3220"': f'bind = "127.0.0.1:{port}"',
        'ollama_url = "http://localhost:11434"': f'ollama_url = "{upstream.url}"',
        'base_url = "https://openrouter.ai/api/v1"': f'base_url = "{upstream.url}/v1"',
        'base_url = "https://api.kimi.com/coding/v1"': f'base_url = "{upstream.url}/v1"',
        "models_refresh_s = 600": "models_refresh_s = 0",
    }
    file = "/etc/lakehouse/lakehouse.toml"
    for before, after in changes.items():
        machine.shell(f"grep -q '^{before}' {file} && sed -i 's|^{before}|{after}|' {file}")


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
    """As the file of its provider has it; the front end and the keeper have none."""
    # Redis, the first one, writes its title over its environment.
    environs = {unit: machine.environ(unit) for unit in SERVICES[1:]}
    has = {unit: sorted(set(found) & set(KEYS.values())) for unit, found in environs.items()}

    assert {unit: names for unit, names in has.items() if names} == {
        f"chatd-worker@{provider}-1.service": [name] for provider, name in KEYS.items()
    }
    assert environs[WORKERS[1]]["OPENROUTER_API_KEY"] == "key-in-openrouter.env"


def test_the_front_end_cannot_get_at_a_key(machine):
    """Its user reads neither the files nor the environment of a worker; nor does the workers'."""
    files = [f"/etc/lakehouse/{provider}.env" for provider in KEYS]
    environ = f"/proc/{machine.shown(WORKERS[1], 'MainPID')}/environ"
    said = {user: as_user(machine, user, *files) for user in ("chatd", "chatd-worker")}
    looked = as_user(machine, "chatd", environ)

    assert {each.stdout for each in (*said.values(), looked)} == {""}
    assert {each.stderr.count("Permission denied") for each in said.values()} == {len(KEYS)}
    assert looked.stderr.count("Permission denied") == 1


def as_user(machine, user, *files):
    become = ("setpriv", f"--reuid={user}", "--regid=chatd", "--init-groups")
    return machine.run(*become, "cat", *files)


def test_what_the_units_take_away_is_gone(machine):
    """Of every process: no new rights, no capability, system calls filtered, no root."""
    for unit in SERVICES:
        status = machine.run("cat", f"/proc/{machine.shown(unit, 'MainPID')}/status").stdout
        found = dict(line.split(":\t", 1) for line in status.splitlines())

        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2"), unit
        assert int(found["CapBnd"], 16) == 0, unit
        assert "0" not in found["Uid"].split(), unit


@contextmanager
def callers(port, count=4):
    """People who ask again and again; the statuses of their answers are in the list afterwards."""
    stop, statuses = threading.Event(), []

    def ask():
        while not stop.is_set():
            statuses.append(chat(port).status_code)

    with ThreadPoolExecutor(count) as pool:
        asking = [pool.submit(ask) for _ in range(count)]
        try:
            yield statuses
        finally:
            stop.set()
        for each in asking:
            each.result()


def test_a_rolling_restart_refuses_nobody(machine, port):
    """Each process is another one then; systemd had the port open meanwhile."""
    restarted = SERVICES[1:]
    before = {unit: machine.shown(unit, "MainPID") for unit in restarted}
    with callers(port) as statuses:
        machine.shell(indented(PAGE, "systemctl restart chatd-keeper.service"))
    after = {unit: machine.shown(unit, "MainPID") for unit in restarted}

    assert set(statuses) == {200}
    assert all(before[unit] != after[unit] for unit in restarted)


def test_a_worker_more_and_a_worker_less(machine, port):
    """It has a name, a key and a turn of its own; nobody notices when it goes."""
    more = indented(PAGE, "ln -s openrouter.env /etc/lakehouse/openrouter-2.env")
    less = indented(PAGE, "systemctl disable --now chatd-worker@openrouter-2.service")
    second = "chatd-worker@openrouter-2.service"
    with callers(port) as statuses:
        machine.shell(more)
        key = machine.environ(second)["OPENROUTER_API_KEY"]
        line = machine.run("cat", f"/proc/{machine.shown(second, 'MainPID')}/cmdline").stdout
        machine.shell(less)

    assert set(statuses) == {200}
    assert key == "key-in-openrouter.env"
    assert line.replace("\0", " ").strip().endswith("chatd worker openrouter-2")
    assert machine.shown(second, "Result") == "success"
    assert machine.shown(second, "ActiveState") == "inactive"


def test_a_worker_without_a_key_file_does_not_start(machine):
    """A provider is not called without its key by mistake."""
    unit = "chatd-worker@opencode-1.service"
    started = machine.run("systemctl", "start", unit)
    result = machine.shown(unit, "Result")
    machine.systemctl("stop", unit)

    assert started.returncode != 0
    assert result == "resources"


def test_the_front_end_accepts_at_no_other_address_than_the_configuration_has(machine, port):
    """A socket unit that opens it to all is refused, and the log says what to write."""
    other = "/etc/systemd/system/chatd-api.socket.d/zz.conf"
    machine.shell(
        f"printf '[Socket]\\nListenStream=\\nListenStream=0.0.0.0:{port}\\n' > {other}\n"
        "systemctl stop chatd-api.socket chatd-api.service\n"
        "systemctl daemon-reload\n"
        "systemctl start chatd-api.socket"
    )
    started = machine.run("systemctl", "start", "chatd-api.service")
    machine.shell(
        f"systemctl stop chatd-api.socket chatd-api.service\nrm {other}\n"
        "systemctl daemon-reload\nsystemctl start chatd-api.socket chatd-api.service"
    )
    said = machine.run("cat", "/var/log/chatd-api.log").stdout

    assert started.returncode != 0
    assert f"open at 0.0.0.0 port {port}, and [chatd] bind is" in said
    assert chat(port).status_code == 200


def test_root_runs_the_other_commands_beside_the_units(machine):
    """The configuration is right, the files have the keys, and nothing was lost."""
    check = machine.run("/opt/chatd/bin/chatd", "check")
    audit = machine.run("/opt/chatd/bin/chatd", "audit")

    assert (check.returncode, audit.returncode) == (0, 0), check.stdout + audit.stdout
    assert "no breach" in audit.stdout


def test_the_checks_of_the_page_pass(machine):
    """On what is installed; each exposure is printed."""
    said = machine.shell(indented(PAGE, "systemd-analyze verify"))

    assert said.count("Overall exposure level") == 4


def test_a_worker_that_is_stopped_finishes_its_call(machine, upstream, port):
    """It is told once, and not killed; another one goes on in its place."""
    upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(chat, port)
        eventually(upstream.calls.total, what="the call has begun")
        unit = WORKERS[0]
        machine.systemctl("stop", "--no-block", unit)
        eventually(lambda: machine.shown(unit, "SubState") == "stop-sigterm", what="it is told")
        upstream.release()
        answer = waiting.result()
    eventually(lambda: machine.shown(unit, "ActiveState") == "inactive", what="it has ended")
    ended = machine.shown(unit, "Result")
    machine.systemctl("start", unit)

    assert (answer.status_code, ended) == (200, "success")
    assert chat(port).status_code == 200


@pytest.mark.parametrize("unit", [*SERVICES[:3], SERVICES[-1]])
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
