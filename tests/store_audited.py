"""What the audit says: no breach whatever chatd did, and each corruption by its name."""

from __future__ import annotations

import pytest

from chat.audit import Auditor
from chat.audit_report import AuditReport
from chat.config import ChatdConfig
from tests.store_base import QUEUE, StoreBase, now_ms

__all__ = ["CORRUPTIONS", "StoreAudited", "audited"]

PARKED = "parked:ollama:*:interactive"


def audited(client, config=None, **options) -> AuditReport:
    """An audit that does not wait before it looks again."""
    return Auditor(client, config or ChatdConfig(), sleep=lambda _: None).audit(**options)


#: One command each, the rule that it breaks, and whose job is named: of which state, or "" for a
#: counter. ``{id}``, ``{over}`` and the like are the jobs of ``jobs``.
CORRUPTIONS = [
    ("HINCRBY acct accepted 1", "equation", ""),
    ("HINCRBY acct succeeded -5", "negative", ""),
    ("HINCRBY acct queued 1", "states", ""),
    ("HSET acct bytes some", "lanes", ""),
    ("ZREM jobs {queued}", "record_unlisted", "queued"),
    ("DEL job:{queued}", "record_missing", "queued"),
    ("DEL job:{waiting}", "counts", ""),
    ("DEL job:{succeeded}", "answer_without_record", "succeeded"),
    ("DEL job:{calling}", "stray_entry", "calling"),
    ("HSET job:{queued} state lost", "state_unknown", "queued"),
    ("HDEL job:{waiting} budget", "record_incomplete", "waiting"),
    ("DEL request:{queued}", "request_missing", "queued"),
    ("SET request:{succeeded} {{}}", "request_left", "succeeded"),
    ("ZREM deadlines {due}", "no_deadline", "due"),
    ("ZREM queued:chat.ollama {queued}", "queued_nowhere", "queued"),
    ("ZREM {parked} {waiting}", "waiting_nowhere", "waiting"),
    ("HDEL parked ollama:*", "parking_unknown", "waiting"),
    ("ZREM due {due}", "waiting_nowhere", "due"),
    ("DEL leases:ollama", "call_without_lease", "calling"),
    ("DEL calls:ollama", "call_without_permit", "calling"),
    ("ZADD leases:ollama 1 {calling}@{calling}", "dead_lease", "calling"),
    ("ZADD leases:ollama 1 {calling}@other", "stray_entry", "calling"),
    ("HSET calls:ollama {succeeded}@t interactive", "stray_entry", "succeeded"),
    ("HDEL job:{succeeded} a:1", "attempt_missing", "succeeded"),
    (
        'HSET job:{succeeded} a:1 {{"started_at":1}}',
        "attempt_open",
        "succeeded",
    ),
    ("HSET job:{succeeded} a:1 {{", "attempt_missing", "succeeded"),
    ("HSET job:{succeeded} attempts many", "attempt_missing", "succeeded"),
    ("HSET job:{calling} token other", "call_without_attempt", "calling"),
    ("HSET job:{calling} state queued", "attempt_open", "calling"),
    ("DEL celery-task-meta-{succeeded}", "answer_missing", "succeeded"),
    ("SET celery-task-meta-{queued} {{}}", "answer_too_early", "queued"),
    ("ZREM terminal {succeeded}@succeeded", "never_removed", "succeeded"),
    ("HSET job:{cancelled} state expired", "stray_entry", "cancelled"),
    ("ZADD queued:chat.ollama 1 {succeeded}", "stray_entry", "succeeded"),
    ("ZADD queued:chat.ollama.batch 1 {queued}", "stray_entry", "queued"),
    ("ZADD parked:ollama:*:batch 1 {waiting}", "stray_entry", "waiting"),
    ("ZADD due 1 {cancelled}", "stray_entry", "cancelled"),
    ("ZADD deadlines 1 {succeeded}", "stray_entry", "succeeded"),
    ("ZADD terminal 99999999999999 {queued}@succeeded", "stray_entry", "queued"),
    ("HINCRBY in_use:ollama interactive 1", "permits", ""),
    ("HINCRBY in_use:ollama budget@ollama:* -1", "permits", ""),
    ("HINCRBY lane:chat.ollama jobs 1", "lane", ""),
    ("HINCRBY lane:chat.ollama.batch bytes 1", "lanes", ""),
    ("HINCRBY budget:ollama:* interactive 1", "budgets", ""),
    ("HINCRBY budget:ollama:* front@batch 1", "budget", ""),
]


