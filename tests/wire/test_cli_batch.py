"""``chatd batch`` against a scripted chatd: what goes over the wire, what is said, how it exits."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from api.multipart import read_parts
from cli.batch_client import BatchClient
from cli.files import upload
from cli.main import main
from cli.redis_server import free_port
from tests.batch_objects import ID, batch_object
from tests.servers import ROOT, python
from tests.upstream import Answer, End, ScriptedUpstream

LINES = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n' * 100
STORED = Answer.json({"id": "file_in", "object": "file", "purpose": "batch"})
MADE = Answer.json(batch_object("validating", total=0))
RUNNING = Answer.json(batch_object(completed=40))
OVER = Answer.json(batch_object("completed", 100))
NO_REDIS = Answer.json({"error": {"code": "redis_unavailable", "message": "Redis is away"}}, 503)
NOT_FOUND = Answer.json({"error": {"code": "batch_not_found", "message": "no such batch"}}, 404)
LOST = Answer.raw(End.RESET)


@pytest.fixture
def chatd():
    """Something that answers like chatd, or like something else."""
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def file(tmp_path):
    """A file of requests."""
    path = tmp_path / "requests.jsonl"
    path.write_bytes(LINES)
    return path


@pytest.fixture
def batch(chatd):
    """Runs ``chatd batch`` at that server."""

    def batch(*arguments):
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(main, ["batch", *words, "--url", chatd.url])

    return batch


def form_of(request):
    """The parts of an upload as the front end reads them: name, file name, content."""
    parts = read_parts(io.BytesIO(request.body), request.headers["content-type"])
    return [(part.name, part.filename, b"".join(part.pieces)) for part in parts]


class TestSubmit:
    """``chatd batch submit``."""

    def test_a_file_becomes_a_batch_that_is_watched_to_its_end(self, chatd, batch, file):
        """The id comes first, then progress, then the outcome."""
        chatd.then(STORED, MADE, RUNNING, OVER)
        run = batch("submit", file)
        told = run.stdout.splitlines()

        assert run.exit_code == 0
        assert run.stderr == ""
        assert told[0] == ID
        assert told[1].endswith("Z in_progress 40/100 (40%), 0 failed")
        assert "Z completed 100/100 (100%), 0 failed, " in told[2]
        assert told[3:] == [
            f"{ID} completed after 12m 03s: 100 of 100 items succeeded, 0 failed",
            f"  answers: `chatd batch results {ID} -o FILE --url {chatd.url}`",
        ]

    def test_it_sends_what_the_files_and_batches_api_wants(self, chatd, batch, file):
        """The file as multipart, then the batch with every option."""
        chatd.then(STORED, MADE)
        options = ["--endpoint", "/v1/x", "--window", "48h", "--metadata", "run=7"]
        batch("submit", file, *options, "--metadata", "why=a=b", "--detach")
        upload, create = chatd.requests

        assert (upload.method, upload.path) == ("POST", "/v1/files")
        assert form_of(upload) == [
            ("purpose", None, b"batch"),
            ("file", "requests.jsonl", LINES),
        ]
        assert "transfer-encoding" not in upload.headers
        assert (create.method, create.path) == ("POST", "/v1/batches")
        assert create.json() == {
            "input_file_id": "file_in",
            "endpoint": "/v1/x",
            "completion_window": "48h",
            "metadata": {"run": "7", "why": "a=b"},
        }

    def test_odd_file_names_arrive(self, chatd, batch, tmp_path):
        """A quote ends no field, and umlauts stay."""
        file = tmp_path / 'größe "x".jsonl'
        file.write_bytes(LINES)
        chatd.then(STORED, MADE)
        batch("submit", file, "--detach")
        _, (_, name, content) = form_of(chatd.requests[0])

        assert (name, content) == ('größe "x".jsonl', LINES)

    def test_detached_it_prints_the_id_and_nothing_else(self, chatd, batch, file):
        """So that a script can take it."""
        chatd.then(STORED, MADE)
        run = batch("submit", file, "--detach")

        assert (run.exit_code, run.output) == (0, f"{ID}\n")
        assert len(chatd.requests) == 2

    @pytest.mark.parametrize("trouble", [LOST, NO_REDIS], ids=["lost answer", "no Redis"])
    def test_a_repeated_creation_has_the_same_key(self, chatd, batch, file, trouble):
        """The first may have made a batch: it must not become two."""
        chatd.then(STORED, trouble, MADE)
        run = batch("submit", file, "--detach", "--interval", "1")
        _, first, second = chatd.requests

        assert run.exit_code == 0
        assert run.stdout == f"{ID}\n"
        assert "(waiting up to 5m 00s for it)" in run.stderr
        assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
        assert first.body == second.body

    def test_two_submissions_have_keys_of_their_own(self, chatd, batch, file):
        """They are two batches, though they look alike."""
        chatd.then(STORED, MADE, STORED, MADE)
        batch("submit", file, "--detach")
        batch("submit", file, "--detach")
        keys = {r.headers["idempotency-key"] for r in chatd.requests if r.path == "/v1/batches"}

        assert len(keys) == 2

    def test_when_it_is_not_known_whether_a_batch_was_made_that_is_said(self, chatd, batch, file):
        """With the file's id and where to look."""
        chatd.then(STORED, LOST)
        run = batch("submit", file, "--patience", "0")

        assert run.exit_code == 3
        assert run.stdout == ""
        assert run.stderr.splitlines()[0] == (
            f"{file} is stored as file_in, but whether a batch was made of it is not known; "
            "`chatd batch list` tells."
        )
        assert run.stderr.splitlines()[1].startswith(f"Error: {chatd.url} does not answer (")

    def test_an_upload_that_breaks_off_is_3_and_says_that_nothing_is_queued(
        self, chatd, batch, file
    ):
        """It is not repeated: a person may want to know first."""
        chatd.then(LOST)
        run = batch("submit", file)

        assert run.exit_code == 3
        assert run.stderr.endswith(
            f"(requests.jsonl: {len(LINES)} of {len(LINES)} bytes were sent, nothing is queued)\n"
        )
        assert len(chatd.requests) == 1

    @pytest.mark.parametrize("before", [[], [STORED]], ids=["of the upload", "of the creation"])
    def test_a_refusal_is_one_line_and_1(self, chatd, batch, file, before):
        """Its code and its message; nobody waits for another answer."""
        refusal = {"error": {"code": "too_large", "message": "the file is larger than 1 MiB"}}
        chatd.then(*before, Answer.json(refusal, 413))
        run = batch("submit", file)

        assert (run.exit_code, run.output) == (
            1,
            "Error: too_large: the file is larger than 1 MiB\n",
        )
        assert len(chatd.requests) == len(before) + 1

    @pytest.mark.parametrize("options", [[], ["--detach"]], ids=["watched", "detached"])
    def test_a_file_that_is_not_taken_is_1_with_its_faults(self, chatd, batch, file, options):
        """Line by line, whoever waits for it or not."""
        fault = {"code": "invalid_request", "line": 7, "message": "body.model: is missing"}
        failed = Answer.json(
            batch_object("failed", total=0, errors={"object": "list", "data": [fault]})
        )
        chatd.then(STORED, failed, failed)
        run = batch("submit", file, *options)

        assert run.exit_code == 1
        assert run.stdout.splitlines()[-2:] == [
            f"{ID} failed: 1 fault in its file, nothing was run",
            "  line 7: body.model: is missing (invalid_request)",
        ]

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            ([], "Missing argument 'FILE'"),
            (["{dir}/none.jsonl"], "none.jsonl' does not exist"),
            (["{dir}/empty.jsonl"], "empty.jsonl: is empty or not a regular file"),
            (["{dir}/pipe"], "pipe: is empty or not a regular file"),
            (["{file}", "--metadata", "run"], "'run' is not KEY=VALUE"),
            (["{file}", "--metadata", "a=1", "--metadata", "a=2"], "'a' is given twice"),
            (["{file}", "--interval", "0"], "0 is not in the range"),
            (["{file}", "--url", "localhost:3220"], "does not begin with http:// or https://"),
        ],
        ids=["no file", "missing", "empty", "pipe", "no value", "twice", "interval", "no scheme"],
    )
    def test_a_wrong_command_line_is_2(self, chatd, file, tmp_path, arguments, fault):
        """Before anything is sent."""
        (tmp_path / "empty.jsonl").touch()
        os.mkfifo(tmp_path / "pipe")
        words = [word.format(dir=tmp_path, file=file) for word in arguments]
        run = CliRunner().invoke(main, ["batch", "submit", "--url", chatd.url, *words])

        assert run.exit_code == 2
        assert fault in run.output
        assert chatd.requests == []

    def test_chatd_is_looked_for_where_the_configuration_binds_it(
        self, chatd, file, tmp_path, monkeypatch
    ):
        """Then no hint needs an address."""
        config = tmp_path / "lakehouse.toml"
        config.write_text(f'[chatd]\nbind = "127.0.0.1:{chatd.port}"\n', "utf-8")
        monkeypatch.setenv("LAKEHOUSE_CONFIG", str(config))
        chatd.then(STORED, MADE, OVER)
        run = CliRunner().invoke(main, ["batch", "submit", str(file)])

        assert run.exit_code == 0
        assert run.stdout.endswith(f"`chatd batch results {ID} -o FILE`\n")

    def test_a_proxy_is_not_asked_for_this_machine(self, chatd, batch, file, monkeypatch):
        """The environment's is for the way out."""
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
        chatd.then(STORED, MADE)

        assert batch("submit", file, "--detach").exit_code == 0

    def test_a_large_upload_is_shown_on_a_terminal(self, chatd, tmp_path, monkeypatch):
        """It arrives whole, and the bar goes away after it."""

        class Terminal(io.StringIO):
            def isatty(self):
                return True

        file = tmp_path / "large.jsonl"
        file.write_bytes(b"x" * 9_000_000)
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("TERM", "xterm")
        chatd.then(STORED)
        file_id = upload(BatchClient(chatd.url), file)
        _, (_, _, content) = form_of(chatd.requests[0])

        assert file_id == "file_in"
        assert content == b"x" * 9_000_000
        assert "9.0/9.0 MB" in screen.getvalue()


