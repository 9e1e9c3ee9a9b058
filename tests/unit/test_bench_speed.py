"""The parts of the speed tables that need no process: what is counted, and what becomes of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scenes.scene import Report
from bench.speed.client import verdict
from bench.speed.figures import Bound, Figure, figure, of, ratio, ratio_row
from bench.speed.forms import FORMS
from bench.speed.framing import message
from bench.speed.frontier import best, steps
from bench.speed.generator import Counts, percentile
from bench.speed.latency import added
from bench.speed.measure import Run
from bench.speed.throughput import show

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\n\r\n"
)


def run(system="chatd", turn=1, **changed):
    """A run of whose figures only those named matter."""
    values = {
        "connections": 256,
        "delay_s": 0.05,
        "seconds": 4.0,
        "ended": 400,
        "per_second": 100.0,
        "latency_ms": {"0.5": 60.0, "0.99": 90.0},
        "counts": {"asked": 1, "lost": 0, "wrong": 0, "late": 0, "errors": {}},
        "failed": 0,
        "twice": 0,
        "cpu_ms": {"all": 1.0},
        "memory_mib": {"all": 100.0},
        "upstream_ms": 0.02,
        "generator_ms": 0.02,
    }
    return Run(system=system, turn=turn, **{**values, **changed})


def rate(run):
    return run.per_second


@pytest.mark.parametrize("raw", [LENGTH, CHUNKED], ids=["length", "chunks"])
def test_a_message_is_found_when_its_last_byte_is_there(raw):
    """Not before, and what follows is left."""
    assert all(message(raw[:size]) is None for size in range(len(raw)))

    found = message(raw + LENGTH)
    assert found is not None
    assert (found[0][:15], *found[1:]) == (b"http/1.1 200 ok", b"hello", LENGTH)


def test_a_message_without_a_length_has_no_body():
    """As a request with GET."""
    assert message(b"GET /stats HTTP/1.1\r\n\r\n") == (b"get /stats http/1.1", b"", b"")


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=300), st.floats(0.01, 1))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values, share):
    """One of the values, whatever the share."""
    ordered = sorted(values)
    found = percentile(ordered, share)

    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-9
    assert sum(value < found for value in ordered) < share * len(ordered)


def test_percentiles_of_a_hundred_values():
    """The p99 is exceeded by one of them; nothing has no percentile."""
    ordered = [float(number) for number in range(1, 101)]

    assert [percentile(ordered, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([], 0.5) == 0


ANSWERS = {
    "chat": {"content": "echo: q 1"},
    "ollama": {"message": {"content": "echo: q 1"}},
    "completion": {"choices": [{"message": {"content": "echo: q 1"}}]},
    "job": {"id": "job_1", "metadata": {"question": "q 1"}},
}


@pytest.mark.parametrize("name", FORMS)
def test_an_answer_is_held_against_its_question(name):
    """In every form: its own question is right, another one's is wrong, and so is no JSON."""
    form = FORMS[name]
    head = f"http/1.1 {form.status} ok".encode()
    body = json.dumps(ANSWERS[name]).encode()

    assert verdict(form, head, body, "echo: q 1") == "right"
    assert verdict(form, head, body, "echo: q 2") == "wrong"
    assert verdict(form, head, b"{}", "echo: q 1") == "wrong"
    assert verdict(form, head, b"echo: q 1", "echo: q 1") == "wrong"


@pytest.mark.parametrize("name", FORMS)
def test_a_request_has_the_question_in_the_form_of_its_wire(name):
    """And a job repeats it where its record will show it."""
    body = json.loads(FORMS[name].body("echo", "q 1"))

    assert (body["model"], body["messages"][0]["content"]) == ("echo", "q 1")
    assert body.get("metadata") == ({"question": "q 1"} if name == "job" else None)


def test_errors_are_told_by_status_and_code():
    """An error is no answer, whatever is in it."""
    form = FORMS["chat"]
    body = b'{"error": {"code": "queue_full"}, "content": "echo: q 1"}'

    assert verdict(form, b"http/1.1 429 too many", body, "echo: q 1") == "429 queue_full"
    assert verdict(form, b"http/1.1 502 bad", b"<html>", "echo: q 1") == "502"


def test_whatever_is_not_right_and_in_time_has_failed():
    """Lost, wrong, late, an error, or unasked."""
    assert Counts(asked=5, right=5).failed == 0
    assert Counts(asked=5, right=1, wrong=1, lost=1, errors={"500": 2}).failed == 4
    assert Counts(asked=5, right=5, late=2, stray=1).failed == 3


