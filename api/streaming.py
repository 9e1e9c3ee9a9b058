"""Answers that are written while they are made: the body of a response, event by event.

The head is held back until there is something to write, or for some seconds. An error that comes
before that has its usual status and body; one that comes later is an event. The view returns, and
with it Flask's context ends, before most of a stream is written: a ``Stream`` has all it needs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from api import access
from api.admission import job_path, naming
from api.current import notes, this_request
from api.events import Events, comment
from api.frontend import FrontEnd
from api.hangup import Watch, client_socket
from api.headers import NOTHING, Position
from chat.errors import (
    ChatError,
    DeadlineExceeded,
    Draining,
    JobCancelled,
    QueueUnavailable,
    ResultExpired,
    error_from_wire,
)
from chat.follower import START, Follower
from chat.jobs import Outcome
from chat.logs import log_event
from chat.replies import Waiter
from chat.types import JSON, Billed, Delta

__all__ = ["Stream", "Terms"]

_log = logging.getLogger(__name__)

#: Seconds for which a head waits for what follows it, and for an error that would have a status.
_HELD_S = 5.0
#: Seconds of silence after which a comment is written.
_QUIET_S = 10.0
#: Seconds until Redis is asked again that has not answered.
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a stream beside its job.

    ``job_id`` is another one than the waiter's if the job was over before anybody could wait. The
    stream ends after ``seconds``, and ``patience_s`` after the front end was told to stop.
    ``cancels``: whether a client who hangs up ends the job. ``had``: how far it had come before.
    """

    job_id: str
    seconds: float
    patience_s: float
    cancels: bool
    had: Position = NOTHING


