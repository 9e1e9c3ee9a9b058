"""``chatd eval`` against a scripted chatd: what goes over the wire, what is said, how it exits."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from api.multipart import read_parts
from chat.evaluations.suite import read_suite
from cli.main import main
from cli.redis_server import free_port
from tests.eval_objects import ID, OTHER_ID, evaluation_object, model, row, summary_of
from tests.servers import ROOT, python
from tests.upstream import Answer, End, ScriptedUpstream

SUITE = """\
name = "sums"
dataset = "sums.jsonl"
models = ["small", {model = "small", name = "kimi/x, hot", parameters = {temperature = 1}}]
[[scorers]]
type = "numeric"
"""
SAMPLES = [{"id": f"q{n}", "prompt": f"What is {n}?", "expected": n} for n in range(1, 21)]
DATASET = "".join(f"{json.dumps(sample)}\n" for sample in SAMPLES).encode()
MODELS = ("small", "kimi/x, hot")
#: Fifteen of twenty are right, and all of the other model's.
ROWS = [
    *(row(f"q{n}", float(n % 4 > 0)) for n in range(1, 21)),
    *(row(f"q{n}", 1.0, MODELS[1]) for n in range(1, 21)),
]
SUMMARY = summary_of(ROWS, *MODELS)
INTERVAL = "95 % interval 0.53 to 0.89, 20 samples"
#: The first model is worse in six samples, and the second gone.
LATER = [row(f"q{n}", float(n % 4 > 0 and n > 8)) for n in range(1, 21)]
COMPARED = """\
small
scorer      A     B  B - A   95 % interval  better  worse  same      p  samples
numeric  0.75  0.45  -0.30  -0.51 to -0.09       0      6    14  0.031       20
numeric worse: q1, q2, q3, q5, q6, q7
"""

STORED = Answer.json({"id": "file-in", "object": "file", "purpose": "batch"})
MADE = Answer.json(evaluation_object("validating"))
RUNNING = Answer.json(evaluation_object("in_progress", *(model(name, 8) for name in MODELS)))
OVER = Answer.json(evaluation_object("completed", *(model(name) for name in MODELS)))
FIGURES = Answer.json(SUMMARY)
PAGE = Answer.of(b"<!doctype html>", headers={"content-type": "text/html; charset=utf-8"})
NO_REDIS = Answer.json({"error": {"code": "redis_unavailable", "message": "Redis is away"}}, 503)
LOST = Answer.raw(End.RESET)


def lines_of(rows) -> Answer:
    return Answer.of("".join(f"{json.dumps(one)}\n" for one in rows).encode())


@pytest.fixture
def chatd():
    """Something that answers like chatd, or like something else."""
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, beside that of the suite."""
    (tmp_path / "suite").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def suite(tmp_path):
    """A suite with its dataset."""
    (tmp_path / "suite" / "sums.jsonl").write_bytes(DATASET)
    path = tmp_path / "suite" / "sums.toml"
    path.write_text(SUITE, "utf-8")
    return path


@pytest.fixture
def evaluate(chatd):
    """Runs ``chatd eval`` at that server."""

    def evaluate(*arguments):
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(main, ["eval", *words, "--url", chatd.url])

    return evaluate


