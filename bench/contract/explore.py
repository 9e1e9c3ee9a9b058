"""Schemathesis on a running chatd: what it sent, what came back, and what breaks the contract."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.engine import events, from_schema
from schemathesis.hooks import unregister
from schemathesis.openapi.checks import RejectedPositiveData

from bench.contract.rules import TEXT_IN_A_FORM, rule_for
from bench.contract.world import KEY

__all__ = ["Exploration", "Finding", "explore"]

#: A refusal of what is no good request: nothing of it gets so far that a server could be at fault.
_REFUSED = [400, 401, 404, 405, 409, 410, 412, 413, 416, 422]
#: Of what the schema allows, but the moment does not.
_NOT_NOW = ["2xx", "3xx", 401, 404, 409, 410, 412, 416, 422, 429, 502, 504]
_KEY = re.compile("[!-~]{1,200}")
#: One key in so many stays as it is.
_OLD_KEYS = 8
#: In the path and the body, how often an id or a model that exists is taken.
_KNOWN = 0.8
_LARGE = ("POST /v1/chat", "POST /v1/chat/completions", "POST /v1/jobs", "POST /v1/evaluations")
#: Where parameters stand that are not in the path alone.
_PLACES = {"model": ("path", "body"), "input_file_id": ("body",), "Range": ("header",)}


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which an operation broke its contract, with a request that shows it."""

    check: str
    operation: str
    what: str
    request: str
    answer: str


@dataclass(slots=True)
class Exploration:
    """What was sent and found: statuses by operation, refusals by rule, each finding once."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    checks: Counter[str] = field(default_factory=Counter)
    beyond: Counter[str] = field(default_factory=Counter)
    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(counts.total() for counts in self.statuses.values())


def explore(
    url: str,
    known: Mapping[str, Sequence[str]],
    *,
    examples: int,
    seed: int | None = None,
    quick: bool = False,
) -> Exploration:
    """Hold the chatd at ``url`` to the document that it serves.

    ``known`` has values of parameters by their names, ``examples`` is how many requests an
    operation gets beside those that are the same each time. Without ``seed`` all are. ``quick``
    leaves out most of the latter: what the schemas of the largest bodies say, field by field.
    """
    schema = schemathesis.openapi.from_url(
        f"{url}/openapi.json", config=_config(known, examples, seed, quick=quick)
    )
    found = Exploration()

    @schema.hook
    def filter_failure(_: Any, failure: Any, case: Any, response: Any) -> bool:
        if isinstance(failure, AcceptedNegativeData) and _is_text_in_a_form(failure, case):
            found.beyond[TEXT_IN_A_FORM] += 1
            return False
        if not isinstance(failure, RejectedPositiveData):
            return True
        error = json.loads(response.content)["error"]
        rule = rule_for(error["code"], error["param"] or "", error["message"])
        if rule is not None:
            found.beyond[rule.why] += 1
        return rule is None

    with _new_keys():
        for event in from_schema(schema).execute():
            match event:
                case events.ScenarioFinished():
                    _account(found, event.recorder)
                case events.NonFatalError():
                    title = event.info.title
                    _add(found, Finding("error", event.label, title, "", str(event.value)))
                case events.FatalError():
                    raise event.exception
    return found


def _is_text_in_a_form(failure: Any, case: Any) -> bool:
    """Whether what was to be wrong is only the type of a form's part, of which nothing is sent."""
    return case.operation.label == "POST /v1/files" and "`type`" in failure.message


@contextmanager
def _new_keys() -> Iterator[None]:
    """Make most Idempotency-Keys new ones; else every other call would be 422 for an old one."""
    calls = itertools.count()

    def before_call(_: Any, case: Any, __: Any) -> None:
        headers, number = case.headers or {}, next(calls)
        key = headers.get("Idempotency-Key", "")
        if _KEY.fullmatch(key) and number % _OLD_KEYS:
            headers["Idempotency-Key"] = f"{key}-{number}"

    schemathesis.hook(before_call)
    try:
        yield
    finally:
        unregister(before_call)


def _config(
    known: Mapping[str, Sequence[str]], examples: int, seed: int | None, *, quick: bool
) -> schemathesis.Config:
    settings: dict[str, Any] = {
        "continue-on-failure": True,
        "generation": {
            "max-examples": examples,
            "deterministic": seed is None,
            "database": "none",
            "no-shrink": True,
        },
        "operations": [
            {"include-name": name, "phases": {"coverage": {"enabled": not quick}}}
            for name in _LARGE
        ],
        # Stateful: what one call answers is given to the next.
        "phases": {"examples": {"enabled": False}, "stateful": {"enabled": True}},
        "dictionaries": {name: {"values": list(values)} for name, values in known.items()},
        "output": {"sanitization": {"enabled": False}},
        "auth": {"openapi": {"key": {"bearer": KEY}}},
        "parameters": {
            f"{where}.{name}": {"dictionary": name, "probability": _KNOWN}
            for name in known
            for where in _PLACES.get(name, ("path",))
        },
        "checks": {
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 502, 504]},
            "negative_data_rejection": {"expected-statuses": _REFUSED},
            "positive_data_acceptance": {"expected-statuses": _NOT_NOW},
        },
    }
    if seed is not None:
        settings["seed"] = seed
    return schemathesis.Config.from_dict(settings)


def _account(found: Exploration, recorder: Any) -> None:
    for case_id, interaction in recorder.interactions.items():
        response = interaction.response
        node = recorder.cases.get(case_id)
        label = recorder.label if node is None else node.value.operation.label
        found.statuses[label][0 if response is None else response.status_code] += 1
    for case_id, checks in recorder.checks.items():
        for check in checks:
            found.checks[check.name] += 1
            if check.failure_info is not None:
                failure = check.failure_info.failure
                response = recorder.interactions[case_id].response
                answer = "" if response is None else f"{response.status_code} {response.text[:500]}"
                operation = failure.operation or recorder.label
                sample = check.failure_info.code_sample
                what = f"{failure.title}: {failure.message}"
                _add(found, Finding(check.name, operation, what, sample, answer))


def _add(found: Exploration, finding: Finding) -> None:
    found.findings.setdefault((finding.check, finding.operation, finding.what), finding)
