"""Deadline and cancel, in every phase of a call: who notices what, and what stays behind."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from chat.errors import ChatError, JobCancelled, UpstreamTimeout, UpstreamUnavailable
from chat.providers.upstream import Reply, Upstream
from chat.providers.watchdog import process_watchdog
from chat.types import Billed, Cancelled, Deadline
from tests.upstream import Answer, ScriptedUpstream
from tests.waiting import eventually

#: Far off: a call that ends because of it has not been stopped, and the test hangs into its limit.
_NEVER_S = 600.0
_HANG_S = 30.0

ANSWER = {"done": True}

_ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads to make calls from, as a worker has them."""
    with ThreadPoolExecutor(16) as threads:
        yield threads


class Call:
    """One call in a thread of its own, with its switch."""

    def __init__(
        self, pool: ThreadPoolExecutor, upstream: Upstream, within_s: float = _NEVER_S
    ) -> None:
        self.cancelled = Cancelled()
        self._future: Future[Reply] = pool.submit(
            upstream.post,
            "/x",
            {"q": 1},
            deadline=Deadline.after(within_s),
            cancelled=self.cancelled,
        )

    def reply(self) -> Reply:
        """The answer."""
        return self._future.result(_HANG_S)

    def error(self) -> BaseException | None:
        """What it raised."""
        return self._future.exception(_HANG_S)


def never(server: ScriptedUpstream) -> threading.Event:
    """An event that is not set before the server closes."""
    return server.closing


_SLOW: list[tuple[str, Callable[[ScriptedUpstream], Answer]]] = [
    ("headers pending", lambda server: Answer.raw(never(server))),
    ("within headers", lambda server: Answer.raw(b"HTTP/1.1 200 OK\r\nx: ", never(server))),
    (
        "body with a length",
        lambda server: Answer.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", never(server)),
    ),
    (
        "body in chunks",
        lambda server: Answer.chunked([b'{"done":', never(server), b"true}"]),
    ),
    # What has come is a whole JSON object: only the stop tells that the answer was not over.
    (
        "body until close",
        lambda server: Answer.until_close([b'{"done": true}', never(server)]),
    ),
    ("body that flows", lambda _: Answer.endless(b"x")),
]


@pytest.fixture(params=[pytest.param(answer, id=name) for name, answer in _SLOW])
def slow(request: pytest.FixtureRequest, any_upstream: ScriptedUpstream) -> ScriptedUpstream:
    """An upstream, over HTTP and HTTPS, that gets stuck in one phase of its answer."""
    any_upstream.always(request.param(any_upstream))
    return any_upstream


def test_a_cancelled_call_ends_at_once_and_the_upstream_sees_it(
    slow: ScriptedUpstream, make_upstream: Callable[..., Upstream], pool: ThreadPoolExecutor
) -> None:
    """Cancelling from another thread: JobCancelled with the reason; it may have been billed."""
    call = Call(pool, make_upstream(slow.url))
    [request] = slow.wait_for(1)
    call.cancelled.set("somebody asked for it")

    error = call.error()
    slow.wait_for_hang_up(request)

    assert isinstance(error, JobCancelled)
    assert "somebody asked for it" in error.message
    assert error.billed is Billed.MAYBE
    assert len(process_watchdog()) == 0


def test_a_call_ends_at_its_deadline_and_the_upstream_sees_it(
    slow: ScriptedUpstream, make_upstream: Callable[..., Upstream], pool: ThreadPoolExecutor
) -> None:
    """The deadline: UpstreamTimeout, whatever the upstream is doing."""
    call = Call(pool, make_upstream(slow.url), within_s=0.5)
    [request] = slow.wait_for(1)

    error = call.error()
    slow.wait_for_hang_up(request)

    assert isinstance(error, UpstreamTimeout)
    assert error.billed is Billed.MAYBE
    assert error.retryable
    assert len(process_watchdog()) == 0