class StoreAudited(StoreBase):
    """The audit reads only; every test has jobs of every state."""

    @pytest.fixture
    def jobs(self, store, client):
        """One job of each state, two of ``waiting``: ``waiting`` is parked, ``due`` backs off."""
        self.permits(client, 8)
        over, again, calling, lost = (self.admitted(store) for _ in range(4))
        grants = self.called(store, over, again, calling, lost)
        store.finish(self.ending(grants[0]))
        store.finish(self.again(grants[1], after_s=50, signal=""))
        for call in store.calls("ollama"):
            if call.job_id == lost.id:
                store.reclaim("ollama", call)
        cancelled, expired = self.admitted(store), self.admitted(store, timeout_ms=0)
        store.cancel(cancelled.id)
        store.expire_due()
        queued = self.admitted(store)
        self.close(client, 30)
        waiting = self.admitted(store)
        return {
            "succeeded": over.id,
            "due": again.id,
            "calling": calling.id,
            "failed": lost.id,
            "cancelled": cancelled.id,
            "expired": expired.id,
            "queued": queued.id,
            "waiting": waiting.id,
        }

    def corrupt(self, client, command: str, jobs: dict[str, str]) -> None:
        """Run one command in which ``@`` stands for a space inside an argument."""
        filled = command.format(parked=PARKED, **jobs)
        client.execute_command(*(word.replace("@", " ") for word in filled.split(" ")))

    # -- what chatd does itself

    def test_jobs_of_every_state_are_no_breach(self, store, client, jobs):
        """They are all counted, and nothing is changed by looking."""
        before = self.everything(client)
        report = audited(client)
        states = [str(store.record(job_id).state) for job_id in jobs.values()]

        assert report.clean, report.breaches
        assert report.records == {state: states.count(state) for state in report.records}
        assert report.verdict == (
            "no breach: 8 accepted, 1 queued, 2 waiting, 1 calling, 1 succeeded, 1 failed, "
            "1 cancelled, 1 expired, 0 retired"
        )
        assert self.everything(client) == before

    def test_an_empty_redis_is_no_breach(self, client):
        """There is nothing to lose."""
        assert audited(client).clean

    def test_more_jobs_than_one_call_looks_at_are_all_looked_at(self, store, client):
        """The last one as well as the first; lanes and budgets are then held against sums."""
        jobs = self.batch(store, 1010)
        whole = audited(client)
        client.hset(f"job:{jobs[0].id}", "state", "lost")
        client.hset(f"job:{jobs[-1].id}", "state", "lost")
        client.hincrby("budget:ollama:*", "batch", -1)
        client.hincrby("lane:chat.ollama", "jobs", 1)
        broken = audited(client).broken
        client.flushdb()

        assert (whole.clean, whole.records["queued"]) == (True, 1010)
        assert broken["state_unknown"] == 2
        assert {"budgets", "lanes", "counts"} <= set(broken)
        assert not {"budget", "lane"} & set(broken)

    def test_removed_records_are_no_breach(self, store, client, jobs):
        """Whether somebody has collected them, or their retention is over."""
        store.settle([jobs["succeeded"]])
        for member in client.zrange("terminal", 0, -1):
            client.zadd("terminal", {member: 1})
        store.retire("ollama")
        report = audited(client)

        assert report.clean, report.breaches
        assert report.counters["retired"] == 4

    def test_a_record_that_redis_let_go_after_its_retention_is_a_note(self, store, client, jobs):
        """No keeper was there; the next one removes what is left of it."""
        client.zadd("terminal", {f"{jobs['succeeded']} succeeded": 1})
        client.delete(f"job:{jobs['succeeded']}", f"celery-task-meta-{jobs['succeeded']}")
        report = audited(client)
        store.retire()

        assert report.clean, report.breaches
        assert report.noted == {"overdue_removal": 1}

    @pytest.mark.usefixtures("jobs")
    def test_a_lost_wake_up_is_told_and_is_no_breach(self, client):
        """With the age of its job; the keeper sends it again."""
        client.delete(QUEUE)
        (job_id,) = client.zrange(f"queued:{QUEUE}", 0, -1)
        client.hset(f"job:{job_id}", "created", now_ms(client) - 40_000)
        report = audited(client)
        queue = next(queue for queue in report.queues if queue.name == QUEUE)

        assert report.clean, report.breaches
        assert (queue.queued, queue.wake_ups) == (1, 0)
        assert queue.oldest_s in {40, 41}

    def test_results_of_other_programs_are_left_alone(self, client):
        """Celery's own tasks may have theirs in the same database, and what else has such names."""
        client.mset({"celery-task-meta-8c2f0e1a": "{}", "request:17": "{}"})

        assert audited(client).clean

    # -- what nobody did

    @pytest.mark.parametrize(("command", "rule", "whose"), CORRUPTIONS, ids=lambda value: value)
    def test_a_corruption_is_named(self, client, jobs, command, rule, whose):
        """With its rule and its job, after one command by hand."""
        self.corrupt(client, command, jobs)
        report = audited(client, limit=100)
        client.flushdb()
        named = {(breach.suspect.rule, breach.suspect.job_id) for breach in report.breaches}

        assert not report.clean
        assert (rule, jobs.get(whose, "")) in named

    def test_what_is_mended_before_the_second_look_is_no_breach(self, client, jobs):
        """A job was on its way from one place to another."""
        pauses = []
        (score,) = client.zmscore(f"queued:{QUEUE}", [jobs["queued"]])
        client.zrem(f"queued:{QUEUE}", jobs["queued"])

        def mend(seconds):
            pauses.append(seconds)
            client.zadd(f"queued:{QUEUE}", {jobs["queued"]: score})

        report = Auditor(client, ChatdConfig(), sleep=mend).audit()

        assert report.clean, report.breaches
        assert pauses == [1.0]

    @pytest.mark.parametrize("key", ["due", "deadlines", f"queued:{QUEUE}", PARKED])
    def test_an_entry_that_leaves_before_the_second_look_is_no_breach(self, client, jobs, key):
        """Its job has gone on, and the entry with it."""
        client.zadd(key, {jobs["cancelled"]: 1})

        def leave(_seconds):
            client.zrem(key, jobs["cancelled"])

        report = Auditor(client, ChatdConfig(), sleep=leave).audit()

        assert report.clean, report.breaches

    def test_what_breaks_its_rule_in_another_state_is_no_breach_yet(self, client, jobs):
        """It has moved since; only what stands still is lost."""
        client.zrem("deadlines", jobs["queued"])

        def move(_seconds):
            client.hset(f"job:{jobs['queued']}", "state", "waiting")

        report = Auditor(client, ChatdConfig(), sleep=move).audit(limit=100)
        client.flushdb()

        assert "no_deadline" not in report.broken

    def test_a_lease_that_is_renewed_meanwhile_is_no_breach(self, store, client, jobs):
        """Redis stood still for long, and nobody could; two heartbeats are waited for."""
        client.zadd("leases:ollama", {f"{jobs['calling']} {jobs['calling']}": 1})
        pauses = []

        def renew(seconds):
            pauses.append(seconds)
            store.heartbeat("ollama-1@here", "ollama", [(jobs["calling"], jobs["calling"])])

        report = Auditor(client, ChatdConfig(), sleep=renew).audit()

        assert report.clean, report.breaches
        assert pauses == [10.0]

    def test_a_late_lease_is_a_note(self, client, jobs):
        """The keeper waits longer, before it gives a call up."""
        late = now_ms(client) - 20_000
        client.zadd("leases:ollama", {f"{jobs['calling']} {jobs['calling']}": late})
        report = audited(client)

        assert (report.clean, report.noted) == (True, {"late_lease": 1})

    def test_suspects_beyond_memory_are_counted(self, store, client):
        """Nothing is proved then, and the report says so."""
        for job in self.batch(store, 4):
            client.zrem("deadlines", job.id)
        auditor = Auditor(client, ChatdConfig(), sleep=lambda _: None, most_suspects=3)
        report = auditor.audit()
        client.flushdb()

        assert (report.clean, sum(report.broken.values())) == (False, 3)
        assert report.unchecked >= 4
        assert report.verdict.startswith("3 breaches, ")

    # -- what is told beside

    def test_attempts_that_may_have_been_billed_are_listed(self, store, client, jobs):
        """The first ones by name, and how many there are; a lost call is one of them."""
        (job,) = self.batch(store, 1, provider="openrouter")
        self.called(store, job)
        self.reclaim(store, "openrouter")
        report = audited(client, limit=1)
        (attempt,) = report.maybe

        assert (report.maybe_count, report.lost_calls, report.clean) == (2, 2, True)
        assert (attempt.job_id, attempt.number, attempt.outcome) == (jobs["failed"], 1, "lost")
        assert attempt.worker == "ollama-1@here"
        assert attempt.ended_at is not None
        assert attempt.started_at <= attempt.ended_at

    def test_a_breach_is_explained_by_what_its_job_went_through(self, client, jobs):
        """As far as the audit stream still has it."""
        client.delete(f"celery-task-meta-{jobs['failed']}")
        (breach,) = audited(client).breaches
        client.flushdb()

        assert breach.suspect.rule == "answer_missing"
        assert [event.event for event in breach.events] == ["queued", "calling", "failed"]
        assert breach.events[1].detail == "ollama-1@here"
