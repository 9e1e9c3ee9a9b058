"""``chatd audit`` without a server: its rules, what it prints, its exit codes."""

from __future__ import annotations

import json
import os
import re

import fakeredis
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from chat.audit import orphans_of
from chat.audit_report import (
    NOTES,
    REMAINS,
    RULES,
    AuditReport,
    Breach,
    Event,
    MaybeBilled,
    OnDisk,
    Queue,
    Suspect,
)
from chat.scripts import load_script
from cli.audit_view import lines
from cli.main import main
from tests.store_audited import CORRUPTIONS, audited
from tests.store_model import StoreModel

JOB = "job_01m8227xyar66hq8dy5xzxkdnc"
ZEROS = dict.fromkeys(
    ("queued", "waiting", "calling", "succeeded", "failed", "cancelled", "expired"), 0
)


def a_report(**changes):
    """An audit of three jobs that found nothing, unless ``changes`` say otherwise."""
    counts = {**ZEROS, "succeeded": 2, "queued": 1}
    nothing = {
        "counters": {**counts, "accepted": 1203, "retired": 1200, "reclaimed": 4},
        "records": counts,
        "broken": {},
        "breaches": (),
        "unchecked": 0,
        "noted": {},
        "queues": (Queue("chat.ollama", 1, 0, 1, 0),),
        "maybe": (),
        "maybe_count": 0,
        "lost_calls": 0,
        "orphans": (),
        "durability": "everysec",
        "seconds": 0.5,
    }
    return AuditReport(**{**nothing, **changes})


def a_broken_report():
    """One breach of two named, with all that is told beside."""
    suspect = Suspect("jobs", "queued_nowhere", f"job:{JOB}", JOB, "queued", "")
    events = (Event(1_795_366_036_446, "queued", ""),)
    return a_report(
        broken={"queued_nowhere": 1, "permits": 1},
        breaches=(Breach(suspect, "not in queued:chat.ollama", events),),
        noted={"late_lease": 2},
        queues=(
            Queue("chat.ollama", 5, 2, 3, 30),
            Queue("chat.kimi", 4, 0, 0, 31),
            Queue("chat.openrouter", 4, 1, 0, 29),
        ),
        maybe=(MaybeBilled(JOB, 2, "lost", "kimi-1@vm\x1b[2J", 1_795_366_036_446, None),),
        maybe_count=7,
        lost_calls=3,
        orphans=(OnDisk("job_1.t.json", 61.4),),
    )


@pytest.mark.parametrize(
    ("appendonly", "appendfsync", "skips", "durability"),
    [
        ("yes", "always", "no", "always"),
        ("yes", "everysec", "no", "everysec"),
        ("yes", "no", "no", "no"),
        ("yes", "always", "yes", "no"),
        ("no", "always", "no", "none"),
        (None, None, None, "unknown"),
    ],
)
def test_an_audit_says_how_redis_keeps_its_writes(appendonly, appendfsync, skips, durability):
    """As Redis itself has it, not the configuration."""

    class Keeping(fakeredis.FakeRedis):
        def config_get(self, *_names, **_more):
            found = {"appendonly": appendonly, "appendfsync": appendfsync}
            found["no-appendfsync-on-rewrite"] = skips
            return found if appendonly else {}

    assert audited(Keeping(decode_responses=True)).durability == durability


class TestRules:
    """What is checked has a name, a meaning and a test."""

    def test_every_rule_of_the_script_is_explained_and_no_other(self):
        """``counts`` is the only one that Python checks."""
        text = load_script("audit")
        named = set(re.findall(r"(?:suspect|equal|held)\('(\w+)'", text))
        either = re.findall(r"'([a-z_]+)' or '([a-z_]+)', key, member", text)
        named |= {rule for pair in either for rule in pair}

        assert named | {"counts"} == {*RULES, *NOTES}

    def test_every_rule_is_broken_by_some_command_of_the_suite(self):
        """So that each is known to be found."""
        assert {rule for _, rule, _ in CORRUPTIONS} == set(RULES)