@pytest.mark.parametrize("phase", ["connecting", "shaking hands"])
@pytest.mark.parametrize("how", ["cancel", "deadline", "connect time-out"])
def test_a_call_can_be_stopped_before_it_is_sent(
    make_upstream: Callable[..., Upstream], pool: ThreadPoolExecutor, phase: str, how: str
) -> None:
    """While TCP or TLS is being set up nothing has been sent, and nothing was billed."""
    kinds: dict[str, tuple[type[ChatError], float, float]] = {
        "cancel": (JobCancelled, _NEVER_S, _NEVER_S),
        "deadline": (UpstreamTimeout, 0.2, _NEVER_S),
        "connect time-out": (UpstreamUnavailable, _NEVER_S, 0.2),
    }
    kind, within_s, connect_s = kinds[how]
    with mute_port(accepting=phase == "shaking hands") as port:
        upstream = make_upstream(f"https://127.0.0.1:{port}", connect_timeout_s=connect_s)
        call = Call(pool, upstream, within_s)
        if how == "cancel":
            eventually(lambda: len(process_watchdog()) == 1)
            call.cancelled.set("no longer wanted")
        error = call.error()

    assert type(error) is kind
    assert error.billed is Billed.NO
    assert len(process_watchdog()) == 0


@contextlib.contextmanager
def mute_port(*, accepting: bool) -> Iterator[int]:
    """A port that never says anything; unless it is ``accepting``, not even connecting ends.

    The kernel completes as many connections as the backlog takes and ignores all others.
    """
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(100 if accepting else 0)
        for _ in range(0 if accepting else 4):
            filler = sockets.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_call_cancelled_beforehand_is_not_made(
    upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream]
) -> None:
    """Not even a connection is opened."""
    cancelled = Cancelled()
    cancelled.set("too late")

    with pytest.raises(JobCancelled, match="too late") as caught:
        make_upstream(upstream.url).post(
            "/x", {}, deadline=Deadline.after(_NEVER_S), cancelled=cancelled
        )

    assert caught.value.billed is Billed.NO
    assert upstream.connections == []


def test_calls_one_after_the_other_share_a_connection(
    any_upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    pool: ThreadPoolExecutor,
) -> None:
    """TCP and TLS are set up once."""
    any_upstream.always(Answer.json(ANSWER))
    upstream = make_upstream(any_upstream.url)

    for _ in range(5):
        Call(pool, upstream).reply()

    assert len(any_upstream.connections) == 1
    assert len(any_upstream.requests) == 5


def test_the_connection_of_a_stopped_call_is_not_used_again(
    any_upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    pool: ThreadPoolExecutor,
) -> None:
    """A call on a connection that served before is stopped; the next call gets a new one."""
    any_upstream.always(Answer.json(ANSWER))
    upstream = make_upstream(any_upstream.url)
    Call(pool, upstream).reply()
    any_upstream.then(Answer.raw(never(any_upstream)))
    stopped = Call(pool, upstream)
    first, second = any_upstream.wait_for(2)
    stopped.cancelled.set("stop")
    stopped.error()

    Call(pool, upstream).reply()

    third = any_upstream.requests[2]
    any_upstream.wait_for_hang_up(second)
    assert first.connection is second.connection
    assert third.connection is not second.connection


def test_a_stop_that_comes_after_the_end_harms_nobody(
    any_upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    pool: ThreadPoolExecutor,
) -> None:
    """The connection serves another call by then, and that call gets its answer."""
    release = threading.Event()
    any_upstream.then(Answer.json(ANSWER), Answer.json(ANSWER, after=release))
    upstream = make_upstream(any_upstream.url)
    over = Call(pool, upstream)
    over.reply()
    running = Call(pool, upstream)
    any_upstream.wait_for(2)

    over.cancelled.set("much too late")
    release.set()

    assert running.reply().fields.values == ANSWER
    assert len(any_upstream.connections) == 1


