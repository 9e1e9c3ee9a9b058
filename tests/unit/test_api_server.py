"""The settings that gunicorn gets."""

from __future__ import annotations

import json
import logging
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from gunicorn.workers.ggevent import GeventWorker

from api import create_app
from api.server import FrontEndServer, gunicorn_options
from chat.handover import NOTIFY_SOCKET
from chat.settings import ChatdConfig


@pytest.mark.parametrize(
    ("bind", "address"),
    [("127.0.0.1:3220", ("127.0.0.1", 3220)), ("[::1]:3220", ("::1", 3220))],
    ids=["IPv4", "IPv6"],
)
def test_gunicorn_takes_every_setting(bind: str, address: tuple[str, int]) -> None:
    """An unknown name or a value out of range would end the start."""
    server = FrontEndServer(ChatdConfig(bind=bind, api_processes=3, log_level="warning"))

    assert server.cfg.address == [address]
    assert (server.cfg.workers, server.cfg.loglevel) == (3, "warning")
    assert issubclass(server.cfg.worker_class, GeventWorker)


def test_a_socket_that_is_open_already_takes_the_place_of_the_address() -> None:
    """That of `chatd up`, which outlives every process of the front end."""
    server = FrontEndServer(ChatdConfig(), 7)

    assert server.cfg.address == [7]


def test_who_waits_is_told_by_a_process_that_accepts() -> None:
    """Not by gunicorn's first one, which only starts them."""
    waiting = {NOTIFY_SOCKET: "/nonexistent"}
    options = gunicorn_options(ChatdConfig(), None, waiting)
    before = dict(waiting)
    options["post_worker_init"](None)

    assert before == {NOTIFY_SOCKET: "/nonexistent"}
    assert waiting == {}


def test_callers_who_wait_are_answered_before_the_end() -> None:
    """A few seconds are left to hand them over when drain_s is over."""
    options = gunicorn_options(ChatdConfig(timeout_s=180, drain_s=7.5))

    assert options["graceful_timeout"] == 13


def test_the_application_is_made_after_the_fork() -> None:
    """No preloading: gevent patches the worker, and connections belong to one process."""
    options = gunicorn_options(ChatdConfig())

    assert options["preload_app"] is False
    assert options["control_socket_disable"] is True


def test_the_master_imports_nothing_that_gevent_would_patch_too_late() -> None:
    """Redis, the store and Flask's views are imported by the worker, after gevent's patching."""
    script = "import sys, api.server; print([m for m in sys.modules if m.split('.')[0] == 'redis'])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.strip() == "[]"


def test_the_boot_log_says_once_which_providers_are_registered(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With where the key is from, and never the key."""
    monkeypatch.setenv("KIMI_API_KEY", "sk-secret")
    with caplog.at_level(logging.INFO):
        app = create_app(ChatdConfig(ollama_url=""))
    front = app.extensions["chatd"]

    assert "kimi" in front.names.names
    assert "ollama" not in front.names.names
    assert len(caplog.records) == 1
    assert "KIMI_API_KEY in the environment" in caplog.text
    assert "ollama_url is empty" in caplog.text
    assert "sk-secret" not in caplog.text


def test_a_wsgi_server_of_ones_own_finds_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`api.wsgi:app`, configured by $LAKEHOUSE_CONFIG."""
    file = tmp_path / "lakehouse.toml"
    file.write_text('[chatd]\nbody_limit = "1KiB"\n')
    monkeypatch.setenv("LAKEHOUSE_CONFIG", str(file))
    app = runpy.run_module("api.wsgi")["app"]

    assert app.test_client().get("/health").status_code == 200
    assert app.config["MAX_CONTENT_LENGTH"] == 1024


def test_no_header_renames_a_path():
    """A proxy may filter by path; gunicorn would take SCRIPT_NAME from any local caller."""
    assert gunicorn_options(ChatdConfig())["forwarder_headers"] == ""


#: What a worker of gunicorn does, up to one request and a greenlet that fails.
WORKER = """
import gevent
from gevent import monkey
monkey.patch_all()
from api.server import FrontEndServer
from chat.logs import configure
from chat.settings import ChatdConfig
configure("api", "info")
server = FrontEndServer(ChatdConfig())
server.cfg.logger_class(server.cfg).error("from gunicorn")
app = server.load()
app.test_client().get("/nowhere")
gevent.spawn(lambda: {}["gone"]).join()
"""


def test_everything_in_the_front_end_logs_in_one_form():
    """The server, chatd, each request, and what gevent would print by itself."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER], capture_output=True, text=True, timeout=60, check=True
    )
    events = [json.loads(line) for line in done.stderr.splitlines()]
    of_gunicorn, of_chatd, of_request, of_greenlet = events

    assert done.stdout == ""
    assert (of_gunicorn["logger"], of_gunicorn["message"]) == ("gunicorn.error", "from gunicorn")
    assert of_chatd["message"].startswith("providers registered")
    assert (of_request["path"], of_request["status"]) == ("/nowhere", 404)
    assert of_greenlet["message"].startswith("an uncaught KeyError ends <Greenlet")
    assert of_greenlet["exception"].endswith("KeyError: 'gone'")


COLLECTED = """
import gc
from gevent import monkey
monkey.patch_all()
from api.server import FrontEndServer
from chat.settings import ChatdConfig
app = FrontEndServer(ChatdConfig()).load()
client = app.test_client()
client.get("/health")
gc.collect()
gc.disable()
for _ in range(10):
    assert client.get("/health").status_code == 200
print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000, gc.collect() // 10)
"""


def test_the_collector_is_seldom_needed():
    """It waits for so many objects, which has to be worth little memory: requests leave few."""
    done = subprocess.run(
        [sys.executable, "-c", COLLECTED], capture_output=True, text=True, timeout=60, check=True
    )
    threshold, is_frozen, left = done.stdout.split()

    assert (threshold, is_frozen) == ("10000", "True")
    assert int(left) < 50