class TestRun:
    """``chatd eval run``."""

    def test_a_suite_becomes_an_evaluation_that_is_watched_to_its_report(
        self, chatd, evaluate, suite, folder
    ):
        """The id comes first, then progress, the outcome, the table, and where the report is."""
        chatd.then(STORED, MADE, RUNNING, OVER, FIGURES, PAGE)
        run = evaluate("run", suite)
        told = run.stdout.splitlines()

        assert (run.exit_code, run.stderr) == (0, "")
        assert told[0] == ID
        assert "Z in_progress 40%, 16/40 answered, 0 errored" in told[1]
        assert "small: 8/20 answered" in told[2]
        assert told[7] == f"{ID} completed after 12m 03s: 40 of 40 questions answered, 0 errored"
        assert told[9].startswith("model        scorer   mean  95 % interval")
        assert told[10].split()[:3] == ["small", "numeric", "0.75"]
        assert told[-1] == f"report: sums-{ID}.html"
        assert [path.name for path in folder.iterdir()] == [f"sums-{ID}.html"]
        assert (folder / f"sums-{ID}.html").read_bytes() == b"<!doctype html>"

    def test_it_sends_the_dataset_and_then_the_suite(self, chatd, evaluate, suite):
        """As they stand in their files."""
        chatd.then(STORED, MADE)
        run = evaluate("run", suite, "--detach", "--metadata", "commit=1801db3")
        stored, made = chatd.requests
        parts = read_parts(io.BytesIO(stored.body), stored.headers["content-type"])
        (_, _, purpose), (_, name, content) = (
            (part.name, part.filename, b"".join(part.pieces)) for part in parts
        )

        assert (run.exit_code, run.output) == (0, f"{ID}\n")
        assert (stored.method, stored.path) == ("POST", "/v1/files")
        assert (purpose, name, content) == (b"batch", "sums.jsonl", DATASET)
        assert (made.method, made.path) == ("POST", "/v1/evaluations")
        body = made.json()
        assert (body["input_file_id"], body["metadata"]) == ("file-in", {"commit": "1801db3"})
        assert read_suite(body["suite"]).candidates[1].label == "kimi/x, hot"

    def test_options_change_what_is_sent(self, chatd, evaluate, suite):
        """The first samples, other models, another name, and no cache."""
        chatd.then(STORED, MADE)
        evaluate(
            *("run", suite, "--detach", "--limit", "2", "--no-cache", "--name", "again"),
            *("--model", "kimi/x, hot", "--model", "big"),
        )
        stored, made = chatd.requests
        sent = made.json()["suite"]

        assert b"".join(DATASET.splitlines(keepends=True)[:2]) + b"\r\n--" in stored.body
        assert (sent["name"], sent["cache"]) == ("again", False)
        assert [one if isinstance(one, str) else one["name"] for one in sent["models"]] == [
            "kimi/x, hot",
            "big",
        ]

    @pytest.mark.parametrize("trouble", [LOST, NO_REDIS], ids=["lost answer", "no Redis"])
    def test_a_repeated_creation_has_the_same_key(self, chatd, evaluate, suite, trouble):
        """The first may have started one: it must not become two."""
        chatd.then(STORED, trouble, MADE)
        run = evaluate("run", suite, "--detach", "--interval", "1")
        _, first, second = chatd.requests

        assert (run.exit_code, run.stdout) == (0, f"{ID}\n")
        assert "(waiting up to 5m 00s for it)" in run.stderr
        assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
        assert first.body == second.body

    def test_when_it_is_not_known_whether_one_was_started_that_is_said(
        self, chatd, evaluate, suite
    ):
        """With where to look."""
        chatd.then(STORED, LOST)
        run = evaluate("run", suite, "--patience", "0")

        assert (run.exit_code, run.stdout) == (3, "")
        assert run.stderr.splitlines()[0] == (
            "the dataset is stored as file-in, but whether an evaluation was started is not known; "
            "`chatd eval list` tells."
        )

    def test_what_is_wrong_is_told_before_anything_is_sent(self, chatd, evaluate, suite):
        """Each fault with its place, and 2."""
        with (suite.parent / "sums.jsonl").open("ab") as data:
            data.write(b'{"id": "q1", "prompt": "?", "expected": 1}\n{\n')
        run = evaluate("run", suite)
        told = run.stderr.splitlines()

        assert (run.exit_code, run.stdout, chatd.requests) == (2, "", [])
        assert [line.split(": ")[0] for line in told] == [
            f"{suite.parent / 'sums.jsonl'}:{number}" for number in (21, 22)
        ]

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            (["{dir}/none.toml"], "none.toml' does not exist"),
            (["{suite}", "--fail-under", "2"], "'2' is not 0.8, SCORER=0.8 or MODEL/SCORER=0.8"),
            (["{suite}", "--fail-under", "judge=0.8"], "'judge=0.8' is for no score of this suite"),
            (["{suite}", "--detach", "--fail-under", "0.8"], "--detach does not wait for the end"),
            (["{suite}", "--report", "{dir}/no/x.html"], "there is no folder for"),
            (["{suite}", "--limit", "0"], "0 is not in the range"),
            (["{suite}", "--min-coverage", "2"], "2.0 is not in the range"),
        ],
        ids=["no file", "score", "scorer", "detached", "folder", "limit", "coverage"],
    )
    def test_a_wrong_command_line_is_2(self, chatd, evaluate, suite, arguments, fault):
        """Before anything is sent."""
        words = [word.format(dir=suite.parent, suite=suite) for word in arguments]
        run = evaluate("run", *words)

        assert run.exit_code == 2
        assert fault in run.output
        assert chatd.requests == []

    def test_what_chatd_refuses_is_one_line_and_1(self, chatd, evaluate, suite):
        """Such as a model that leads nowhere."""
        refusal = {"error": {"code": "provider_not_registered", "message": "suite.models[0]: …"}}
        chatd.then(STORED, Answer.json(refusal, 404))
        run = evaluate("run", suite)

        assert (run.exit_code, run.output) == (
            1,
            "Error: provider_not_registered: suite.models[0]: …\n",
        )

    def test_a_dataset_that_is_not_taken_is_1_with_its_faults(self, chatd, evaluate, suite):
        """There is no table, and no report."""
        fault = {"code": "too_large", "line": 7, "message": "the line is longer than 9 bytes"}
        errors = {"object": "list", "data": [fault]}
        chatd.then(STORED, MADE, Answer.json(evaluation_object("failed", errors=errors)))
        run = evaluate("run", suite)

        assert run.exit_code == 1
        assert run.stdout.splitlines()[-2:] == [
            f"{ID} failed: 1 fault in its dataset, nothing was asked",
            "  line 7: the line is longer than 9 bytes (too_large)",
        ]
        assert len(chatd.requests) == 3

    def test_a_report_goes_where_it_is_wanted(self, chatd, evaluate, suite, folder):
        """Or nowhere."""
        chatd.then(STORED, MADE, OVER, FIGURES, PAGE, STORED, MADE, OVER, FIGURES)
        saved = evaluate("run", suite, "--report", "r.html")
        nowhere = evaluate("run", suite, "--report", "-")

        assert (saved.exit_code, nowhere.exit_code) == (0, 0)
        assert [path.name for path in folder.iterdir()] == ["r.html"]
        assert nowhere.stdout.endswith(
            f"report: `chatd eval report {ID} -o FILE --url {chatd.url}`\n"
        )

    def test_a_front_end_that_restarts_at_the_end_is_waited_for(self, chatd, evaluate, suite):
        """Figures and report are fetched all the same."""
        chatd.then(STORED, MADE, OVER, LOST, NO_REDIS, FIGURES, NO_REDIS, PAGE)
        run = evaluate("run", suite, "--interval", "1")

        assert run.exit_code == 0
        assert run.stdout.endswith(f"report: sums-{ID}.html\n")