class TestWatch:
    """``chatd batch watch``."""

    @pytest.mark.parametrize(
        ("over", "code"),
        [
            (batch_object("completed", 100), 0),
            (batch_object("completed", 99, 1), 1),
            (batch_object("cancelled", 40), 1),
            (batch_object("expired", 99), 1),
            (batch_object("failed", total=0), 1),
        ],
        ids=["completed", "an item failed", "cancelled", "expired", "failed"],
    )
    def test_the_exit_code_says_whether_every_item_succeeded(self, chatd, batch, over, code):
        """Whatever the reason is that one did not."""
        chatd.then(RUNNING, Answer.json(over))
        run = batch("watch", ID)

        assert run.exit_code == code
        assert {request.path for request in chatd.requests} == {f"/v1/batches/{ID}"}
        assert f"{ID} {over['status']}" in run.stdout

    def test_a_front_end_that_restarts_is_waited_for(self, chatd, batch):
        """With one line on standard error."""
        chatd.then(RUNNING, LOST, NO_REDIS, RUNNING, OVER)
        run = batch("watch", ID, "--interval", "1", "--patience", "60")
        (told,) = run.stderr.splitlines()

        assert run.exit_code == 0
        assert told.startswith(f"{chatd.url} does not answer (")
        assert told.endswith("is `chatd up` running? (waiting up to 1m 00s for it)")

    def test_a_front_end_that_stays_away_is_3(self, batch, chatd):
        """With the way back."""
        chatd.then(RUNNING, NO_REDIS)
        run = batch("watch", ID, "--patience", "0")

        assert run.exit_code == 3
        assert run.stderr == (
            f"Error: redis_unavailable: Redis is away; `chatd batch watch {ID} --url {chatd.url}` "
            "comes back to it\n"
        )

    def test_an_unknown_batch_is_1(self, chatd, batch):
        """At once: it is not going to appear."""
        chatd.then(NOT_FOUND)
        run = batch("watch", "batch/../x")

        assert (run.exit_code, run.output) == (1, "Error: batch_not_found: no such batch\n")
        assert chatd.requests[0].path == "/v1/batches/batch%2F..%2Fx"

    def test_ctrl_c_detaches(self, chatd):
        """The batch is left alone; the exit code is that of an interrupt."""
        chatd.always(RUNNING)
        process = subprocess.Popen(
            python("-m", "cli", "batch", "watch", ID, "--url", chatd.url),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        chatd.wait_for(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

        assert process.returncode == 130
        assert out.endswith("Z in_progress 40/100 (40%), 0 failed\n")
        assert err == (
            f"Detached; {ID} goes on. `chatd batch watch {ID} --url {chatd.url}` comes back to it, "
            f"`chatd batch cancel {ID} --url {chatd.url}` stops it.\n"
        )
        assert {request.method for request in chatd.requests} == {"GET"}


class TestResults:
    """``chatd batch results``."""

    FAILED = Answer.json(batch_object("completed", 98, 2, error_file_id="file_err"))

    def test_the_answers_go_to_standard_output(self, chatd, batch):
        """Byte for byte, and nothing else with them."""
        chatd.then(OVER, Answer.of(LINES * 2000))
        run = batch("results", ID)

        assert (run.exit_code, run.stderr) == (0, "")
        assert run.stdout_bytes == LINES * 2000
        assert chatd.requests[1].path == "/v1/files/file_out/content"

    def test_the_errors_are_the_other_file(self, chatd, batch):
        """The items that failed."""
        chatd.then(self.FAILED, Answer.of(b"{}\n"))
        run = batch("results", ID, "--errors")

        assert (run.exit_code, run.stdout) == (0, "{}\n")
        assert chatd.requests[1].path == "/v1/files/file_err/content"

    def test_a_file_is_written_beside_and_appears_whole(self, chatd, batch, tmp_path):
        """In place of an older one, with no part left over."""
        out, gate, run = tmp_path / "out.jsonl", threading.Event(), []
        out.write_bytes(b"old")
        chatd.then(OVER, Answer.chunked([b"a" * 100_000, gate, b"b\n"]))
        thread = threading.Thread(target=lambda: run.append(batch("results", ID, "-o", out)))
        thread.start()
        chatd.wait_for(2)
        meanwhile = out.read_bytes()
        gate.set()
        thread.join()

        assert run[0].exit_code == 0
        assert meanwhile == b"old"
        assert out.read_bytes() == b"a" * 100_000 + b"b\n"
        assert list(tmp_path.iterdir()) == [out]

    def test_what_lies_beside_the_file_is_left_alone(self, chatd, batch, tmp_path):
        """Whatever its name; and who may read the file stays as it was."""
        out, other = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
        out.touch(0o600)
        other.write_bytes(b"mine")
        chatd.then(OVER, Answer.of(LINES))
        run = batch("results", ID, "-o", out)

        assert run.exit_code == 0
        assert (out.read_bytes(), other.read_bytes()) == (LINES, b"mine")
        assert out.stat().st_mode & 0o777 == 0o600
        assert sorted(tmp_path.iterdir()) == [out, other]

    @pytest.mark.parametrize(
        "answer",
        [
            Answer.cut(LINES, 1000),
            Answer.cut(LINES, 1000, by=End.RESET),
            Answer.raw(*Answer.chunked([LINES], ended=False).steps, End.CLOSE),
        ],
        ids=["too short", "reset", "chunks without an end"],
    )
    def test_a_cut_off_download_is_1_and_leaves_no_file(self, chatd, batch, tmp_path, answer):
        """What was there before stays."""
        out = tmp_path / "out.jsonl"
        out.write_bytes(b"old")
        chatd.then(OVER, answer)
        run = batch("results", ID, "-o", out)

        assert run.exit_code == 1
        assert run.stderr.startswith(f"Error: {chatd.url} broke off in file_out after ")
        assert run.stderr.endswith("; try again\n")
        assert out.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [out]

    def test_a_link_keeps_leading_to_its_file(self, chatd, batch, tmp_path):
        """Its file is replaced, not the link."""
        (tmp_path / "real").mkdir()
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "real" / "out")
        chatd.then(OVER, Answer.of(LINES))
        run = batch("results", ID, "-o", link)

        assert run.exit_code == 0
        assert link.is_symlink()
        assert link.read_bytes() == LINES

    def test_a_pipe_is_written_to_and_not_replaced(self, chatd, batch, tmp_path):
        """As is a device."""
        pipe, read = tmp_path / "pipe", []
        os.mkfifo(pipe)
        thread = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
        thread.start()
        chatd.then(OVER, Answer.of(LINES))
        run = batch("results", ID, "-o", pipe)
        thread.join()

        assert run.exit_code == 0
        assert read == [LINES]
        assert pipe.is_fifo()

    def test_a_file_that_cannot_be_written_is_1(self, chatd, batch, tmp_path):
        """With its name and the reason."""
        out = tmp_path / "none" / "out.jsonl"
        chatd.then(OVER, Answer.of(LINES))
        run = batch("results", ID, "-o", out)

        assert run.exit_code == 1
        assert run.stderr == (
            f"Error: {out}: cannot be written (No such file or directory); choose another file\n"
        )

    def test_before_the_end_there_are_none(self, chatd, batch, tmp_path):
        """It says how far the batch is and how to wait."""
        chatd.then(RUNNING)
        run = batch("results", ID, "-o", tmp_path / "out")

        assert run.exit_code == 1
        assert run.output == (
            f"Error: {ID} is not over: in_progress, 40 of 100 items succeeded, 0 failed, "
            f"60 not done; `chatd batch watch {ID} --url {chatd.url}` waits for it\n"
        )
        assert list(tmp_path.iterdir()) == []

    def test_a_part_of_the_answers_is_told_as_one(self, chatd, batch):
        """On standard error; the answers that there are come all the same."""
        chatd.then(Answer.json(batch_object("cancelled", 40)), Answer.of(LINES))
        run = batch("results", ID)

        assert run.exit_code == 0
        assert run.stdout_bytes == LINES
        assert run.stderr == f"{ID} cancelled: 40 of 100 items succeeded, 0 failed, 60 not done\n"

    def test_no_errors_are_an_empty_file(self, chatd, batch, tmp_path):
        """A script that asks for them finds what it asked for."""
        out = tmp_path / "errors.jsonl"
        chatd.then(OVER)
        run = batch("results", ID, "--errors", "-o", out)

        assert run.exit_code == 0
        assert out.read_bytes() == b""
        assert run.stderr == f"{ID} completed: 100 of 100 items succeeded, 0 failed\n"

    def test_no_answers_are_1(self, chatd, batch):
        """With what there is instead."""
        seen = batch_object("completed", 0, 100, output_file_id=None, error_file_id="file_err")
        chatd.then(Answer.json(seen))
        run = batch("results", ID)

        assert run.exit_code == 1
        assert run.stdout == ""
        assert run.stderr.splitlines() == [
            "Error: there are no answers",
            f"{ID} completed after 12m 03s: 0 of 100 items succeeded, 100 failed",
            f"  failed items: `chatd batch results {ID} --errors -o FILE --url {chatd.url}`",
        ]

    def test_a_file_that_is_gone_is_1(self, chatd, batch, tmp_path):
        """The server's own reason."""
        gone = {"error": {"code": "file_not_found", "message": "file_out has been removed"}}
        chatd.then(OVER, Answer.json(gone, 404))
        run = batch("results", ID, "-o", tmp_path / "out")

        assert run.exit_code == 1
        assert run.output == "Error: file_not_found: file_out has been removed\n"
        assert list(tmp_path.iterdir()) == []


class TestCancel:
    """``chatd batch cancel``."""

    CANCELLING = Answer.json(batch_object("cancelling", 12, 1))

    def test_it_says_what_is_left(self, chatd, batch):
        """And how to wait for the end."""
        chatd.then(self.CANCELLING)
        run = batch("cancel", ID)
        (request,) = chatd.requests

        assert (request.method, request.path) == ("POST", f"/v1/batches/{ID}/cancel")
        assert run.exit_code == 0
        assert run.stdout.splitlines() == [
            f"{ID} cancelling: 12 of 100 items succeeded, 1 failed, 87 not done",
            f"  `chatd batch watch {ID} --url {chatd.url}` waits for its end",
        ]

    @pytest.mark.parametrize(
        ("over", "code"),
        [(batch_object("cancelled", 14, 1), 0), (batch_object("completed", 100), 1)],
        ids=["in time", "too late"],
    )
    def test_with_wait_the_exit_code_says_whether_it_was_cancelled(self, chatd, batch, over, code):
        """A batch may complete while it is being cancelled."""
        chatd.then(self.CANCELLING, self.CANCELLING, Answer.json(over))
        run = batch("cancel", ID, "--wait")

        assert run.exit_code == code
        assert f"\n{ID} {over['status']} after " in run.stdout

    def test_a_batch_without_anything_running_is_cancelled_at_once(self, chatd, batch):
        """There is nothing to wait for."""
        chatd.then(Answer.json(batch_object("cancelled")))
        run = batch("cancel", ID, "--wait")

        assert run.exit_code == 0
        assert run.stdout == f"{ID} cancelled: 0 of 100 items succeeded, 0 failed, 100 not done\n"

    def test_a_batch_that_was_over_before_is_1(self, chatd, batch):
        """Whether the server refuses or only answers."""
        refusal = {"error": {"code": "invalid_request", "message": "it is completed"}}
        chatd.then(Answer.json(refusal, 400), OVER)
        refused, answered = batch("cancel", ID), batch("cancel", ID)

        assert (refused.exit_code, refused.output) == (
            1,
            "Error: invalid_request: it is completed\n",
        )
        assert answered.exit_code == 1
        assert answered.stdout == f"{ID} completed: 100 of 100 items succeeded, 0 failed\n"


class TestList:
    """``chatd batch list``."""

    def page(self, *, has_more=False):
        data = [batch_object(completed=40, id="batch_2"), batch_object("completed", 99, 1)]
        return Answer.json({"object": "list", "data": data, "has_more": has_more})

    def test_each_batch_is_a_line(self, chatd, batch):
        """In the server's order, which is the newest first."""
        chatd.then(self.page())
        run = batch("list")

        assert (run.exit_code, run.stderr) == (0, "")
        assert run.stdout.splitlines() == [
            "2026-11-18T11:06:40Z  batch_2  in_progress  40/100 done, 0 failed",
            f"2026-11-18T11:06:40Z  {ID}  completed    100/100 done, 1 failed",
        ]
        assert chatd.requests[0].path == "/v1/batches?limit=20"

    def test_the_next_page_is_behind_the_last(self, chatd, batch):
        """It says so, and takes it."""
        chatd.then(self.page(has_more=True), self.page())
        first = batch("list", "--limit", "2")
        batch("list", "--limit", "2", "--after", ID)

        assert first.stderr == f"There are more: add --after {ID}\n"
        assert chatd.requests[1].path == f"/v1/batches?limit=2&after={ID}"


class TestAnswers:
    """What every command makes of answers that are none."""

    COMMANDS = (
        ["submit", "{file}", "--patience", "0"],
        ["watch", ID, "--patience", "0"],
        ["results", ID],
        ["cancel", ID],
        ["list"],
    )

    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
    def test_without_a_server_one_line_says_so_and_3(self, command, file):
        """With the address and what to do."""
        url = f"http://127.0.0.1:{free_port()}"
        words = [word.format(file=file) for word in command]
        run = CliRunner().invoke(main, ["batch", *words, "--url", url])

        assert run.exit_code == 3
        assert run.stdout == ""
        assert run.stderr.startswith(
            f"Error: {url} does not answer (ConnectionError); is `chatd up` running?"
        )
        assert len(run.stderr.splitlines()) == 1

    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
    @pytest.mark.parametrize(
        "answer",
        [
            Answer.of(b"<html>It works!</html>"),
            Answer.json({"detail": "Not Found"}, 404),
            Answer.json([1, 2, 3]),
            Answer.json({"object": "list", "data": ["x"]}),
            Answer.of(b"", 301, {"location": "http://127.0.0.1:1/"}),
        ],
        ids=["a page", "another API", "a list", "odd data", "a redirect"],
    )
    def test_something_else_at_that_address_is_told_and_1(
        self, chatd, batch, file, command, answer
    ):
        """In one line as well; nobody follows it elsewhere."""
        chatd.then(answer)
        run = batch(*(word.format(file=file) for word in command))

        assert run.exit_code == 1
        assert run.stderr == (
            f"Error: {chatd.url} answers, but is not a chatd with batches; look at --url\n"
        )
        assert len(chatd.requests) == 1

    @pytest.mark.parametrize("command", [["results", ID], ["watch", ID]], ids=["results", "watch"])
    def test_a_full_disk_behind_standard_output_is_1_and_one_line(self, chatd, command):
        """The batch may well go on: nobody should take this for its end."""
        chatd.then(OVER, Answer.of(LINES * 1000))
        with Path("/dev/full").open("wb") as full:
            run = subprocess.run(
                python("-m", "cli", "batch", *command, "--url", chatd.url),
                cwd=ROOT,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
            )

        assert run.returncode == 1
        assert run.stderr == (
            "Error: the output: No space left on device; a batch that was submitted goes on, "
            "`chatd batch list` shows it\n"
        )

    def test_a_host_that_cannot_be_one_is_3(self):
        """As any that does not answer, and no traceback."""
        url = f"http://{'a' * 64}.example"
        run = CliRunner().invoke(main, ["batch", "list", "--url", url])

        assert run.exit_code == 3
        assert run.stderr.startswith(f"Error: {url} does not answer (")

    def test_a_proxy_in_between_that_reaches_nobody_is_3(self, chatd, batch):
        """Its page is no answer of chatd; chatd may come back."""
        chatd.then(Answer.of(b"<html>Bad gateway</html>", 502))
        run = batch("list")

        assert run.exit_code == 3
        assert run.stderr == f"Error: {chatd.url} answers 502 and does not say why\n"

    def test_a_message_cannot_move_the_cursor(self, chatd, batch):
        """It is shown without what a terminal would obey."""
        chatd.then(Answer.json({"error": {"code": "x", "message": "\x1b[2Ja\nb"}}, 400))
        run = batch("list")

        assert run.stderr == "Error: x: \ufffd[2Ja\ufffdb\n"


def test_the_help_tells_the_exit_codes() -> None:
    """Line by line, as they were written."""
    run = CliRunner().invoke(main, ["batch", "--help"])

    assert run.exit_code == 0
    for code in ("0    done", "1    refused", "2    the command", "3    chatd", "130  Ctrl-C"):
        assert f"\n    {code}" in run.output


def test_the_other_commands_do_not_load_what_batches_need() -> None:
    """The front end has to replace sockets before anything holds on to them."""
    code = "import sys, cli.main; print([m for m in ('requests', 'rich') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(ROOT), capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
