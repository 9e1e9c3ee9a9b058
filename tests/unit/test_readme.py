"""README.md says what the code does: its tables, names, commands and paths are held against it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from api.batch_contract import BatchAnswer
from api.completion_contract import CompletionNotes
from api.contract import Answer, AttemptAnswer, BudgetAnswer, ErrorDetail, Record
from api.evaluation_contract import EvaluationAnswer, ModelFigures, Row
from api.openapi import OPERATIONS
from bench.faults import SCENARIOS
from chat.addresses import TLS_FILES
from chat.batches.batch import Status
from chat.config import load_config
from chat.errors import InvalidRequest
from chat.evaluations.dataset import SampleBody
from chat.evaluations.suite import (
    Candidate,
    Contains,
    Exact,
    JsonSchema,
    Judge,
    Numeric,
    Regex,
    Suite,
)
from chat.formats.chat import ChatBody, MessageBody, parse_chat
from chat.formats.completion_body import (
    CompletionBody,
    CompletionMessageBody,
    PartBody,
    StreamOptionsBody,
)
from chat.formats.errors import STATUS
from chat.routing import PROVIDERS, resolve
from chat.settings import ChatdConfig
from chat.types import FinishReason
from cli.main import main as chatd
from tests.fakes import gateway
from tests.pages import ROOT, page, spans
from tests.pages import table as table_of

README = page("README.md")
SHIPPED = ROOT / "lakehouse.toml"

#: Fields of Redis' ``acct`` that are no states.
COUNTERS = {
    *("accepted", "retired", "bytes", "republished", "reclaimed", "permits_overrun", "parks"),
    *("recalled", "recreated"),
}


#: Fields of log lines, and reasons to wait that are no error codes.
LOGGED = {"request_id", "duration_ms", "call_ms"}
REASONS = {"day_quota"}
#: What OpenAI's client calls things, and codes of batches that are no errors of a call.
OPENAIS = {"api_key", "extra_body", "batch_cancelled", "batch_expired", "reasoning_content"}
OPENAIS |= {"prompt_cache_breakpoint", "parsed_arguments"}
#: A code of evaluations that is no error of a call.
EVALUATIONS = {"result_missing"}
SCORERS = (Exact, Contains, Regex, JsonSchema, Numeric, Judge)


def configuration_keys() -> set[str]:
    """Every key that lakehouse.toml documents, those that are commented out as well."""
    return set(re.findall(r"^#?([a-z0-9_]+) = ", SHIPPED.read_text("utf-8"), re.MULTILINE))


table = partial(table_of, README)
ERRORS = table("Status", "Code", "Retry", "Billed", "When")
ROUTES = table("You write", "Provider", "Asked for there", "Why")


def test_every_error_stands_in_the_table_with_its_status() -> None:
    """The classes' codes, and those of requests that reach no view."""
    client = gateway().client
    refusals = [client.get("/nowhere"), client.delete("/health")]
    known = {cls.code: status for cls, status in STATUS.items()}
    known |= {reply.get_json()["error"]["code"]: reply.status_code for reply in refusals}
    statuses = [int(row[0]) for row in ERRORS]

    assert {row[1].strip("`"): int(row[0]) for row in ERRORS} == known
    assert len(ERRORS) == len(known)
    assert statuses == sorted(statuses)


def test_the_table_of_errors_tells_what_may_be_retried_and_what_is_billed() -> None:
    """The first word on the bill is the one that holds unless an error says otherwise."""
    told = {row[1].strip("`"): (row[2] == "yes", row[3].split(",")[0]) for row in ERRORS}

    assert {row[2] for row in ERRORS} == {"yes", "no"}
    for cls in STATUS:
        assert told[cls.code] == (cls.retryable, cls.billed.value), cls.code


def test_the_table_of_calls_is_the_contract() -> None:
    """No call is missing, and none is made up."""
    told = {tuple(row[0].strip("`").split(" ")) for row in table("Call", "What it does")}

    assert told == {(operation.method.upper(), operation.path) for operation in OPERATIONS}


def test_the_table_of_fields_is_the_request() -> None:
    """Every field of the body, and no other."""
    told = [field for row in table("Field", "Rule") for field in spans(row[0])]

    assert sorted(told) == sorted(ChatBody.model_fields)


