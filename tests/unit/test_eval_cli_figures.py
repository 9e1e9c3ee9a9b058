"""Figures of an evaluation as ``chatd eval`` tells them: digits, thresholds, tables."""

from __future__ import annotations

import pytest

from cli.eval_gate import Gate, Threshold, Unknown
from cli.eval_numbers import chance, interval, milliseconds, score, signed
from cli.eval_table import table
from tests.eval_objects import row, summary_of

JUDGED = (("numeric", "numeric"), ("polite", "judge"))

TOLD = """
model  scorer   mean  95 % interval  samples  scored  unparsable
small  numeric  0.75   0.53 to 0.89       20   20/20
       polite   1.00   0.83 to 1.00       19   19/20           1
big    numeric  1.00   0.82 to 1.00       18   18/20
       polite   1.00   0.82 to 1.00       18   18/20

model         answered     tokens     cost  queue p50/p95  model p50/p95
small            20/20   240 + 60  $0.0400        5ms/5ms      1.2s/1.2s
  its judges  20 calls  140 + 140   $10.00
big              18/20   216 + 54  $0.0360        5ms/5ms    45.0s/45.0s
  its judges  18 calls  126 + 126    $9.00
errors of big: upstream_rejected 2

Differences on the samples that every model has a score for:

big against small
scorer   difference   95 % interval  better  worse  same      p  samples
numeric       +0.28  +0.06 to +0.49       5      0    13  0.062       18
polite         0.00    0.00 to 0.00       0      0    17   1.00       17
"""


def verdict(score: float | None, *, spent: int = 0):
    """A judge's score; ``None`` is one that could not be read."""
    return {
        "status": "unparsable" if score is None else "scored",
        "score": score,
        "judge": {
            "job_ids": ["job_1"],
            "input_tokens": spent,
            "output_tokens": spent,
            "cost_usd": 0.5,
            "attempts": [],
        },
    }


def judged(sample: str, right: float, fine: float | None, model: str = "small", **over):
    """A row with a score of each scorer."""
    one = row(sample, right, model, **over)
    return {**one, "scores": {**one["scores"], "polite": verdict(fine, spent=7)}}


class TestNumbers:
    """No more digits than a figure carries."""

    @pytest.mark.parametrize(
        ("value", "samples", "told"),
        [
            (None, 0, "-"),
            (0.85, 20, "0.85"),
            (0.8512, 199, "0.85"),
            (0.8512, 200, "0.851"),
            (1.0, 20, "1.00"),
            (0.9996, 2500, "0.999"),
            (0.997, 20, "0.99"),
            (0.0, 20, "0.00"),
            (0.0004, 2500, "0.001"),
        ],
    )
    def test_a_score_is_1_only_if_all_are(self, value, samples, told):
        """And has a third digit only where it says something."""
        assert score(value, samples) == told

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ((0.05,), "+0.05"),
            ((-0.05,), "-0.05"),
            ((-0.001,), "0.00"),
            ((-0.05, 0.15), "-0.05 to +0.15"),
            ((None, None), "-"),
        ],
    )
    def test_a_difference_has_its_sign(self, values, told):
        """But for one that rounds to nothing."""
        assert signed(*values, samples=20) == told

    def test_intervals_chances_and_times(self):
        """Each in its own way."""
        assert [interval(0.639, 0.951, 20), interval(None, None, 0)] == ["0.64 to 0.95", "-"]
        assert [chance(p) for p in (0.0001, 0.021, 0.63)] == ["<0.001", "0.021", "0.63"]
        told = [milliseconds(ms) for ms in (None, 5, 999, 1234, 99_900, 125_000)]
        assert told == ["-", "5ms", "999ms", "1.2s", "99.9s", "2m 05s"]


class TestThresholds:
    """``--fail-under``."""

    MODELS, SCORERS = ("small", "kimi/x", "a=b"), ("right", "polite/short", "a=b")

    @pytest.mark.parametrize(
        ("text", "places"),
        [
            ("0.8", [(model, "right") for model in MODELS]),
            ("polite/short=0.8", [(model, "polite/short") for model in MODELS]),
            ("kimi/x/polite/short=0.8", [("kimi/x", "polite/short")]),
            ("a=b/a=b=0.8", [("a=b", "a=b")]),
        ],
        ids=["a number", "a scorer", "a model", "names with equals signs"],
    )
    def test_it_is_for_one_scorer_of_one_or_of_all_models(self, text, places):
        """Whatever characters their names have."""
        threshold = Threshold.read(text)

        assert threshold.least == 0.8
        assert threshold.places(self.MODELS, self.SCORERS) == places

    @pytest.mark.parametrize("text", ["x", "1.2", "-0.1", "nan", "=0.8", "right=", "right=high"])
    def test_what_is_no_threshold_is_refused(self, text):
        """Before anything is sent."""
        with pytest.raises(Unknown, match=r"is not 0\.8, SCORER=0\.8 or MODEL/SCORER=0\.8"):
            Threshold.read(text)

    def test_one_for_nothing_is_refused_with_what_there_is(self):
        """It would never be missed."""
        gate = Gate((Threshold.read("small/polite=0.8"),), 1.0)

        with pytest.raises(Unknown, match=r'its scorers are "right", .*, its models "small", '):
            gate.check(self.MODELS, self.SCORERS)