def test_stopping_some_of_many_calls_leaves_the_others_alone(
    any_upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    pool: ThreadPoolExecutor,
) -> None:
    """Every second of sixteen calls is cancelled, round after round on the same connections."""
    upstream = make_upstream(any_upstream.url)
    for number in range(5):
        release = threading.Event()
        any_upstream.always(Answer.json(ANSWER, after=release))
        calls = [Call(pool, upstream) for _ in range(16)]
        any_upstream.wait_for(16 * (number + 1))
        for call in calls[::2]:
            call.cancelled.set("stop")
        errors = [call.error() for call in calls[::2]]
        release.set()

        assert [type(error) for error in errors] == [JobCancelled] * 8
        assert [call.reply().fields.values for call in calls[1::2]] == [ANSWER] * 8
    assert len(process_watchdog()) == 0


def test_cancelling_at_the_very_end_gives_the_answer_or_the_error_and_breaks_nothing(
    upstream: ScriptedUpstream, make_upstream: Callable[..., Upstream], pool: ThreadPoolExecutor
) -> None:
    """Answer and cancel race; whoever wins, the following call on the pool is served."""
    client = make_upstream(upstream.url)
    for number in range(200):
        release = threading.Event()
        upstream.then(Answer.json(ANSWER, after=release))
        call = Call(pool, client)
        upstream.wait_for(2 * number + 1)
        release.set()
        call.cancelled.set("just now")
        error = call.error()
        upstream.then(Answer.json(ANSWER))

        assert error is None or type(error) is JobCancelled
        assert Call(pool, client).reply().fields.values == ANSWER


def test_no_descriptor_is_left_behind(
    any_upstream: ScriptedUpstream,
    make_upstream: Callable[..., Upstream],
    pool: ThreadPoolExecutor,
) -> None:
    """Answered and stopped calls give back every socket, the duplicates too."""
    upstream = make_upstream(any_upstream.url)
    any_upstream.always(Answer.json(ANSWER))
    Call(pool, upstream).reply()
    before = open_descriptors()
    for _ in range(10):
        sent = len(any_upstream.requests)
        any_upstream.then(Answer.raw(never(any_upstream)))
        stopped = Call(pool, upstream)
        any_upstream.wait_for(sent + 1)
        stopped.cancelled.set("stop")
        stopped.error()
        Call(pool, upstream).reply()

    eventually(lambda: open_descriptors() <= before, what="descriptors given back")


def open_descriptors() -> int:
    """How many files and sockets this process has open, the upstream's among them."""
    return len(list(Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd").iterdir()))


def test_sending_may_take_longer_than_connecting(
    make_upstream: Callable[..., Upstream], pool: ThreadPoolExecutor
) -> None:
    """An upstream that does not read a large body is given until the deadline."""
    with mute_port(accepting=True) as port:
        upstream = make_upstream(f"http://127.0.0.1:{port}", connect_timeout_s=0.1)
        future = pool.submit(
            upstream.post,
            "/x",
            {"image": "A" * 20_000_000},
            deadline=Deadline.after(1.0),
            cancelled=Cancelled(),
        )
        error = future.exception(_HANG_S)

    assert isinstance(error, UpstreamTimeout)
    assert "when the time limit of the call was over" in error.message
    assert error.billed is Billed.MAYBE


_FORKING = """
import os, threading, time
from chat.providers.watchdog import StopReason, process_watchdog

class Subject:
    def __init__(self):
        self.stopped = threading.Event()
    def stop(self, reason):
        self.stopped.set()

def stops():
    subject = Subject()
    process_watchdog().watch(subject, time.monotonic(), StopReason.DEADLINE)
    return subject.stopped.wait(30)

assert stops()
child = os.fork()
if child == 0:
    os._exit(0 if stops() else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_calls_end_at_their_deadline_in_a_forked_child_too() -> None:
    """Threads do not survive a fork, so the child needs a watchdog of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKING], cwd=_ROOT, timeout=60, check=False
    )

    assert done.returncode == 0
