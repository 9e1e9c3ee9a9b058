"""Redis lets each part of chatd do what it does and no more: deploy/redis/users.acl on a server."""

from __future__ import annotations

import hashlib
import secrets
import subprocess

import pytest
import redis

from bench.upstream import Upstream
from tests.servers import ROOT, Child, RedisProcess, python
from tests.stack import Stack
from tests.waiting import eventually

PARTS = ("api", "worker", "keeper", "operator")
#: What nobody needs for a chat, and everybody could do harm with.
FORBIDDEN = (
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("CONFIG", "SET", "appendonly", "no"),
    ("CONFIG", "SET", "dir", "/tmp"),  # noqa: S108 - it is refused
    ("SHUTDOWN",),
    ("SAVE",),
    ("BGREWRITEAOF",),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "x", "on", "nopass", "+@all"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("CLIENT", "LIST"),
    ("MONITOR",),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "LIST"),
    ("MIGRATE", "127.0.0.1", "1", "k", "0", "1"),
    ("SWAPDB", "0", "1"),
    ("PUBLISH", "elsewhere", "x"),
)


class Users:
    """A Redis with the users of the shipped file, and a chatd whose parts each have their own."""

    def __init__(self, folder, upstream) -> None:
        text = (ROOT / "deploy" / "redis" / "users.acl").read_text("utf-8")
        self.passwords = {part: secrets.token_hex(16) for part in PARTS}
        for part, password in self.passwords.items():
            digest = hashlib.sha256(password.encode()).hexdigest()
            text = text.replace(f"#{part.upper()}_SHA256", f"#{digest}")
        # The test itself looks at everything.
        text = text.replace("user default off", "user default on nopass ~* &* +@all")
        file = folder / "users.acl"
        file.write_text(text, "utf-8")
        self.redis = RedisProcess(folder / "redis", options=("--aclfile", str(file)))
        self.stack = Stack(folder / "stack", {"ollama": upstream.url}, redis=self.redis)
        self.redis.start()
        for part, children in {
            "api": [self.stack.api],
            "keeper": [self.stack.keeper],
            "worker": list(self.stack.workers.values()),
        }.items():
            for child in children:
                child.environ = {**child.environ, "LAKEHOUSE_CONFIG": str(self.config(part))}

    def url(self, part: str) -> str:
        """Redis as a part reaches it."""
        host = self.redis.url.removeprefix("redis://")
        return f"redis://chatd-{part}:{self.passwords[part]}@{host}"

    def config(self, part: str):
        """The configuration of a part."""
        file = self.stack.folder / f"{part}.toml"
        text = self.stack.config_file.read_text("utf-8")
        file.write_text(text.replace(self.redis.url, self.url(part)), "utf-8")
        return file

    def command(self, *arguments: str) -> Child:
        """A command of whoever runs chatd."""
        environ = {**self.stack.environ, "LAKEHOUSE_CONFIG": str(self.config("operator"))}
        return Child(python("-m", "cli", *arguments), self.stack.folder / "command.log", environ)

    def denied(self) -> list[str]:
        """What Redis has refused since the last look."""
        found = self.redis.client.acl_log()
        self.redis.client.acl_log_reset()
        return [f"{entry['username']} {entry['reason']} {entry['object']}" for entry in found]


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    """Redis 6.2's syntax, on whatever server is here."""
    upstream = Upstream(reply=refuse).start()
    users = Users(tmp_path_factory.mktemp("users"), upstream)
    try:
        users.stack.start()
        yield users
    finally:
        users.stack.stop()
        upstream.stop()


def refuse(_model, body):
    """What is asked for."""
    return (400, {"error": "no"}) if body["messages"][-1]["content"] == "no" else None


def test_each_part_may_do_what_it_does(users):
    """Chats, jobs, lists, batches, failures, restarts and the audit: not one denial."""
    stack = users.stack
    assert stack.chat("hello").json()["content"] == "echo: hello"
    assert stack.ended(stack.submit("later"))["state"] == "succeeded"
    assert stack.chat("no").status_code == 502
    cancelled = stack.submit("never", lane="batch")
    stack.http.post(f"{stack.url}/v1/jobs/{cancelled}/cancel", timeout=60)
    for path in ("/v1/jobs?state=succeeded", "/v1/chat/providers", "/metrics", "/v1/models"):
        assert stack.http.get(f"{stack.url}{path}", timeout=60).status_code == 200
    line = (
        b'{"custom_id":"1","method":"POST","url":"/v1/chat","body":{"model":"echo",'
        b'"messages":[{"role":"user","content":"in a batch"}]}}\n'
    )
    file_id = stack.http.post(
        f"{stack.url}/v1/files", data={"purpose": "batch"}, files={"file": ("a", line)}, timeout=60
    ).json()["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/chat", "completion_window": "1h"}
    batch_id = stack.http.post(f"{stack.url}/v1/batches", json=body, timeout=60).json()["id"]
    eventually(
        lambda: (
            stack.http.get(f"{stack.url}/v1/batches/{batch_id}", timeout=60).json()["status"]
            == "completed"
        ),
        within_s=60,
        what="the batch is completed",
    )
    worker = stack.workers["ollama"]
    worker.stop()
    worker.start()
    eventually(stack.ready, within_s=60, what="the new worker is there")
    assert stack.chat("again").json()["content"] == "echo: again"

    for arguments in (["check"], ["drain", "ollama"], ["resume", "ollama"], ["audit"]):
        command = users.command(*arguments).start()
        assert command.wait(60) == 0, command.output()

    assert users.denied() == []
    for child in (stack.api, stack.keeper, worker):
        assert "NOPERM" not in child.output()
        assert "CONFIG GET is not allowed" not in child.output()


@pytest.mark.parametrize("part", PARTS)
def test_no_part_may_do_what_it_does_not(users, part):
    """Not even with its password in somebody else's hands."""
    client = redis.Redis.from_url(users.url(part), protocol=2)
    allowed = []
    for command in FORBIDDEN:
        try:
            client.execute_command(*command)
        except redis.exceptions.NoPermissionError:
            continue
        except redis.RedisError as error:
            allowed.append((command, str(error)))
        else:
            allowed.append((command, "done"))
    client.close()

    assert allowed == []
    users.redis.client.acl_log_reset()


def test_only_a_worker_may_wait_for_queues(users):
    """The others never take a wake-up."""
    for part in ("api", "keeper", "operator"):
        with (
            redis.Redis.from_url(users.url(part), protocol=2) as client,
            pytest.raises(redis.exceptions.NoPermissionError),
        ):
            client.brpop("chat.ollama", 1)
    users.redis.client.acl_log_reset()


def test_without_a_password_nobody_gets_in():
    """The shipped file turns the user off that needs none."""
    text = (ROOT / "deploy" / "redis" / "users.acl").read_text("utf-8")
    users = [line.split()[1] for line in text.splitlines() if line.startswith("user ")]

    assert text.startswith("user default off\n")
    assert users[1:] == [f"chatd-{part}" for part in PARTS]
    assert "nopass" not in text
    # Until it is filled in, Redis does not start with it.
    assert all(f"#{part.upper()}_SHA256" in text for part in PARTS)


def test_the_file_as_shipped_starts_no_redis(tmp_path):
    """A hash that nobody has filled in is none."""
    file = ROOT / "deploy" / "redis" / "users.acl"
    server = RedisProcess(tmp_path, options=("--aclfile", str(file)))
    done = subprocess.run(
        server.child.command, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode != 0
