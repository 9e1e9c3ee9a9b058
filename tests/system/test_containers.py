"""What a container engine would do with the manifests, done without one."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import redis
import requests

from cli.redis_server import find_binary
from tests.manifests import documents, redis_scripts
from tests.servers import Child, RedisProcess
from tests.stack import Stack
from tests.waiting import eventually

#: Its settings, as far as they can be asked for.
_SETTINGS = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy", "dir")

#: Nothing can be written but one folder and what is no part of the root file system, no right is
#: left, and none is got back. The process that is started stays the one that was asked for.
_LOCKED_UP = (
    'mount --bind "$0" "$0" && mount -o remount,bind,ro / && '
    'exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all "$@"'
)


@pytest.fixture(params=["compose", "kubernetes"])
def redis_of_manifest(request, tmp_path):
    """Redis as that manifest starts it, but for its port, its folder and its binary."""
    server = RedisProcess(tmp_path / "redis")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "valkey-server").symlink_to(find_binary())
    script = redis_scripts()[request.param].replace("/data", str(server.folder))
    script = script.replace("requirepass", f"port {server.port}\nrequirepass")
    environ = {"PATH": f"{binaries}:{os.environ['PATH']}", "VALKEYCLI_AUTH": "0f1e2d"}
    server.child = Child(["sh", "-c", script], server.folder / "log", environ)
    server.url = f"redis://:0f1e2d@127.0.0.1:{server.port}/0"
    server.client = redis.Redis.from_url(server.url, decode_responses=True, protocol=2)
    yield server.start()
    server.stop()


def test_redis_runs_as_the_manifests_start_it(redis_of_manifest):
    """With the settings that stand there, behind its password, and ended by one signal."""
    server = redis_of_manifest
    settings = {name: server.client.config_get(name)[name] for name in _SETTINGS}
    stranger = redis.Redis(port=server.port)
    with pytest.raises(redis.AuthenticationError):
        stranger.ping()
    stranger.close()
    command = Path(f"/proc/{server.child.pid}/cmdline").read_text("utf-8")
    server.child.send(signal.SIGTERM)

    assert settings == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": "2027159552",
        "maxmemory-policy": "noeviction",
        "dir": str(server.folder),
    }
    assert "server" in command
    assert "0f1e2d" not in command
    assert server.child.wait() == 0


def test_keda_would_see_the_jobs_that_wait_for_a_worker(redis_server, upstream, tmp_path):
    """At the names of the manifest, in a type whose size KEDA asks for; none once all are taken."""
    stack = Stack(
        tmp_path,
        {"openrouter": upstream.url},
        environ={"OPENROUTER_API_KEY": "sk-made-up"},
        redis=redis_server,
    )
    (triggers,) = [
        [trigger["metadata"]["listName"] for trigger in each["spec"]["triggers"]]
        for each in documents("ScaledObject")
        if each["metadata"]["name"] == "worker-openrouter"
    ]
    stack.keeper.start()
    stack.api.start()
    try:
        eventually(lambda: _health(stack), what="the front end answers")
        model = "openrouter/echo"
        jobs = [stack.submit("now", model, lane="interactive") for _ in range(2)]
        jobs += [stack.submit("later", model) for _ in range(3)]
        (overview,) = stack.http.get(f"{stack.url}/v1/chat/providers", timeout=30).json()[
            "providers"
        ]
        types = [redis_server.client.type(name) for name in triggers]
        waiting = [redis_server.client.zcard(name) for name in triggers]
        stack.workers["openrouter"].start()
        ended = [stack.ended(job)["state"] for job in jobs]
        left = [redis_server.client.zcard(name) for name in triggers]
    finally:
        stack.stop()

    assert types == ["zset", "zset"]
    assert waiting == [2, 3]
    assert [overview["lanes"][lane]["depth"] for lane in ("interactive", "batch")] == waiting
    assert set(ended) == {"succeeded"}
    assert left == [0, 0]


def _health(stack):
    try:
        return stack.http.get(f"{stack.url}/health", timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture
def locked_up(redis_server, upstream, tmp_path):
    """All parts of chatd, as little free as in the containers."""
    missing = [name for name in ("unshare", "setpriv", "mount") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        # Where tests have to be complete, this is a fault of the place.
        assert "CHATD_CI" not in os.environ, f"CI needs root {' '.join(missing)}"
        pytest.skip("only root, with util-linux, can make a file system read-only for a process")
    stack = Stack(tmp_path, {"ollama": upstream.url}, redis=redis_server)
    data = tmp_path / "data"
    data.mkdir()
    for child in (stack.api, stack.keeper, *stack.workers.values()):
        child.command = ["unshare", "--mount", "sh", "-c", _LOCKED_UP, str(data), *child.command]
    yield stack.start()
    stack.stop()


def test_every_part_is_content_with_what_the_manifests_leave_it(locked_up):
    """A read-only image, one folder, no rights: chats, jobs and uploads work, and a clean stop."""
    stack = locked_up
    answer = stack.chat("hello").json()
    state = stack.ended(stack.submit("later"))["state"]
    content = b'{"custom_id": "a"}\n'
    upload = stack.http.post(
        f"{stack.url}/v1/files",
        files={"file": ("batch.jsonl", content)},
        data={"purpose": "batch"},
        timeout=60,
    ).json()
    path = f"{stack.url}/v1/files/{upload['id']}/content"
    stored = stack.http.get(path, timeout=60).content
    rights = Path(f"/proc/{stack.api.pid}/status").read_text("ascii")

    assert answer["content"] == "echo: hello"
    assert state == "succeeded"
    assert stored == content
    assert "CapBnd:\t0000000000000000" in rights
