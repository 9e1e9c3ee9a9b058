"""How fast a batch goes, and what ``chatd batch`` says about it."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from cli.batch_object import Batch
from cli.batch_progress import Meter, Progress
from cli.batch_view import (
    counts,
    detached,
    ended,
    hint,
    left_by_cancel,
    line,
    listed,
    screen,
)
from cli.phrases import span
from tests.batch_objects import ID, batch, batch_object

AT = datetime(2026, 11, 22, 17, 40, 0, 123456, tzinfo=UTC)
#: Half way, with everything that may be told.
BUSY = batch(
    completed=1197,
    failed=3,
    total=5000,
    chatd={
        "cost_usd": 0.0123,
        "errors": {"upstream_timeout": 1, "content_filtered": 2},
        "waiting": {"openrouter": "rate_limited"},
    },
    usage={"input_tokens": 120_000, "output_tokens": 30_000, "total_tokens": 150_000},
)


def measured(*samples: tuple[float, int], **fields: object) -> Progress:
    """The progress after these seconds and counts of completed items."""
    meter = Meter()
    *earlier, last = [(at, batch(completed=done, **fields)) for at, done in samples]
    for at, seen in earlier:
        meter.measure(seen, at)
    return meter.measure(last[1], last[0])


def drawn(progress: Progress, trouble: str = "", *, width: int = 80) -> list[str]:
    """The view as a terminal of that width shows it."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(screen(progress, trouble))
    return [shown.rstrip() for shown in capture.get().splitlines()]


