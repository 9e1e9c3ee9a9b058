"""The ``chatd`` command as processes and over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import threading

import pytest
from click.testing import CliRunner

from cli.main import main
from cli.redis_server import free_port
from tests.servers import ROOT, python
from tests.upstream import Answer, End, ScriptedUpstream

ANSWER = {
    "id": "job_x",
    "provider": "ollama",
    "upstream_model": "qwen3:8b",
    "content": "Paris",
    "input_tokens": 7,
    "output_tokens": 3,
    "queue_ms": 2,
    "latency_ms": 90,
}
QUEUE_FULL = {"error": {"code": "queue_full", "message": "100 jobs are waiting", "param": None}}


def ask(url, *options):
    return CliRunner().invoke(
        main, ["ask", "Capital of France?", "-m", "qwen3:8b", "--url", url, *options]
    )


def streams(*steps, ended=True):
    """Pieces of SSE in chunks, with Events to wait for between them."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    chunks = [
        b"%x\r\n%b\r\n" % (len(step), step) if isinstance(step, bytes) else step for step in steps
    ]
    end = b"0\r\n\r\n" if ended else End.CLOSE
    return Answer.raw(head + b"transfer-encoding: chunked\r\n\r\n", *chunks, end)


@pytest.fixture
def chatd():
    """Something that answers like chatd, or like something else."""
    with ScriptedUpstream() as server:
        yield server


class TestAsk:
    """``chatd ask``."""

    def test_the_answer_is_printed(self, chatd):
        """On standard output, what it took beside it; the question went out as one message."""
        chatd.always(Answer.json(ANSWER))
        run = ask(f"{chatd.url}/")
        (request,) = chatd.requests

        assert run.exit_code == 0
        assert run.stdout == "Paris\n"
        assert run.stderr == "[ollama qwen3:8b, 7 + 3 tokens, queue 2 ms, upstream 90 ms]\n"
        assert (request.method, request.path) == ("POST", "/v1/chat")
        assert request.json() == {
            "model": "qwen3:8b",
            "messages": [{"role": "user", "content": "Capital of France?"}],
            "stream": True,
        }

    def test_the_answer_is_printed_as_it_comes(self, chatd):
        """Its text only; how the line is cut on the way does not matter, nor what a piece holds."""
        pieces = [
            b": queued, position 3\n",
            b'id: 1-1\nevent: delta\ndata: {"reasoning":"A city."}\n\n',
            'id: 1-2\nevent: delta\ndata: {"content":"Par\\u2028\u2028'.encode(),
            b'"}\n\nid: 1-3\nevent: delta\ndata: {"content":"is\\n"}\n\n',
            b"id: end-0\nevent: answer\ndata: " + json.dumps(ANSWER).encode() + b"\n\n",
        ]
        chatd.always(streams(*pieces))
        run = ask(chatd.url)

        assert run.exit_code == 0
        assert run.stdout == "Par\u2028\u2028is\n\n"
        assert run.stderr == "[ollama qwen3:8b, 7 + 3 tokens, queue 2 ms, upstream 90 ms]\n"

    def test_a_piece_is_printed_before_the_next_one_is_there(self, chatd):
        """Whoever waits for a slow model sees that it works."""
        rest = threading.Event()
        first = b'id: 1-1\nevent: delta\ndata: {"content":"Par"}\n\n'
        end = b"id: end-0\nevent: answer\ndata: " + json.dumps(ANSWER).encode() + b"\n\n"
        chatd.always(streams(first, rest, end))
        command = python("-m", "cli", "ask", "Capital?", "-m", "qwen3:8b", "--url", chatd.url)
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            early = process.stdout.read(3)
            rest.set()
            late = process.stdout.read()

        assert (early, late, process.returncode) == (b"Par", b"\n", 0)

    @pytest.mark.parametrize(
        ("end", "said"),
        [
            (
                b'id: end-0\nevent: error\ndata: {"error":{"code":"timeout","message":"late"}}\n\n',
                "Error: timeout: late\n",
            ),
            (b": calling\n", "broke off in its answer; ask again\n"),
        ],
        ids=["an error", "no end"],
    )
    def test_an_answer_that_breaks_off_is_told(self, chatd, end, said):
        """Below what had come of it; the exit code is 1."""
        piece = b'id: 1-1\nevent: delta\ndata: {"content":"Par"}\n\n'
        chatd.always(streams(piece, end, ended=b"error" in end))
        run = ask(chatd.url)

        assert run.exit_code == 1
        assert run.stdout == "Par\n"
        assert run.stderr.endswith(said)

    def test_chatd_is_looked_for_where_the_configuration_binds_it(
        self, chatd, tmp_path, monkeypatch
    ):
        """Unless --url says otherwise."""
        chatd.always(Answer.json(ANSWER))
        file = tmp_path / "lakehouse.toml"
        file.write_text(f'[chatd]\nbind = "127.0.0.1:{chatd.port}"\n', "utf-8")
        monkeypatch.setenv("LAKEHOUSE_CONFIG", str(file))
        run = CliRunner().invoke(main, ["ask", "Capital of France?", "-m", "qwen3:8b"])

        assert run.stdout == "Paris\n"

    def test_an_error_is_one_line_and_1(self, chatd):
        """Its code and its message."""
        chatd.always(Answer.json(QUEUE_FULL, 429))
        run = ask(chatd.url)

        assert run.exit_code == 1
        assert run.output == "Error: queue_full: 100 jobs are waiting\n"

    def test_without_a_server_one_line_says_so(self):
        """With the address and what to do."""
        url = f"http://127.0.0.1:{free_port()}"
        run = ask(url)

        assert run.exit_code == 1
        assert run.output == (
            f"Error: {url} does not answer (ConnectionError); is `chatd up` running?\n"
        )

    @pytest.mark.parametrize(
        "answer",
        [
            Answer.of(b"<html>It works!</html>"),
            Answer.json({"detail": "Not Found"}, 404),
            Answer.json([1, 2, 3]),
            Answer.json({"error": "model not found"}, 404),
        ],
        ids=["a page", "another API", "a list", "Ollama"],
    )
    def test_something_else_at_that_address_is_told(self, chatd, answer):
        """In one line as well."""
        chatd.always(answer)
        run = ask(chatd.url)

        assert run.exit_code == 1
        assert run.output.startswith(f"Error: {chatd.url} ")
        assert len(run.output.splitlines()) == 1
        assert isinstance(run.exception, SystemExit)

    def test_a_proxy_is_not_asked_for_this_machine(self, chatd, monkeypatch):
        """The environment's is for the way out."""
        chatd.always(Answer.json(ANSWER))
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)

        assert ask(chatd.url).stdout == "Paris\n"