def test_a_figure_has_the_median_of_each_pass():
    """And that of all runs; a pass without runs is none."""
    rates = {1: (90.0, 110.0, 100.0), 2: (200.0, 300.0, 190.0)}
    runs = [run(turn=turn, per_second=each) for turn in rates for each in rates[turn]]

    assert figure(runs, rate) == Figure(100, 200, 150)
    assert figure(runs[:3], rate) is None
    assert figure(of(runs, "chatd", 16), rate) is None


def test_ratios_are_taken_pass_by_pass():
    """What was not measured has none."""
    assert ratio(Figure(10, 30, 20), Figure(5, 10, 8)) == Figure(2, 3, 2.5)
    assert ratio(Figure(10, 30, 20), None) is None
    assert ratio(Figure(10, 30, 20), Figure(0, 1, 1)) is None


@pytest.mark.parametrize(
    ("bound", "value", "told"),
    [
        (Bound("x", 8, 15), 15.0, "stretch reached"),
        (Bound("x", 8, 15), 14.9, "commit reached"),
        (Bound("x", 8, 15), 7.99, "NOT REACHED"),
        (Bound("x", 4), 400.0, "commit reached"),
        (Bound("x", 3, 1.5, at_least=False), 1.5, "stretch reached"),
        (Bound("x", 3, 1.5, at_least=False), 3.01, "NOT REACHED"),
    ],
)
def test_a_ratio_is_held_against_its_bounds(bound, value, told):
    """Both passes are shown, and all runs decide."""
    row = ratio_row(bound, Figure(1, 2, value))

    assert row[-1] == told
    assert row[1:3] == ("1.00", "2.00")


def test_a_table_says_what_was_not_measured(capsys):
    """chatd twice as fast as the textbook, one wrong answer, and no LiteLLM."""
    wrong = {"asked": 400, "lost": 0, "wrong": 1, "late": 0, "errors": {}}
    runs = [
        run(system, turn, per_second=speed, counts=wrong)
        for turn in (1, 2)
        for system, speed in (("chatd", 200.0), ("textbook", 100.0))
    ]
    rows = {name: cells for name, *cells in show(Report(), runs)}

    assert rows["256: requests/s, x textbook"][2:] == ["2.00", ">= 4", "-", "NOT REACHED"]
    assert rows["256: requests/s, x LiteLLM"][-1] == "not measured long enough"
    assert "0/2/0/0" in capsys.readouterr().out


def test_a_run_with_fewer_answers_than_callers_is_in_no_ratio():
    """A slow system would look slower than it is by chance."""
    runs = [
        run(system, turn, ended=ended)
        for turn in (1, 2)
        for system, ended in (("chatd", 400), ("portkey", 256), ("litellm", 255))
    ]
    rows = {name: cells for name, *cells in show(Report(), runs)}

    assert rows["256: requests/s, x Portkey"][2] == "1.00"
    assert rows["256: requests/s, x LiteLLM"][-1] == "not measured long enough"
    assert rows["256: CPU per request, LiteLLM's / chatd's"][-1] == "not measured long enough"


def test_added_latency_is_that_beside_the_upstream_alone():
    """In each pass against that pass' own."""
    runs = [
        run(system, turn, connections=1, latency_ms={"0.5": p50, "0.99": 0.0})
        for system, turn, p50 in (
            ("direct", 1, 50.0),
            ("direct", 2, 52.0),
            ("chatd", 1, 54.0),
            ("chatd", 2, 55.0),
        )
    ]

    assert added(runs, "chatd", 1, lambda run: run.p50_ms) == Figure(4, 3, 3.5)
    assert added(runs, "litellm", 1, lambda run: run.p50_ms) is None


def test_the_search_for_the_frontier_goes_between_what_keeps_a_limit_and_what_does_not():
    """With an added p99 of half a millisecond per connection."""
    asked = []

    def at(connections):
        asked.append(connections)
        return connections / 2

    steps(at, (5, 20))

    assert asked == [1, 2, 4, 8, 16, 32, 64, 11, 45]


def test_the_best_run_keeps_the_limit_and_answers_all():
    """Neither a faster run beyond the limit counts nor one that lost an answer."""
    slow = {"0.5": 60.0, "0.99": 80.0}
    kept = run(per_second=10.0, latency_ms={"0.5": 51.0, "0.99": 54.0})
    runs = [
        kept,
        run(per_second=50.0, latency_ms=slow),
        run(per_second=20.0, latency_ms=kept.latency_ms, failed=1),
    ]

    assert best(runs, 5) is kept
    assert best(runs, 1) is None