def test_whatever_happens_to_jobs_is_no_breach():
    """Any order of what front ends, workers, the keeper and time may do."""
    client = fakeredis.FakeRedis(decode_responses=True)

    class Audited(StoreModel):
        def __init__(self) -> None:
            super().__init__(client)

        @invariant()
        def nothing_is_lost(self) -> None:
            report = audited(client)
            assert report.clean, report.breaches

    run_state_machine_as_test(
        Audited,
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


class TestText:
    """What people read."""

    def test_numbers_stand_below_each_other(self):
        """And the last line is the verdict."""
        shown = list(lines(a_report()))

        assert shown[:2] == [
            "           counted  records met",
            "queued           1            1",
        ]
        assert "retired       1200" in shown
        assert "reclaimed        4  calls given up since their worker was gone" in shown
        assert shown[-1] == (
            "no breach: 1203 accepted, 1 queued, 0 waiting, 0 calling, 2 succeeded, 0 failed, "
            "0 cancelled, 0 expired, 1200 retired"
        )

    @pytest.mark.parametrize("durability", REMAINS)
    def test_what_no_audit_can_see_is_said(self, durability):
        """What Redis may lose of what it has confirmed, and what was lost and told again."""
        counters = {"recalled": 12, "recreated": 3}
        shown = list(lines(a_report(durability=durability, counters=counters)))

        assert f"note  durability {durability}: {REMAINS[durability]}" in shown
        assert any(re.match("recalled +12 ", line) for line in shown)
        assert any(re.match("recreated +3 ", line) for line in shown)

    def test_a_breach_is_told_with_its_rule_its_job_and_its_past(self):
        """As well as how many there are beside those that are named."""
        shown = list(lines(a_broken_report()))
        at = shown.index(
            f"breach  queued_nowhere  {JOB}: the job is queued, and stands in no queue "
            "(not in queued:chat.ollama)"
        )

        assert shown[at + 1 : at + 4] == [
            f"        in job:{JOB}, state queued",
            "        2026-11-22T16:47:16.446Z queued",
            "Of all breaches: permits 1, queued_nowhere 1; --limit names more",
        ]
        assert shown[-1] == "2 breaches"

    def test_notes_and_bills_are_told(self):
        """Without anything that a terminal would obey."""
        shown = "\n".join(lines(a_broken_report()))

        assert "note  chat.ollama: of 5 queued, 2 were passed by later ones" in shown
        assert "note  chat.kimi: 4 queued, and no wake-up in its list" in shown
        assert "chat.openrouter" not in shown
        assert "note  2 late_lease: not renewed for three heartbeats" in shown
        assert "note  orphan job_1.t.json, 61 s old" in shown
        assert "Billed maybe, 1 of 7:" in shown
        assert f"{JOB}        2  lost     kimi-1@vm\N{REPLACEMENT CHARACTER}[2J" in shown

    def test_suspects_that_nobody_looked_at_again_are_not_no_breach(self):
        """Nothing is proved then."""
        report = a_report(unchecked=3)

        assert not report.clean
        assert report.verdict == "0 breaches, 3 suspects not looked at again"


class TestWire:
    """What programs read."""

    def test_a_breach_has_its_rule_and_its_job(self):
        """Times are RFC 3339; what is absent is null."""
        wire = json.loads(json.dumps(a_broken_report().to_wire()))
        (breach,) = wire["breaches"]
        (attempt,) = wire["maybe_billed"]

        assert (wire["clean"], wire["verdict"]) == (False, "2 breaches")
        assert (breach["rule"], breach["job_id"]) == ("queued_nowhere", JOB)
        assert breach["events"] == [
            {"at": "2026-11-22T16:47:16.446Z", "event": "queued", "detail": ""}
        ]
        assert (attempt["started_at"], attempt["ended_at"]) == ("2026-11-22T16:47:16.446Z", None)
        assert wire["maybe_billed_count"] == 7
        assert wire["orphans"] == [{"name": "job_1.t.json", "age_s": 61.4}]
        assert (wire["durability"], wire["remains"]) == ("everysec", REMAINS["everysec"])


class TestOrphans:
    """Answers on disk."""

    def test_each_is_told_with_its_age(self, tmp_path):
        """Whatever a worker made of it."""
        folder = tmp_path / "orphans"
        folder.mkdir()
        for name in ("b.t.unreadable", "a.t.json"):
            (folder / name).write_text("{}", "utf-8")
            os.utime(folder / name, (1000, 1000))

        assert orphans_of(tmp_path, 1090.0) == (
            OnDisk("a.t.json", 90.0),
            OnDisk("b.t.unreadable", 90.0),
        )

    def test_no_folder_is_none(self, tmp_path):
        """No worker has had to write there."""
        assert orphans_of(tmp_path, 0.0) == ()


class TestCommand:
    """Its exit codes; 0 and 1 need a server."""

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch, tmp_path):
        """No configuration but the one a test names."""
        monkeypatch.setenv("LAKEHOUSE_CONFIG", "")
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize(
        "text",
        [
            '[chatd]\nredis_url = "unix:///nonexistent/no-redis.sock"\n',
            '[chatd]\ndata_dir = "/nonexistent"\n',
            "[chatd",
        ],
        ids=["no answer", "none started", "no configuration"],
    )
    def test_a_redis_that_cannot_be_used_is_3(self, tmp_path, text):
        """In one line, so that nobody takes it for a breach."""
        file = tmp_path / "chatd.toml"
        file.write_text(text, "utf-8")
        run = CliRunner().invoke(main, ["--config", str(file), "audit"])

        assert run.exit_code == 3
        assert run.output.startswith("Error: ")
        assert len(run.output.splitlines()) == 1

    @pytest.mark.parametrize("arguments", [["--limit", "0"], ["--what"]], ids=" ".join)
    def test_a_wrong_command_line_is_2(self, arguments):
        """As every shell expects."""
        assert CliRunner().invoke(main, ["audit", *arguments]).exit_code == 2