class TestGate:
    """What a CI system stops at."""

    SUMMARY = summary_of(
        [
            *(judged(f"q{n}", n % 4 > 0, None if n == 1 else 1.0) for n in range(20)),
            *(judged(f"q{n}", 1.0, 1.0, "big") for n in range(18)),
            *(row(f"q{n}", None, "big") for n in (18, 19)),
            *(row(f"q{n}", None, "none") for n in range(20)),
        ],
        *("small", "big", "none"),
        scorers=JUDGED,
    )

    def missed(self, *texts):
        return Gate(tuple(map(Threshold.read, texts)), 0.0).missed(self.SUMMARY)

    def test_a_mean_under_its_threshold_is_told_with_its_interval(self):
        """An error is no wrong answer, and a model without any score misses every threshold."""
        interval = "95 % interval 0.53 to 0.89, 20 samples"

        assert self.missed("0.8") == [
            f"small/numeric: 0.75 ({interval}) is under 0.8 (--fail-under)",
            "none/numeric: there is no score, so that it cannot reach 0.8 (--fail-under)",
        ]
        assert self.missed("small/polite=1", "big/numeric=1") == []

    def test_a_mean_that_is_the_threshold_is_enough(self):
        """To the last bit that sums leave uncertain."""
        thirds = [row(f"q{n}", 0.1 * 3) for n in range(10)]

        assert Gate((Threshold.read("0.3"),), 1.0).missed(summary_of(thirds)) == []
        assert self.missed("small/numeric=0.75") == []

    def test_a_mean_just_under_it_shows_by_how_much(self):
        """``0.80 is under 0.8`` would help nobody."""
        rows = [row(f"q{n}", float(n >= 41)) for n in range(200)]
        (told,) = Gate((Threshold.read("0.8"),), 1.0).missed(summary_of(rows))

        assert told.startswith("small/numeric: 0.795 (")

    def test_what_has_no_score_is_told_for_each_model_and_scorer(self):
        """Answers that are missing, and verdicts that could not be read."""
        told = Gate((), 0.95).uncovered(self.SUMMARY)

        assert [one.partition(" questions")[0] for one in told] == [
            "big/numeric: 18 of 20",
            "big/polite: 18 of 20",
            "none/numeric: 0 of 20",
            "none/polite: 0 of 20",
        ]
        assert told[0].endswith(" scored, a coverage of 0.90, which is under 0.95 (--min-coverage)")
        assert Gate((), 1).uncovered(self.SUMMARY)[0].startswith("small/polite: 19 of 20")


class TestTable:
    """What is shown at the end."""

    def test_scores_costs_and_comparisons(self):
        """Each model with each scorer; differences only over what all have a score for."""
        rows = [
            *(judged(f"q{n}", n % 4 > 0, None if n == 1 else 1.0) for n in range(20)),
            *(judged(f"q{n}", 1.0, 1.0, "big", latency_ms=45_000) for n in range(18)),
            *(row(f"q{n}", None, "big") for n in (18, 19)),
        ]
        told = table(summary_of(rows, "small", "big", scorers=JUDGED), columns=100)

        assert told == TOLD.splitlines()

    def test_it_stays_within_its_width_and_keeps_whole_names(self):
        """Long names are broken; figures are not."""
        long = (
            "openrouter/somebody/a-model-with-a-name-that-goes-on-and-on-and-on-and-on-and-on:free"
        )
        rows = [judged(f"q{n}", 1.0, 1.0, model) for n in range(12) for model in (long, "small")]
        told = table(summary_of(rows, long, "small", scorers=JUDGED), columns=100)
        first = [line.split(" ")[0] for line in told[2:8]]

        assert max(len(line) for line in told) <= 100
        assert "".join(first).startswith(long)
        assert any("12/12" in line and "5ms/5ms" in line for line in told)

    def test_what_is_not_there_has_no_column(self):
        """Cached and cut off answers, costs, verdicts that could not be had."""
        rows = [row("q1", 1.0, cached=True, finish_reason="length"), row("q2", 1.0, cost_usd=None)]
        usual, odd = summary_of([row("q1", 1.0, cost_usd=None)]), summary_of(rows)
        told = [" ".join(table(summary, columns=100)) for summary in (usual, odd)]

        assert [word for word in ("cached", "cut off", "cost", "errored") if word in told[0]] == []
        assert [word for word in ("cached", "cut off", "cost", "errored") if word in told[1]] == [
            "cached",
            "cut off",
        ]

    def test_many_comparisons_are_not_all_shown(self):
        """The report has the rest."""
        models = [f"m{number}" for number in range(8)]
        rows = [row("q1", 1.0, name) for name in models]

        told = table(summary_of(rows, *models), columns=100)

        assert sum(" against " in line for line in told) == 10
        assert told[-1] == "and 18 pairs of models more, in the report"

    def test_a_name_cannot_move_the_cursor(self):
        """It is shown without what a terminal would obey."""
        rows = [row("q1", None, "\x1b[2J", error={"code": "a\nb", "message": ""})]
        told = table(summary_of(rows, "\x1b[2J"), columns=100)

        assert all(line.isprintable() for line in told)
        assert any(line.startswith("\ufffd[2J") for line in told)