class TestExit:
    """What a CI system learns of the end."""

    @pytest.mark.parametrize(
        ("options", "code", "told"),
        [
            ([], 0, ""),
            (["--fail-under", "0.75"], 0, ""),
            (["--fail-under", "kimi/x, hot/numeric=1"], 0, ""),
            (
                ["--fail-under", "numeric=0.8"],
                4,
                f"small/numeric: 0.75 ({INTERVAL}) is under 0.8 (--fail-under)\n",
            ),
        ],
        ids=["none", "reached", "reached by one", "missed"],
    )
    def test_a_mean_under_its_threshold_is_4(self, chatd, evaluate, options, code, told):
        """With its interval."""
        chatd.then(OVER, FIGURES)
        run = evaluate("watch", ID, *options)

        assert (run.exit_code, run.stderr) == (code, told)

    @pytest.mark.parametrize(("least", "code"), [(1, 1), (0.95, 0)], ids=["all", "most"])
    def test_less_coverage_than_is_wanted_is_1(self, chatd, evaluate, least, code):
        """Whatever the mean of the rest is."""
        figures = summary_of([*ROWS[:19], row("q20", None), *ROWS[20:]], *MODELS)
        chatd.then(OVER, Answer.json(figures))
        run = evaluate("watch", ID, "--min-coverage", least, "--fail-under", "0.5")

        assert run.exit_code == code
        assert ("small/numeric: 19 of 20 questions scored" in run.stderr) is bool(code)

    def test_too_little_coverage_goes_before_a_threshold(self, chatd, evaluate):
        """A mean of a part says little about the whole."""
        figures = summary_of([*ROWS[:19], row("q20", None), *ROWS[20:]], *MODELS)
        chatd.then(OVER, Answer.json(figures))
        run = evaluate("watch", ID, "--fail-under", "0.9")

        assert run.exit_code == 1
        assert "is under 0.9 (--fail-under)" in run.stderr

    @pytest.mark.parametrize("status", ["expired", "cancelled"])
    def test_what_was_not_completed_is_1(self, chatd, evaluate, status):
        """With the table of what there is."""
        over = evaluation_object(status, *(model(name, 19, {"x": 1}) for name in MODELS))
        chatd.then(Answer.json(over), FIGURES)
        run = evaluate("watch", ID)

        assert (run.exit_code, run.stderr) == (1, "")
        assert "numeric" in run.stdout

    def test_one_that_was_cancelled_before_it_began_has_no_table(self, chatd, evaluate):
        """Nothing was asked."""
        chatd.then(Answer.json(evaluation_object("cancelled", round=0, samples=0)))
        run = evaluate("watch", ID)

        assert run.exit_code == 1
        assert run.stdout.endswith(f"{ID} cancelled after 7s: nothing was asked\n")

    def test_a_threshold_for_nothing_ends_the_watch_at_once(self, chatd, evaluate):
        """Not after the hours that the evaluation takes."""
        chatd.then(RUNNING)
        run = evaluate("watch", ID, "--fail-under", "polite=0.8")

        assert run.exit_code == 2
        assert (
            "'polite=0.8' is for no score of this suite; its scorers are \"numeric\"" in run.stderr
        )


