"""The log of a process: one line an event whatever happens, with the ids it is found by."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading

import gevent
import pytest

from chat.logs import log_context, log_event
from tests.log_lines import logging_into_memory

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Unprintable:
    """Whatever somebody may log."""

    def __str__(self):
        raise ZeroDivisionError

    __repr__ = __str__


@pytest.fixture
def written():
    with logging_into_memory() as written:
        yield written


def run(script, form="json"):
    """Exit code and lines of a process that configures its logging and then runs ``script``."""
    head = (
        "import sys, threading, warnings, logging\nfrom chat.logs import configure\n"
        f"configure('test', 'info', {form!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr.splitlines()


class TestJson:
    """The usual form."""

    def test_an_event_says_when_how_bad_where_and_what(self, written):
        """The time is UTC to the millisecond."""
        written.configure().warning("%d jobs of %s", 3, "kimi")
        (event,) = written.events
        time = event.pop("time")

        assert TIME.fullmatch(time)
        assert event == {
            "level": "warning",
            "process": "test",
            "logger": "test.logs",
            "message": "3 jobs of kimi",
        }

    @pytest.mark.parametrize(
        "message",
        [
            "one\ntwo",
            "one\r\ntwo",
            "one\u2028two\x85three",
            "Größe „5“ 模型 🙂",
            "\ud83d",
            "\x1b[2J",
            '"',
        ],
        ids=["LF", "CR LF", "Unicode's", "non-ASCII", "half a pair", "terminal", "quote"],
    )
    def test_a_message_stays_on_one_line_and_comes_back_whole(self, written, message):
        """Whatever is in it, and whatever the terminal's encoding."""
        written.configure().info(message)

        assert written.stream.getvalue().isascii()
        assert [event["message"] for event in written.events] == [message]

    def test_fields_of_an_event_keep_their_types(self, written):
        """So that a program can count with them."""
        fields = {"job_id": "job_1", "status": 502, "ms": 1.5, "late": False, "tags": ["a", "ü"]}
        written.configure().info("x", extra={**fields, "absent": None})
        (event,) = written.events

        assert {name: event[name] for name in fields} == fields
        assert "absent" not in event

    def test_fields_cannot_pass_for_what_every_line_has(self, written):
        """Those are ours."""
        fields = {"time": "never", "level": "none", "logger": "nobody", "exception": "no"}
        logger = written.configure()
        try:
            raise ValueError("real")  # noqa: TRY301 - its traceback is wanted
        except ValueError:
            logger.exception("x", extra=fields)
        (event,) = written.events

        assert TIME.fullmatch(event["time"])
        assert (event["level"], event["logger"]) == ("error", "test.logs")
        assert event["exception"].endswith("ValueError: real")

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (
                {
                    1,
                },
                "{1}",
            ),
            (float("inf"), "inf"),
            ({("a", "b"): 1}, "{('a', 'b'): 1}"),
            (10**5000, "<int that cannot be shown>"),
            (Unprintable(), "<Unprintable that cannot be shown>"),
            ([threading.Lock], f"{[str(threading.Lock)]}"),
        ],
        ids=["set", "infinite", "key that is no text", "huge", "unprintable", "inside a list"],
    )
    def test_what_json_does_not_know_is_written_as_text(self, written, value, text):
        """And the fields beside it stay as they are."""
        written.configure().info("x", extra={"value": value, "beside": 1})
        (event,) = written.events

        assert f"{event['value']}" == text
        assert event["beside"] == 1

    def test_a_value_that_contains_itself_is_written_as_text(self, written):
        """Not for ever."""
        ring: list[object] = []
        ring.append(ring)
        written.configure().info("x", extra={"ring": ring})

        assert written.events[0]["ring"] == "[[...]]"

    @pytest.mark.parametrize(
        ("message", "arguments", "shown"),
        [
            ("%d jobs", ("many",), "%d jobs (does not fit its arguments ('many',))"),
            ("%s and %s", ("one",), "%s and %s (does not fit its arguments ('one',))"),
            (
                "%s",
                (Unprintable(),),
                "%s (does not fit its arguments <tuple that cannot be shown>)",
            ),
        ],
        ids=["type", "number", "unprintable"],
    )
    def test_a_message_that_does_not_fit_its_arguments_is_a_line_too(
        self, written, message, arguments, shown
    ):
        """Python would print a traceback of its own instead."""
        written.configure().info(message, *arguments)

        assert [event["message"] for event in written.events] == [shown]

    def test_a_traceback_is_on_the_line_of_its_event(self, written):
        """With what caused it."""
        logger = written.configure()
        try:
            try:
                raise KeyError("first\nand more")  # noqa: TRY301 - its traceback is wanted
            except KeyError as error:
                raise ValueError("second") from error
        except ValueError:
            logger.exception("it failed")
        (event,) = written.events

        assert event["message"] == "it failed"
        assert event["exception"].startswith("Traceback (most recent call last):\n")
        assert "KeyError: 'first\\nand more'" in event["exception"]
        assert event["exception"].endswith("ValueError: second")

    def test_an_exception_that_is_none_adds_nothing(self, written):
        """Somebody logs "exception" where there is no exception."""
        written.configure().error("x", exc_info=True)

        assert "exception" not in written.events[0]

    def test_an_event_is_a_line_like_any_other(self, written):
        """With its fields, but those that a line has anyway; and only from the level up."""
        logger = written.configure(level="info")
        logger.info("%s of %d", "one", 2, extra={"job_id": "j", "none": None})
        log_event(logger, logging.INFO, "%s of %d", "one", 2, job_id="j", none=None, name="other")
        log_event(logger, logging.DEBUG, "not this one")

        usual, event = written.events
        assert usual.keys() == event.keys()
        assert usual | {"time": ""} == event | {"time": ""}

    def test_a_stack_is_on_the_line_as_well(self, written):
        """Where it was asked for."""
        written.configure().info("x", stack_info=True)

        assert "test_a_stack_is_on_the_line_as_well" in written.events[0]["stack"]

    def test_below_the_level_nothing_is_written(self, written):
        """Whichever library it is from."""
        written.configure(level="warning")
        for name in ("test.logs", "some.library"):
            logging.getLogger(name).info("quiet")
            logging.getLogger(name).warning("loud")

        assert [event["message"] for event in written.events] == ["loud", "loud"]

    def test_what_may_repeat_a_key_stays_silent(self, written):
        """urllib3 quotes headers it cannot read; Celery reports what the record has."""
        written.configure()
        for name in ("urllib3.connection", "celery.worker.strategy", "celery.app.trace"):
            logging.getLogger(name).info("from %s", name)
        logging.getLogger("urllib3.connection").warning("Failed to parse headers: sk-secret")

        assert written.lines == []

    def test_configuring_twice_writes_once(self, written):
        """The second form counts."""
        written.configure("text")
        written.configure().info("x")

        assert [event["message"] for event in written.events] == ["x"]


