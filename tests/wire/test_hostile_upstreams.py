"""An upstream that means harm, or is badly broken: each call ends, cheaply, and without the key.

The calls are made in a process of their own, which tells what they took and where they went.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from chat.errors import UpstreamProtocolError
from chat.types import Provider
from tests.upstream import Answer, ScriptedUpstream
from tests.wire.hostile import BELOW, INSIDE, REDIRECTS, Case
from tests.wire.hostile.case import PROTOCOL
from tests.wire.measured import Caller, Outcome
from tests.wire.providers import PROVIDERS, call, plain_request
from tests.wire.test_provider_faults import good_body

#: What a call may take for a moment. An answer may have 32 MiB, and one character in it that needs
#: four bytes makes Python keep all of them so: as the body's text, as the answer's, and once more.
_MOST_MIB = 400
_MOST_MIB_OF_A_LIST = 150

_A_YEAR_S = 366 * 86400
_LONGEST = 700

#: The cases of the lists are dealt out to so many tests, and with them to all providers.
_PARTS = 10

#: A list of one model, in both shapes.
_LIST = json.dumps({"models": [{"name": "Paris"}], "data": [{"id": "Paris"}]}).encode()


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    """The process that calls; prints at the end what it saw."""
    with Caller() as caller:
        yield caller
        print(f"\n{caller.summary()}")  # noqa: T201 - shown by pytest -s


def faults(outcome: Outcome, case: Case, upstream: ScriptedUpstream) -> list[str]:
    """What does not hold, of all that has to hold of every call."""
    told = outcome.wire.get("message", "")
    rules = {
        outcome.unforeseen: not outcome.unforeseen,
        f"{outcome.said} in place of {set(case.ends)}": outcome.code in case.ends,
        f"{outcome.leaked}: {outcome.said}": not outcome.leaked,
        f"took {outcome.grew_mib:.0f} MiB": outcome.grew_mib < _MOST_MIB,
        f"reached {outcome.reached}": {tuple(there) for there in outcome.reached}
        <= {("127.0.0.1", upstream.port)},
        f"looked up {outcome.names}": set(outcome.names) <= {"127.0.0.1"},
        f"waits for {outcome.wire.get('retry_after_s')} s": 0
        <= outcome.wire.get("retry_after_s", 0)
        <= _A_YEAR_S,
        f"says {told!r}": told.isprintable() and len(told) < _LONGEST,
    }
    return [f"{case.id}: {rule}" for rule, holds in rules.items() if not holds]


def scripted(upstream: ScriptedUpstream, case: Case, good: bytes) -> None:
    """Let the upstream answer each request as ``case`` says."""
    upstream.always(
        lambda request: case.answer(
            good, f"you sent {request.headers.get('authorization', 'nothing')}"
        )
    )


@pytest.mark.parametrize("pieces", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize(
    ("name", "case"),
    [
        # What lies below all protocols needs no more than one provider each.
        pytest.param(PROVIDERS[number % len(PROVIDERS)], case, id=case.id)
        for number, case in enumerate(BELOW)
    ],
)
def test_a_call_ends_whatever_comes_on_the_wire(
    upstream: ScriptedUpstream, caller: Caller, name: str, case: Case, *, pieces: bool
) -> None:
    """Sent once and to nowhere else; bounded in memory and time; without the key in the error."""
    scripted(upstream, case, good_body(name))
    outcome = caller.call(name, upstream.url, within_s=case.within_s, pieces=pieces)

    assert faults(outcome, case, upstream) == []
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("pieces", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("group", INSIDE)
def test_a_call_ends_whatever_an_answer_says(
    upstream: ScriptedUpstream, caller: Caller, name: str, group: str, *, pieces: bool
) -> None:
    """The same, of each provider's protocol."""
    found = []
    for case in INSIDE[group]:
        scripted(upstream, case, good_body(name))
        outcome = caller.call(name, upstream.url, within_s=case.within_s, pieces=pieces)
        found += faults(outcome, case, upstream)

    assert found == []
    assert len(upstream.requests) == len(INSIDE[group])


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_redirect_leads_nowhere(upstream: ScriptedUpstream, caller: Caller, name: str) -> None:
    """Wherever it points, nothing is connected to or looked up there, and the error says why."""
    found = []
    for case in REDIRECTS:
        scripted(upstream, case, good_body(name))
        outcome = caller.call(name, upstream.url)
        found += faults(outcome, case, upstream)
        assert "base URL is probably wrong, since redirects are not followed" in outcome.said

    assert found == []
    assert len(upstream.requests) == len(REDIRECTS)


@pytest.mark.parametrize("number", range(_PARTS))
def test_a_list_of_models_ends_as_well(
    upstream: ScriptedUpstream, caller: Caller, number: int
) -> None:
    """What is too large for a list, though not for an answer, is no list."""
    name = PROVIDERS[number % len(PROVIDERS)]
    cases = (*BELOW, *REDIRECTS, *INSIDE["texts"], *INSIDE["errors"])
    found = []
    for case in cases[number::_PARTS]:
        scripted(upstream, case, _LIST)
        outcome = caller.call(name, upstream.url, within_s=case.within_s, models=True)
        either = replace(case, ends=case.ends | {PROTOCOL})
        found += faults(outcome, either, upstream)
        assert outcome.grew_mib < _MOST_MIB_OF_A_LIST, case.id

    assert found == []


def test_an_answer_before_the_answer_is_nobody_elses(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider]
) -> None:
    """The answer that follows 103 belongs to that call, and not to the next on the connection."""
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n"
    went_on = threading.Event()
    first, second = (
        Answer.of(good_body("kimi").replace(b"Paris", city)) for city in (b"Rome", b"Oslo")
    )
    upstream.then(Answer.raw(hints, went_on, *first.steps), second)
    provider = make_provider("kimi", upstream)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(call, provider, plain_request("kimi"))
        upstream.wait_for(1)
        went_on.set()

    assert asked.result().content == "Rome"
    assert call(provider, plain_request("kimi")).content == "Oslo"
    assert len(upstream.connections) == 1


def test_what_stands_behind_an_answer_is_nobodys(
    upstream: ScriptedUpstream, make_provider: Callable[..., Provider]
) -> None:
    """A second answer that nobody asked for is not taken for that to the next call."""
    good = good_body("kimi")
    twice, once = (Answer.of(good.replace(b"Paris", city)) for city in (b"unasked", b"Oslo"))
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    # In one piece, so that it is there when the first answer is.
    short = Answer.raw(head + b"".join(step for step in twice.steps if isinstance(step, bytes)))
    upstream.then(short, once)
    provider = make_provider("kimi", upstream)
    with pytest.raises(UpstreamProtocolError):
        call(provider, plain_request("kimi"))

    assert call(provider, plain_request("kimi")).content == "Oslo"