class TestWatch:
    """``chatd eval watch``."""

    def test_a_front_end_that_stays_away_is_3(self, evaluate, chatd):
        """With the way back."""
        chatd.then(RUNNING, NO_REDIS)
        run = evaluate("watch", ID, "--patience", "0")

        assert run.exit_code == 3
        assert run.stderr == (
            f"Error: redis_unavailable: Redis is away; `chatd eval watch {ID} --url {chatd.url}` "
            "comes back to it\n"
        )

    def test_ctrl_c_detaches(self, chatd):
        """The evaluation is left alone; the exit code is that of an interrupt."""
        chatd.always(RUNNING)
        process = subprocess.Popen(
            python("-m", "cli", "eval", "watch", ID, "--url", chatd.url),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        chatd.wait_for(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

        assert process.returncode == 130
        assert "Z in_progress 40%, 16/40 answered, 0 errored\n" in out
        assert err == (
            f"Detached; {ID} goes on. `chatd eval watch {ID} --url {chatd.url}` comes back to it, "
            f"`chatd eval cancel {ID} --url {chatd.url}` stops it.\n"
        )
        assert {request.method for request in chatd.requests} == {"GET"}


class TestRetryAndCancel:
    """``chatd eval retry`` and ``cancel``."""

    def test_a_retry_is_watched(self, chatd, evaluate):
        """To the end of its round."""
        chatd.then(RUNNING, RUNNING, OVER, FIGURES)
        run = evaluate("retry", ID)

        assert run.exit_code == 0
        assert [(request.method, request.path) for request in chatd.requests] == [
            ("POST", f"/v1/evaluations/{ID}/retry"),
            ("GET", f"/v1/evaluations/{ID}"),
            ("GET", f"/v1/evaluations/{ID}"),
            ("GET", f"/v1/evaluations/{ID}/report?format=json"),
        ]

    def test_a_retry_of_nothing_is_1(self, chatd, evaluate):
        """The server says why."""
        refusal = {"error": {"code": "invalid_request", "message": "there is nothing to ask again"}}
        chatd.then(Answer.json(refusal, 400))
        run = evaluate("retry", ID, "--detach")

        assert (run.exit_code, run.output) == (
            1,
            "Error: invalid_request: there is nothing to ask again\n",
        )

    @pytest.mark.parametrize(
        ("found", "code"),
        [
            (evaluation_object("cancelling", model("small", 3)), 0),
            (evaluation_object("cancelled", model("small", 3)), 0),
            (evaluation_object("completed", model("small")), 1),
        ],
        ids=["in time", "at once", "too late"],
    )
    def test_a_cancel_says_how_far_it_was(self, chatd, evaluate, found, code):
        """And whether it came in time."""
        chatd.then(Answer.json(found))
        run = evaluate("cancel", ID)
        (request,) = chatd.requests

        assert (request.method, request.path) == ("POST", f"/v1/evaluations/{ID}/cancel")
        assert run.exit_code == code
        assert run.stdout.startswith(f"{ID}  sums  {found['status']}: ")
        assert ("waits for its end" in run.stdout) is (found["status"] == "cancelling")


class TestReport:
    """``chatd eval report`` and ``show``."""

    @pytest.mark.parametrize("kind", ["html", "json", "jsonl", "csv", "junit"])
    def test_a_report_goes_to_standard_output(self, chatd, evaluate, kind):
        """Byte for byte, and nothing else with it."""
        chatd.then(Answer.of(b"\xc3\xa4" * 100_000))
        run = evaluate("report", ID, "--format", kind)

        assert (run.exit_code, run.stderr) == (0, "")
        assert run.stdout_bytes == b"\xc3\xa4" * 100_000
        (request,) = chatd.requests
        assert request.path == f"/v1/evaluations/{ID}/report?format={kind}"
        assert request.headers["accept-encoding"] == "identity"

    def test_a_file_appears_when_it_is_whole(self, chatd, evaluate, folder):
        """A download that breaks off leaves what was there."""
        (folder / "r.csv").write_bytes(b"old")
        chatd.then(Answer.cut(b"x" * 1000, 10), Answer.of(b"new"))
        cut = evaluate("report", ID, "--format", "csv", "-o", "r.csv")
        kept = (folder / "r.csv").read_bytes()
        whole = evaluate("report", ID, "--format", "csv", "-o", "r.csv")

        assert (cut.exit_code, kept) == (1, b"old")
        assert cut.stderr.startswith(f"Error: {chatd.url} broke off in the report of {ID} after ")
        assert (whole.exit_code, whole.output) == (0, "report: r.csv\n")
        assert (folder / "r.csv").read_bytes() == b"new"
        assert len(list(folder.iterdir())) == 1

    def test_on_a_terminal_it_goes_to_a_file(self, chatd, folder):
        """What models have written is for no terminal as it stands."""
        chatd.then(OVER, Answer.of(b"\x1b[2J"))
        command = python("-m", "cli", "eval", "report", ID, "--format", "csv", "--url", chatd.url)
        code = f"import pty, sys; sys.exit(pty.spawn({command!r}) >> 8)"
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=True,
        )

        assert run.stdout == f"report: sums-{ID}.csv\r\n".encode()
        assert (folder / f"sums-{ID}.csv").read_bytes() == b"\x1b[2J"

    def test_before_the_end_there_is_none(self, chatd, evaluate, folder):
        """The server says how far it is; no file appears."""
        refusal = {"error": {"code": "invalid_request", "message": "it is in_progress"}}
        chatd.then(Answer.json(refusal, 400))
        run = evaluate("report", ID, "-o", "r.html")

        assert (run.exit_code, run.output) == (1, "Error: invalid_request: it is in_progress\n")
        assert list(folder.iterdir()) == []

    def test_show_tells_the_end_or_how_far_it_is(self, chatd, evaluate):
        """Either without waiting for anything."""
        chatd.then(RUNNING, OVER, FIGURES)
        running, over = evaluate("show", ID), evaluate("show", ID)

        assert (running.exit_code, over.exit_code) == (0, 0)
        assert running.stdout.splitlines()[1] == "  small: 8/20 answered, 0 errored, numeric 0.85"
        assert over.stdout.startswith(f"{ID} completed after 12m 03s")
        assert "0.75   0.53 to 0.89" in over.stdout


class TestCompare:
    """``chatd eval compare``."""

    def script(self, chatd, rows):
        """Two evaluations: the usual one and one with these rows."""
        later = Answer.json(summary_of(rows, id=OTHER_ID))
        chatd.then(FIGURES, lines_of(ROWS), later, lines_of(rows))

    def test_two_runs_are_compared_from_their_rows(self, chatd, evaluate):
        """What changed stands below."""
        self.script(chatd, LATER)
        run = evaluate("compare", ID, OTHER_ID)

        assert (run.exit_code, run.stderr) == (0, "")
        assert [request.path for request in chatd.requests] == [
            f"/v1/evaluations/{name}/report?format={kind}"
            for name in (ID, OTHER_ID)
            for kind in ("json", "jsonl")
        ]
        assert run.stdout.endswith(f"\n\n{COMPARED}")

    def test_as_json(self, chatd, evaluate):
        """Nothing but that."""
        self.script(chatd, LATER)
        run = evaluate("compare", ID, OTHER_ID, "--json", "--scorer", "numeric")
        (pair,) = json.loads(run.stdout)["comparisons"]

        assert (pair["losses"], pair["worse"]) == (6, ["q1", "q2", "q3", "q5", "q6", "q7"])

    @pytest.mark.parametrize(
        ("rows", "code", "told"),
        [
            (ROWS[:20], 0, ""),
            (LATER, 4, "small/numeric is worse (--fail-if-worse)\n"),
            ([row(f"q{n}", None) for n in range(1, 21)], 1, ""),
        ],
        ids=["the same", "worse", "nothing known"],
    )
    def test_a_difference_to_the_worse_is_4(self, chatd, evaluate, rows, code, told):
        """If that is asked for; what is not known is no success either."""
        self.script(chatd, rows)
        run = evaluate("compare", ID, OTHER_ID, "--fail-if-worse")

        assert (run.exit_code, run.stderr) == (code, told)

    def test_what_cannot_be_compared_is_1(self, chatd, evaluate):
        """With the reason."""
        self.script(chatd, [row("other", 1.0)])
        run = evaluate("compare", ID, OTHER_ID)

        assert run.exit_code == 1
        assert run.stderr.startswith(f"Error: {ID} and {OTHER_ID} have no common samples: ")


class TestRest:
    """``list``, ``cache``, ``check`` and ``schema``."""

    def test_each_evaluation_is_a_line(self, chatd, evaluate):
        """In the server's order, with the way to more."""
        data = [evaluation_object("in_progress", model("small", 8)), evaluation_object("completed")]
        chatd.then(Answer.json({"object": "list", "data": data, "has_more": True}))
        run = evaluate("list", "--limit", "2", "--after", OTHER_ID)

        assert [line.split("  ")[2] for line in run.stdout.splitlines()] == [
            "in_progress",
            "completed",
        ]
        assert run.stderr == f"There are more: add --after {ID}\n"
        assert chatd.requests[0].path == f"/v1/evaluations?limit=2&after={OTHER_ID}"

    def test_known_answers_are_counted_and_forgotten(self, chatd, evaluate):
        """None have no oldest one."""
        chatd.then(
            Answer.json({"answers": 1, "bytes": 2_345_678, "oldest_at": 1_795_000_000}),
            Answer.json({"deleted": 1}),
            Answer.json({"answers": 0, "bytes": 0, "oldest_at": None}),
        )

        assert [evaluate("cache", *clear).stdout for clear in ([], ["--clear"], [])] == [
            "1 answer known, 2.3 MB, the oldest of 2026-11-18T11:06:40Z\n",
            "1 answer forgotten\n",
            "0 answers known, 0.0 MB\n",
        ]
        assert [request.method for request in chatd.requests] == ["GET", "DELETE", "GET"]

    def test_check_and_schema_need_no_chatd(self, suite):
        """They are for the desk and for editors."""
        check = CliRunner().invoke(main, ["eval", "check", str(suite), "--limit", "5"])
        schema = CliRunner().invoke(main, ["eval", "schema"])

        assert (check.exit_code, check.output) == (
            0,
            f"{suite}: 5 samples x 2 models x 1 repeat: 10 answers\n",
        )
        assert "scorers" in json.loads(schema.output)["properties"]

    def test_check_looks_at_what_the_configuration_takes(self, suite, tmp_path, monkeypatch):
        """As chatd itself will."""
        config = tmp_path / "lakehouse.toml"
        config.write_text("[chatd]\nbatch_max_lines = 30\n", "utf-8")
        monkeypatch.setenv("LAKEHOUSE_CONFIG", str(config))
        run = CliRunner().invoke(main, ["eval", "check", str(suite)])

        assert run.exit_code == 2
        assert "more than 30 answers are asked for (batch_max_lines)" in run.stderr


class TestAnswers:
    """What every command makes of answers that are none."""

    COMMANDS = (
        ["run", "{suite}", "--patience", "0"],
        ["watch", ID, "--patience", "0"],
        ["retry", ID],
        ["cancel", ID],
        ["report", ID],
        ["show", ID],
        ["compare", ID, OTHER_ID],
        ["list"],
        ["cache"],
        ["cache", "--clear"],
    )

    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_without_a_server_one_line_says_so_and_3(self, command, suite):
        """With the address and what to do."""
        url = f"http://127.0.0.1:{free_port()}"
        words = [word.format(suite=suite) for word in command]
        run = CliRunner().invoke(main, ["eval", *words, "--url", url])

        assert (run.exit_code, run.stdout) == (3, "")
        assert run.stderr.startswith(
            f"Error: {url} does not answer (ConnectionError); is `chatd up` running?"
        )
        assert len(run.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        "command", [one for one in COMMANDS if one[0] != "report"], ids=" ".join
    )
    @pytest.mark.parametrize(
        "answer",
        [
            Answer.of(b"<html>It works!</html>"),
            Answer.json({"detail": "Not Found"}, 404),
            Answer.json([1, 2, 3]),
            Answer.json({"object": "list", "data": ["x"], "evaluation": 1}),
            Answer.of(b"", 301, {"location": "http://127.0.0.1:1/"}),
        ],
        ids=["a page", "another API", "a list", "odd data", "a redirect"],
    )
    def test_something_else_at_that_address_is_told_and_1(
        self, chatd, evaluate, suite, command, answer
    ):
        """In one line as well; nobody follows it elsewhere."""
        chatd.then(answer)
        run = evaluate(*(word.format(suite=suite) for word in command))

        assert run.exit_code == 1
        assert run.stderr == (
            f"Error: {chatd.url} answers, but is not a chatd with evaluations; look at --url\n"
        )
        assert len(chatd.requests) == 1


def test_the_help_tells_the_exit_codes() -> None:
    """Line by line, as they were written."""
    run = CliRunner().invoke(main, ["eval", "--help"])

    assert run.exit_code == 0
    for code in ("0    done", "1    refused", "2    the", "3    chatd", "4    a mean", "130  Ctrl"):
        assert f"\n    {code}" in run.output