class TestText:
    """The form for people."""

    def test_a_line_begins_with_time_level_and_process(self, written):
        """And ends with the ids."""
        logger = written.configure("text")
        logger.info("plain")
        with log_context(request_id="req_1"):
            logger.error("of %s", "both", extra={"job_id": "job_2", "status": 1})
        times = [line[:23] for line in written.lines]

        assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", time) for time in times)
        assert [line[23:] for line in written.lines] == [
            " INFO test: plain",
            " ERROR test: of both [request_id=req_1 job_id=job_2]",
        ]

    def test_nothing_in_a_message_or_id_can_begin_a_line(self, written):
        """A caller could forge one, or speak to the terminal."""
        written.configure("text").info("a\nb\x1b[2J\u2028c", extra={"job_id": "x\ny"})

        assert len(written.lines) == 1
        assert written.lines[0].endswith(r"test: a\nb\x1b[2J\u2028c [job_id=x\ny]")

    def test_a_traceback_follows_its_line(self, written):
        """As a person reads it."""
        logger = written.configure("text")
        try:
            raise ValueError("why")  # noqa: TRY301 - its traceback is wanted
        except ValueError:
            logger.exception("it failed", stack_info=True)

        assert written.lines[0].endswith("ERROR test: it failed")
        assert written.lines[1] == "Traceback (most recent call last):"
        assert "ValueError: why" in written.lines
        assert "Stack (most recent call last):" in written.lines