class TestProcesses:
    """The commands that become a process, when they cannot."""

    @pytest.fixture
    def run(self, tmp_path):
        """Runs one with a configuration that has only Ollama, and no Redis anywhere."""
        file = tmp_path / "lakehouse.toml"
        file.write_text(
            f'[chatd]\ndata_dir = "{tmp_path}"\n[chatd.providers.kimi]\nkey_file = ""\n', "utf-8"
        )

        def run(*arguments, **environ):
            return subprocess.run(
                python("-m", "cli", *arguments),
                env={**os.environ, "KIMI_API_KEY": "", "LAKEHOUSE_CONFIG": str(file), **environ},
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )

        return run

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (
                ["worker", "lama"],
                (
                    'chatd worker: provider "lama" does not exist; choose one of kimi, ollama, '
                    "ollama_cloud, opencode, openrouter\n"
                ),
            ),
            (
                ["worker", "kimi"],
                (
                    "chatd worker: provider kimi is not registered: KIMI_API_KEY is not set in the "
                    "environment and no key_file is configured; set KIMI_API_KEY\n"
                ),
            ),
        ],
        ids=["unknown", "without a key"],
    )
    def test_a_provider_nobody_can_work_for_ends_the_worker(self, run, arguments, said):
        """In one line with the way out; the exit code is 1."""
        done = run(*arguments)

        assert (done.returncode, done.stdout, done.stderr) == (1, "", said)

    @pytest.mark.parametrize("command", [["worker", "ollama"], ["keeper"]], ids=" ".join)
    def test_without_any_redis_the_way_to_one_is_named(self, run, command):
        """`chatd up`, or an address."""
        done = run(*command)

        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].endswith("run `chatd up`, or set redis_url")
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("command", [["worker", "ollama"], ["keeper"], ["api"]], ids=" ".join)
    def test_a_bad_configuration_ends_every_process(self, run, tmp_path, command):
        """In one line."""
        bad = tmp_path / "bad.toml"
        bad.write_text("[chatd]\nmax_qeued = 5\n", "utf-8")
        done = run(*command, LAKEHOUSE_CONFIG=str(bad))

        assert done.returncode in (1, 2)
        assert done.stderr.startswith(f"chatd {command[0]}: {bad}: ")
        assert "max_queued" in done.stderr
        assert len(done.stderr.splitlines()) == 1