class Stream:
    """The events of one job for one client, as the iterable that a WSGI server writes.

    ``close`` is called at the end, whatever that is, and ends everything that ``held`` has, which
    is at least the wait of ``waiter``, whose ``follower`` takes the pieces.
    """

    def __init__(
        self, front: FrontEnd, waiter: Waiter, events: Events, terms: Terms, held: ExitStack
    ) -> None:
        assert waiter.follower is not None, "a stream follows the pieces"  # noqa: S101 - a defect
        self._front = front
        self._connections = front.connections()
        self._waiter = waiter
        self._follower: Follower = waiter.follower
        self._events = events
        self._terms = terms
        self._held = held
        self._until = front.clock() + terms.seconds
        self._job_id = terms.job_id
        self._registered = waiter.job_id
        self._out: list[bytes] = []
        self._first = b""
        self._written = 0
        self._begun = self._over = self._closed = False
        self._ended = "hung up"
        self._method, self._path = "", ""
        self._request_id, self._caller = "", ""
        self._started = front.clock()
        self._watch: Watch | None = None
        front.stopping.call(waiter.wake)
        held.callback(front.stopping.forget, waiter.wake)

    # -- in the view

    def begin(self) -> None:
        """Wait for what the body begins with. Raises what becomes the answer in its place."""
        request, noted = this_request(), notes()
        self._method, self._path, self._request_id = request.method, request.path, noted.request_id
        self._caller = (noted.caller and noted.caller.name) or ""
        self._started = noted.started
        connection = client_socket(request.environ)
        if connection is not None:
            hangups = self._connections.hangups
            self._watch = self._held.enter_context(hangups.watch(connection, self._waiter.wake))
        self._first = self._next(self._front.clock() + _HELD_S) or (
            b"" if self._over else self._comment()
        )
        self._begun = True
        # Its limits count the call until the stream ends, and no longer until the view returns.
        self._held.callback(access.stay(self._front, noted))

    # -- the server

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, b""
        if first:
            return first
        if self._over:
            raise StopIteration
        out = self._next(self._front.clock() + _QUIET_S)
        if not out and self._over:
            raise StopIteration
        return out or self._comment()

    def close(self) -> None:
        """Nobody writes any more of it: all was written, or the client has gone."""
        if self._closed:
            return
        self._closed = True
        try:
            # A front end whose time is over cuts off what is left: that is not the client's doing.
            stop = self._front.stopping.until(self._terms.patience_s)
            if not self._over and self._front.clock() < stop:
                self._leave()
        finally:
            self._held.close()
            if self._begun:
                self._report()

    # -- what comes next

    def _next(self, until: float) -> bytes:
        """All that can be written now; empty if there is nothing before ``until``."""
        try:
            with naming(self._job_id):
                self._advance(until)
        except ChatError as error:
            self._over, self._ended = True, error.code
            if not (self._begun or self._out):
                raise
            self._out.append(self._events.error(error))
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _advance(self, until: float) -> None:
        front, waiter = self._front, self._waiter
        while not self._gone():
            self._check_job()
            # In this order: what comes together with the end is taken before it.
            outcome = waiter.outcome
            taken = self._take_pieces()
            if self._follower.lost:
                raise self._lacking()
            if outcome is not None:
                self._end(outcome)
            if self._out or self._over:
                return
            now = front.clock()
            stop = front.stopping.until(self._terms.patience_s)
            if now >= min(stop, self._until):
                self._give_up(stopped=now >= stop)
                return
            if now >= until:
                return
            look = until if taken else min(until, now + _RETRY_S)
            waiter.wait(min(look, stop, self._until) - now)

    def _gone(self) -> bool:
        """Whether the client has hung up; the stream is over then."""
        if self._watch is None or not self._watch.gone:
            return False
        self._over = True
        self._leave()
        if self._terms.cancels and not self._begun:
            raise JobCancelled("the caller hung up before the answer", job_id=self._job_id)
        return True

    def _take_pieces(self) -> bool:
        """Write the pieces that are there; whether Redis told them, if it had to be asked."""
        try:
            taken = self._follower.take()
        except QueueUnavailable as error:
            _log.debug("the pieces of job %s cannot be read yet: %s", self._job_id, error)
            return False
        for place, delta in taken:
            self._piece(str(place), delta)
        return True

    def _piece(self, place: str, delta: Delta) -> None:
        self._out.append(self._events.piece(place, delta, first=self._is_first))
        self._written += 1

    @property
    def _is_first(self) -> bool:
        return self._written == 0 and self._terms.had == NOTHING

    def _end(self, outcome: Outcome) -> None:
        """Write the rest of the answer, and how it ended. Raises the job's own error."""
        if outcome.error is not None:
            self._fail(error_from_wire({**outcome.error, "job_id": outcome.job_id}))
            return
        answer = outcome.response
        if answer is None:
            raise ResultExpired(
                f"job {self._job_id} is over, but its answer is no longer kept; ask again",
                job_id=self._job_id,
            )
        if self._terms.had.ends == 0 and not self._complete(answer):
            raise self._lacking()
        ends = self._events.ends(answer, first=self._is_first)
        for number, event in enumerate(ends):
            if number >= self._terms.had.ends:
                self._out.append(b"id: end-%d\n%s" % (number, event))
        self._out.append(self._events.last or (b"" if self._out else comment("nothing is left")))
        self._over, self._ended = True, "answered"

    def _fail(self, error: ChatError) -> None:
        """The job's own error, behind what had come of its answer."""
        if not (self._begun or self._out):
            raise error
        if error.partial is not None:
            self._complete(error.partial)
        self._out.append(b"id: end-0\n" + self._events.error(error))
        self._over, self._ended = True, error.code

    def _complete(self, answer: JSON) -> bool:
        """Write what the pieces lack of ``answer``, if it is known what that is."""
        rest = self._follower.rest_of(answer)
        if rest is None:
            return False
        for number, delta in enumerate(rest, 1):
            if number > self._terms.had.rest:
                self._piece(f"{self._follower.place}.{number}", delta)
        return True

    def _lacking(self) -> ResultExpired:
        """Some piece is neither kept nor to be made out from the answer."""
        return ResultExpired(
            f"pieces of job {self._job_id} are missing that are no longer kept; "
            f"GET {job_path(self._job_id)} has the whole answer, once the job is over",
            job_id=self._job_id,
        )

    def _check_job(self) -> None:
        """Redis may have forgotten the job, and its key may have led to another one since."""
        job_id = self._waiter.job_id
        if job_id == self._registered:
            return
        raise ResultExpired(
            f"Redis has forgotten job {self._job_id}, and its Idempotency-Key belongs to job "
            f"{job_id} now; send the request again without Last-Event-ID",
            job_id=job_id,
        )

    def _give_up(self, *, stopped: bool) -> None:
        job_id = self._job_id
        if stopped:
            raise Draining(
                f"this front end is being stopped before the answer; job {job_id} goes on. Come "
                f"back with Last-Event-ID to GET {job_path(job_id)}/events, or with the same "
                "Idempotency-Key to the same call",
                job_id=job_id,
                retry_after_s=1,
                billed=Billed.MAYBE,
            )
        outcome = self._connections.store.expire(job_id)
        if outcome is None:
            raise DeadlineExceeded(
                f"job {job_id} had no answer by its deadline and its upstream call is still being "
                f"closed; GET {job_path(job_id)} tells how it ended",
                job_id=job_id,
            )
        self._end(outcome)

    def _leave(self) -> None:
        """The client has gone."""
        if not self._terms.cancels:
            return
        try:
            self._connections.store.cancel(self._job_id)
        except ChatError as error:
            _log.warning(
                "job %s, whose caller hung up, cannot be cancelled: %s",
                self._job_id,
                error,
                extra={"job_id": self._job_id, "request_id": self._request_id},
            )

    def _comment(self) -> bytes:
        """Where the job stands."""
        if self._follower.place != START:
            return comment("calling")
        try:
            waiting = self._connections.store.waiting(self._job_id)
        except QueueUnavailable as error:
            return comment(f"waiting ({error.code})")
        if waiting is None:
            return comment("calling")
        reason, position = waiting["reason"], waiting["position"]
        told = "queued" if reason == "queue" else f"waiting ({reason})"
        return comment(told if position is None else f"{told}, position {position}")

    def _report(self) -> None:
        """A line of log of its own: that of the request was written when the stream began."""
        milliseconds = (self._front.clock() - self._started) * 1000
        log_event(
            _log,
            logging.INFO,
            "%s %s: stream %s after %.0f ms",
            self._method,
            self._path,
            self._ended,
            milliseconds,
            method=self._method,
            path=self._path,
            stream=self._ended,
            pieces=self._written,
            duration_ms=round(milliseconds, 1),
            job_id=self._job_id,
            request_id=self._request_id,
            caller=self._caller or None,
        )