class TestContext:
    """The ids that everything logged meanwhile carries."""

    def ids(self, written):
        return [(event.get("request_id"), event.get("job_id")) for event in written.events]

    def test_it_holds_inside_and_ends_with_it(self, written):
        """One inside another adds to it; ``None`` takes nothing away."""
        logger = written.configure()
        logger.info("before")
        with log_context(request_id="r"):
            logging.getLogger("some.library").info("a library's")
            with log_context(job_id="j", request_id=None):
                logger.info("both")
                with log_context(job_id="other"):
                    logger.info("inner")
            logger.info("one again")
        logger.info("after")

        assert self.ids(written) == [
            (None, None),
            ("r", None),
            ("r", "j"),
            ("r", "other"),
            ("r", None),
            (None, None),
        ]

    def test_an_exception_ends_it_too(self, written):
        """The next line is somebody else's."""
        logger = written.configure()
        with pytest.raises(ZeroDivisionError), log_context(job_id="j"):
            raise ZeroDivisionError
        logger.info("x")

        assert self.ids(written) == [(None, None)]

    def test_an_event_that_names_its_job_means_that_one(self, written):
        """The keeper works on many."""
        logger = written.configure()
        with log_context(job_id="outer"):
            logger.info("x", extra={"job_id": "own"})
            logger.info("x", extra={"job_id": None})

        assert self.ids(written) == [(None, "own"), (None, "outer")]

    def test_threads_do_not_see_each_others(self, written):
        """Each is inside its own at the same moment; one that is started inside has none."""
        logger = written.configure()
        together = threading.Barrier(2, timeout=30)

        def work(name):
            with log_context(job_id=name):
                together.wait()
                logger.info(name)
                together.wait()

        with log_context(request_id="r"):
            threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        assert sorted(self.ids(written)) == [(None, "a"), (None, "b")]
        assert all(event["message"] == event["job_id"] for event in written.events)

    def test_greenlets_do_not_see_each_others(self, written):
        """The front end has one per connection."""
        logger = written.configure()

        def answer(name):
            with log_context(request_id=name):
                for _ in range(3):
                    gevent.sleep(0)
                    logger.info(name)
            logger.info("after")

        gevent.joinall([gevent.spawn(answer, name) for name in ("a", "b", "c")], raise_error=True)
        inside = [event for event in written.events if event["message"] != "after"]
        after = [event for event in written.events if event["message"] == "after"]

        assert [event["message"] for event in inside[:3]] == ["a", "b", "c"]
        assert all(event["request_id"] == event["message"] for event in inside)
        assert len(after) == 3
        assert all("request_id" not in event for event in after)


class TestUncaught:
    """What nobody catches is logged like everything else."""

    def test_what_ends_the_process(self):
        """One line, and Python's exit code."""
        code, lines = run("raise ValueError('a\\nb')")
        (event,) = map(json.loads, lines)

        assert code == 1
        assert (event["level"], event["process"]) == ("critical", "test")
        assert event["exception"].endswith("ValueError: a\nb")

    def test_what_ends_a_thread(self):
        """With its name; one that ends itself has nothing to tell."""
        script = """
def work(what):
    raise what("in a thread")
for what in (SystemExit, ValueError):
    thread = threading.Thread(target=work, args=(what,), name="beat")
    thread.start()
    thread.join()
"""
        code, lines = run(script)
        (event,) = map(json.loads, lines)

        assert code == 0
        assert event["message"] == "an uncaught ValueError ends the thread beat"
        assert event["exception"].endswith("ValueError: in a thread")

    def test_what_happens_in_a_finalizer(self):
        """Python can only ignore it."""
        script = """
class Thing:
    def __del__(self):
        raise ValueError("in the end")
Thing()
"""
        code, lines = run(script)
        (event,) = map(json.loads, lines)

        assert code == 0
        assert "__del__" in event["message"]
        assert event["exception"].endswith("ValueError: in the end")

    def test_a_warning(self):
        """With the place it is about."""
        code, lines = run("warnings.warn('old', FutureWarning)")
        (event,) = map(json.loads, lines)

        assert code == 0
        assert (event["level"], event["logger"]) == ("warning", "py.warnings")
        assert "FutureWarning: old" in event["message"]

    def test_as_text_too(self):
        """The traceback follows."""
        code, lines = run("raise ValueError('x')", "text")

        assert code == 1
        assert lines[0].endswith("CRITICAL test: an uncaught exception ends the process")
        assert lines[-1] == "ValueError: x"