@pytest.mark.parametrize("row", [pytest.param(row, id=row[0].strip("`")) for row in ROUTES])
def test_each_route_of_the_table_is_taken(row: list[str]) -> None:
    """With the tiers of the configuration that comes with the project."""
    model, provider, upstream_model = (cell.strip("`") for cell in row[:3])
    tiers = load_config(SHIPPED, {}).models
    if provider == "refused":
        with pytest.raises(InvalidRequest):
            resolve(model, tiers)
        return
    route = resolve(model, tiers)

    assert (route.provider, route.model) == (provider, upstream_model)


def test_the_table_of_providers_is_the_default_configuration() -> None:
    """URL, key and concurrency of all five."""
    rows = table("Provider", "Base URL", "Key variable", "Key file", "Calls at a time")
    known = [
        [p.name, p.base_url, p.key_env, p.key_file, str(p.concurrency)]
        for p in ChatdConfig().providers.values()
    ]

    assert [[cell.strip("`") for cell in row] for row in rows] == known
    assert f"`{ChatdConfig().providers['opencode'].go_base_url}`" in README


def test_the_table_of_keys_holds_the_defaults(tmp_path: Path) -> None:
    """Written into a file, its keys are known ones and change nothing."""
    rows = table("Key", "Default", "What it is")
    file = tmp_path / "lakehouse.toml"
    lines = [f"{row[0].strip('`')} = {row[1].strip('`')}" for row in rows]
    file.write_text("\n".join(["[chatd]", *lines]), "utf-8")
    defaults = load_config(None, {}, places=())

    assert replace(load_config(file, {}), source=None) == defaults


def test_every_name_is_one_of_the_project() -> None:
    """A key, code, field, state, provider or tier that the page mentions exists."""
    models = (
        *(Answer, AttemptAnswer, BudgetAnswer, ChatBody, ErrorDetail, MessageBody, Record),
        *(BatchAnswer, CompletionBody, CompletionMessageBody, CompletionNotes, PartBody),
        StreamOptionsBody,
        *(Candidate, EvaluationAnswer, ModelFigures, Row, SampleBody, Suite, *SCORERS),
    )
    known = configuration_keys() | COUNTERS | LOGGED | REASONS | OPENAIS | set(PROVIDERS)
    known |= EVALUATIONS | {scorer.kind for scorer in SCORERS} | {status.value for status in Status}
    known |= {row[1].strip("`") for row in ERRORS} | set(load_config(SHIPPED, {}).models)
    known |= {name for model in models for name in model.model_fields}
    known |= {reason.value for reason in FinishReason} | set(TLS_FILES)
    pages = README + page("docs/openai.md") + page("docs/evaluations.md")
    names = {span for span in spans(pages) if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", span)}

    assert len(names) > 50
    assert names - known == set()


def test_every_curl_sends_a_valid_body() -> None:
    """The examples can be pasted."""
    bodies = re.findall(r"-d '(\{.*?\})'", README, re.DOTALL)

    assert len(bodies) == README.count("-d '")
    for body in bodies:
        assert parse_chat(body.encode(), max_timeout_s=86400).request.model == "local_fast"


def test_every_command_exists() -> None:
    """Commands of chatd, targets of make, modules to run, scenarios of bench.faults."""
    code = "\n".join(spans(README) + re.findall(r"^    (.*)$", README, re.MULTILINE))
    commands = set(re.findall(r"\bchatd ([a-z]+)\b", code))
    targets = set(re.findall(r"\bmake ([a-z]+)\b", code))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    modules = re.findall(r"python -m ([a-z_.]+)", README)
    scenarios = set(re.findall(r"python -m bench\.faults ([a-z-]+)", README))

    assert commands == set(chatd.commands)
    assert targets == set(re.findall(r"^([a-z]+):.*##", makefile, re.MULTILINE))
    assert scenarios
    assert scenarios <= set(SCENARIOS)
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_every_path_exists() -> None:
    """Files and folders of the project, and what the page links to."""
    folders = "api|bench|chat|cli|deploy|docs|tests|workers"
    paths = {span for span in spans(README) if re.fullmatch(rf"({folders})/[\w./-]*", span)}
    links = re.findall(r"\]\(([^)]+)\)", README)
    anchors = {
        "#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }

    assert len(paths) > 15
    for path in paths | {link for link in links if not link.startswith("#")}:
        assert "NAME" in path or (ROOT / path).exists(), path
    assert {link for link in links if link.startswith("#")} <= anchors