class TestMeter:
    """Rates and the time that is left."""

    def test_the_first_answer_gives_no_rate(self):
        """There is nothing to compare it with, whatever was done before."""
        progress = measured((10.0, 50))

        assert (progress.per_s, progress.overall_per_s, progress.left_s) == (None, None, None)

    def test_two_answers_give_the_rate_between_them(self):
        """What was done before the watch began does not count."""
        progress = measured((10.0, 50), (14.0, 60))

        assert (progress.per_s, progress.overall_per_s) == (2.5, 2.5)
        assert progress.left_s == 40 / 2.5

    def test_failed_items_are_done_as_well(self):
        """The rate is that of what needs no more waiting."""
        meter = Meter()
        meter.measure(batch(completed=10, failed=0), 0.0)
        progress = meter.measure(batch(completed=16, failed=4), 2.0)

        assert progress.per_s == 5.0
        assert progress.left_s == 80 / 5.0

    def test_the_present_rate_is_that_of_the_last_half_minute(self):
        """A fast beginning is forgotten there, and stays in the rate of the whole."""
        slow = [(float(at), 600 + at // 10) for at in range(60, 121, 2)]
        progress = measured((0.0, 0), (60.0, 606), *slow[1:], total=1000)

        assert progress.per_s == pytest.approx(3 / 30)
        assert progress.overall_per_s == pytest.approx(612 / 120)
        assert progress.left_s == pytest.approx(388 / 0.1)

    def test_a_gap_is_part_of_the_rate(self):
        """After an outage of five minutes the items of these are not those of two seconds."""
        progress = measured((0.0, 0), (2.0, 4), (302.0, 64))

        assert progress.per_s == pytest.approx(60 / 300)
        assert progress.overall_per_s == pytest.approx(64 / 302)

    def test_when_nothing_moves_the_whole_watch_says_what_is_left(self):
        """As in a cool-down; the rate of now is shown as nothing all the same."""
        progress = measured((0.0, 0), (10.0, 40), *((10.0 + at, 40) for at in range(2, 42, 2)))

        assert progress.per_s == 0.0
        assert progress.overall_per_s == pytest.approx(40 / 50)
        assert progress.left_s == pytest.approx(60 / 0.8)

    def test_when_nothing_ever_moved_nothing_is_known(self):
        """Neither infinite nor an error."""
        progress = measured((0.0, 7), (2.0, 7))

        assert (progress.per_s, progress.overall_per_s, progress.left_s) == (0.0, 0.0, None)

    def test_two_answers_at_once_give_no_rate(self):
        """A clock may be coarse."""
        assert measured((5.0, 1), (5.0, 9)).per_s is None

    def test_the_time_of_validation_does_not_count(self):
        """Nothing can be done in it."""
        meter = Meter()
        meter.measure(batch("validating"), 0.0)
        meter.measure(batch(completed=0), 60.0)
        progress = meter.measure(batch(completed=20), 70.0)

        assert progress.overall_per_s == 2.0

    def test_fewer_items_than_before_begin_the_count_anew(self):
        """Redis came back with an older state; a negative rate would be nonsense."""
        assert measured((0.0, 50), (2.0, 40)).per_s is None
        assert measured((0.0, 50), (2.0, 40), (4.0, 46)).overall_per_s == 3.0

    @pytest.mark.parametrize("status", ["cancelling", "cancelled", "expired", "failed"])
    def test_items_that_are_given_up_have_no_rate(self, status):
        """They fail thousands at a time without a call."""
        meter = Meter()
        meter.measure(batch(completed=10), 0.0)
        progress = meter.measure(batch(status, completed=20, failed=80), 2.0)

        assert (progress.per_s, progress.overall_per_s, progress.left_s) == (None, None, None)

    @pytest.mark.parametrize("status", ["finalizing", "completed"])
    def test_only_a_batch_in_progress_has_time_left(self, status):
        """Its rate is known to the end."""
        meter = Meter()
        meter.measure(batch(completed=10), 0.0)
        progress = meter.measure(batch(status, completed=20), 2.0)

        assert (progress.per_s, progress.left_s) == (5.0, None)

    def test_a_batch_whose_items_are_all_done_has_no_time_left(self):
        """It only has to be written down."""
        assert measured((0.0, 90), (2.0, 100)).left_s is None


class TestBatch:
    """What the object says."""

    @pytest.mark.parametrize(
        ("status", "over"),
        [
            ("validating", False),
            ("in_progress", False),
            ("finalizing", False),
            ("cancelling", False),
            ("completed", True),
            ("failed", True),
            ("expired", True),
            ("cancelled", True),
        ],
    )
    def test_four_states_never_change(self, status, over):
        """A watch ends with them."""
        assert batch(status).over is over

    @pytest.mark.parametrize(
        ("seen", "clean"),
        [
            (batch("completed", 100), True),
            (batch("completed", 99, 1), False),
            (batch("cancelled", 100), False),
            (batch("expired", 99), False),
            (batch("failed", total=0), False),
            (batch("in_progress", 100), False),
        ],
        ids=["completed", "one failed", "cancelled", "expired", "failed", "running"],
    )
    def test_clean_is_completed_without_a_failed_item(self, seen, clean):
        """The exit code hangs on it."""
        assert seen.clean is clean

    def test_what_another_server_leaves_out_is_not_known(self):
        """OpenAI's own object has no extension, and leaves fields out as well."""
        wire = batch_object()
        for name in ("chatd", "usage", "request_counts", "errors", "in_progress_at"):
            del wire[name]
        seen = Batch.from_wire(wire)

        assert (seen.total, seen.done, seen.errors, seen.waiting) == (0, 0, (), ())
        assert (seen.cost_usd, seen.input_tokens, seen.began_at) == (None, 0, None)

    def test_the_most_frequent_error_comes_first(self):
        """And of two alike the first in the alphabet."""
        seen = batch(chatd={"errors": {"c": 1, "b": 7, "a": 1}})

        assert seen.errors == (("b", 7), ("a", 1), ("c", 1))


class TestLine:
    """What a pipe gets."""

    def test_it_has_everything_that_is_known(self):
        """In this order."""
        assert line(Progress(BUSY, 12.34, 11.9, 309.4), at=AT) == (
            "2026-11-22T17:40:00Z in_progress 1200/5000 (24%), 3 failed, 12.3/s, 11.9/s overall, "
            "about 5m 09s left, $0.0123, 120000 + 30000 tokens; "
            "errors: content_filtered 2, upstream_timeout 1; waiting: openrouter rate_limited"
        )

    def test_what_is_not_known_is_left_out(self):
        """As in the first line."""
        told = line(Progress(batch(completed=7), None, None, None), at=AT)

        assert told == "2026-11-22T17:40:00Z in_progress 7/100 (7%), 0 failed"

    def test_a_file_that_is_being_looked_at_has_no_counts(self):
        """Nobody knows how many lines it has."""
        told = line(Progress(batch("validating", total=0), None, None, None), at=AT)

        assert told == "2026-11-22T17:40:00Z validating"

    def test_a_hundred_percent_is_all(self):
        """Rounding up would say so too early."""
        told = line(Progress(batch(completed=9999, total=10_000), None, None, None), at=AT)

        assert "9999/10000 (99%)" in told

    @pytest.mark.parametrize(
        ("per_s", "told"),
        [
            (0.0, "0.0/s"),
            (123.46, "123.5/s"),
            (1.0, "1.0/s"),
            (0.5, "30.0/min"),
            (0.02, "1.2/min"),
            (0.01, "36.0/h"),
            (0.0001, "0.4/h"),
        ],
        ids=str,
    )
    def test_a_rate_has_the_unit_in_which_it_is_a_number(self, per_s, told):
        """A slow model does a few items an hour."""
        assert line(Progress(batch(), per_s, None, None), at=AT).endswith(f", 0 failed, {told}")

    @pytest.mark.parametrize(
        ("usd", "told"),
        [
            (0.0, "$0.0000"),
            (0.00001, "<$0.0001"),
            (0.25, "$0.2500"),
            (1.0, "$1.00"),
            (1234.567, "$1234.57"),
        ],
        ids=str,
    )
    def test_a_cost_is_never_rounded_to_nothing(self, usd, told):
        """A few tokens cost less than a cent."""
        seen = batch(chatd={"cost_usd": usd})

        assert line(Progress(seen, None, None, None), at=AT).endswith(f", {told}")

    def test_not_every_error_is_shown(self):
        """The most frequent, and how many codes there are besides."""
        seen = batch(failed=36, chatd={"errors": {f"code_{n}": n for n in range(1, 9)}})
        told = line(Progress(seen, None, None, None), at=AT)

        assert told.endswith(
            "errors: code_8 8, code_7 7, code_6 6, code_5 5, code_4 4, 3 more codes"
        )

    def test_a_batch_that_is_over_waits_for_nothing(self):
        """Whatever its last look at the providers was."""
        seen = batch("cancelled", chatd={"waiting": {"openrouter": "rate_limited"}})

        assert "waiting" not in line(Progress(seen, None, None, None), at=AT)

    def test_nothing_of_the_server_is_obeyed_by_a_terminal(self):
        """A code or a reason is text."""
        seen = batch(chatd={"errors": {"\x1b[2J": 1}, "waiting": {"x": "a\nb"}})

        assert line(Progress(seen, None, None, None), at=AT).isprintable()


class TestScreen:
    """What a terminal gets."""

    def test_it_shows_everything_that_is_known(self):
        """In 80 columns."""
        assert drawn(Progress(BUSY, 12.34, 11.9, 309.4), "gone, waiting") == [
            f"{ID}  in_progress  /v1/chat/completions",
            f"{'━' * 9}╸{' ' * 30}  1200/5000 (24%)",
            "12.3/s, 11.9/s overall, about 5m 09s left",
            "$0.0123, 120000 + 30000 tokens",
            "3 failed; errors: content_filtered 2, upstream_timeout 1",
            "waiting: openrouter rate_limited",
            "gone, waiting",
        ]

    def test_it_begins_with_what_there_is(self):
        """No empty lines, and no bar without a length."""
        assert drawn(Progress(batch("validating", total=0), None, None, None)) == [
            f"{ID}  validating  /v1/chat/completions"
        ]

    def test_markup_and_controls_are_only_text(self):
        """A code such as [red] is no colour, and nobody moves the cursor."""
        seen = batch(failed=2, chatd={"errors": {"[red]": 1, "\x1b[2J": 1}})
        shown = "\n".join(drawn(Progress(seen, None, None, None)))

        assert "[red] 1" in shown
        assert "\x1b" not in shown


class TestEnded:
    """What is said when a batch is over."""

    def test_a_clean_end_says_how_long_it_took_and_where_the_answers_are(self):
        """The time is that between the server's own stamps."""
        assert ended(batch("completed", 100)) == [
            f"{ID} completed after 12m 03s: 100 of 100 items succeeded, 0 failed",
            f"  answers: `chatd batch results {ID} -o FILE`",
        ]

    def test_failed_items_are_told_by_code_with_all_codes(self):
        """And how to fetch them."""
        errors = {f"code_{n}": 1 for n in range(7)}
        seen = batch(
            "completed", 93, 7, error_file_id="file_err", chatd={"errors": errors, "cost_usd": 2.5}
        )

        assert ended(seen) == [
            f"{ID} completed after 12m 03s: 93 of 100 items succeeded, 7 failed",
            "  errors: code_0 1, code_1 1, code_2 1, code_3 1, code_4 1, code_5 1, code_6 1",
            "  $2.50",
            f"  answers: `chatd batch results {ID} -o FILE`",
            f"  failed items: `chatd batch results {ID} --errors -o FILE`",
        ]

    def test_what_was_not_done_is_told(self):
        """After an expiry or a cancel."""
        assert ended(batch("expired", 90, 3))[0] == (
            f"{ID} expired after 1d 00h: 90 of 100 items succeeded, 3 failed, 7 not done"
        )

    def test_a_file_that_was_not_taken_is_told_line_by_line(self):
        """The first twenty faults, and how many there are besides."""
        faults = [
            {"code": "invalid_request", "line": n, "message": f"no {n}", "param": "model"}
            for n in range(1, 24)
        ]
        told = ended(batch("failed", total=0, errors={"object": "list", "data": faults}))

        assert told[0] == f"{ID} failed: 23 faults in its file, nothing was run"
        assert told[1:3] == [
            "  line 1: no 1 (invalid_request)",
            "  line 2: no 2 (invalid_request)",
        ]
        assert told[20:] == ["  line 20: no 20 (invalid_request)", "  and 3 more"]

    def test_lines_with_the_same_fault_are_told_together(self):
        """What is wrong in one is often wrong in all."""
        faults = [
            {"code": "invalid_request", "line": n, "message": "odd" if n == 2 else "wrong"}
            for n in range(1, 5)
        ]
        told = ended(batch("failed", total=0, errors={"object": "list", "data": faults}))

        assert told[1:] == [
            "  lines 1, 3, 4: wrong (invalid_request)",
            "  line 2: odd (invalid_request)",
        ]

    def test_a_fault_of_the_whole_file_has_no_line(self):
        """And one fault is no plural."""
        fault = {"code": "empty_file", "line": None, "message": "it has no lines", "param": None}
        told = ended(batch("failed", total=0, errors={"object": "list", "data": [fault]}))

        assert told == [
            f"{ID} failed: 1 fault in its file, nothing was run",
            "  it has no lines (empty_file)",
        ]


class TestSentences:
    """The rest of what is said."""

    def test_one_item_is_no_plural(self):
        """And nothing that is left is not mentioned."""
        assert counts(batch("completed", 1, total=1)) == "1 of 1 item succeeded, 0 failed"

    @pytest.mark.parametrize(
        ("status", "told"),
        [("validating", "its items are not counted yet"), ("cancelled", "nothing was run")],
    )
    def test_without_items_there_are_no_counts(self, status, told):
        """Nought of nought says nothing."""
        assert counts(batch(status, total=0)) == told

    def test_a_cancel_says_what_it_leaves(self):
        """And that its end is still to come."""
        assert left_by_cancel(batch("cancelling", 12, 1)) == [
            f"{ID} cancelling: 12 of 100 items succeeded, 1 failed, 87 not done",
            f"  `chatd batch watch {ID}` waits for its end",
        ]

    def test_a_cancel_that_is_over_has_no_end_to_wait_for(self):
        """Nothing was running."""
        assert left_by_cancel(batch("cancelled")) == [
            f"{ID} cancelled: 0 of 100 items succeeded, 0 failed, 100 not done"
        ]

    def test_who_detaches_is_told_the_way_back_and_the_way_out(self):
        """With the address, when it was not that of the configuration."""
        assert detached(ID, "http://box:1") == (
            f"Detached; {ID} goes on. `chatd batch watch {ID} --url http://box:1` comes back "
            f"to it, `chatd batch cancel {ID} --url http://box:1` stops it."
        )

    def test_a_hint_is_one_line_of_text(self):
        """The id comes from a server or a command line."""
        assert hint("watch", "a\x1b[2Jb") == "`chatd batch watch a\ufffd[2Jb`"

    def test_a_list_has_a_line_for_each_batch(self):
        """With the time at which it was made."""
        assert listed(batch("completed", 98, 2)) == (
            f"2026-11-18T11:06:40Z  {ID}  completed    100/100 done, 2 failed"
        )

    @pytest.mark.parametrize(
        ("seconds", "told"),
        [
            (0.2, "0s"),
            (59.4, "59s"),
            (59.6, "1m 00s"),
            (309, "5m 09s"),
            (3599.7, "1h 00m"),
            (7391, "2h 03m"),
            (86_400, "1d 00h"),
            (100_800, "1d 04h"),
        ],
        ids=str,
    )
    def test_a_span_is_as_exact_as_one_has_to_know_it(self, seconds, told):
        """Two units."""
        assert span(seconds) == told
