"""What /v1/evaluations has beside evaluations: reports, the cache, the schema of a suite."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.contract import ErrorAnswer
from api.evaluation_contract import (
    CacheAnswer,
    ClearedCache,
    EvaluationAnswer,
    Row,
    SuiteSchema,
    Summary,
)
from chat.batches.batch import Status
from chat.evaluations.evaluation import Evaluation, Progress
from chat.evaluations.folder import FORMATS, EvaluationStore
from chat.evaluations.suite import read_suite
from chat.jobs import NewJob, new_id
from chat.settings import ChatdConfig
from chat.types import JSON
from tests.evaluations import Refused, Stage, a_suite, question_of, samples_of, verdict
from tests.fakes import gateway

MEBIBYTE = 2**20
#: What a model wrote that would like to run.
HOSTILE = b"<script>fetch('/v1/jobs')</script>\n"


@pytest.fixture
def client(tmp_path: Path) -> Any:
    """A client of a front end with the defaults, and a data_dir of its own."""
    return gateway(ChatdConfig(data_dir=tmp_path)).client


@pytest.fixture
def store(tmp_path: Path) -> EvaluationStore:
    """What the keeper of the same data_dir has."""
    return EvaluationStore(tmp_path / "evaluations")


@pytest.fixture
def make(store: EvaluationStore, tmp_path: Path) -> Callable[[Status], str]:
    """Makes an evaluation that stands there, without any report."""

    def make(status: Status) -> str:
        dataset = tmp_path / "dataset.jsonl"
        dataset.write_text("{}")
        evaluation_id = new_id("eval_")
        store.create(Evaluation(evaluation_id, "file-x", read_suite(a_suite()), 60, 1), dataset)
        store.save(evaluation_id, Progress(status, {f"{status}_at": 7}))
        return evaluation_id

    return make


def _report(client: Any, evaluation_id: str, query: str = "", **options: Any) -> Any:
    return client.get(f"/v1/evaluations/{evaluation_id}/report{query}", buffered=True, **options)


def _error(response: Any) -> JSON:
    ErrorAnswer.model_validate_json(response.data)
    told: JSON = response.json["error"]
    return told


class TestReport:
    """GET /v1/evaluations/<id>/report."""

    @pytest.mark.parametrize(
        ("query", "file", "content_type"),
        [
            pytest.param("", "report.html", "text/html; charset=utf-8", id="left out"),
            pytest.param("?format=html", "report.html", "text/html; charset=utf-8", id="html"),
            pytest.param("?format=json", "summary.json", "application/json", id="json"),
            pytest.param("?format=jsonl", "results.jsonl", "application/jsonl", id="jsonl"),
            pytest.param("?format=csv", "results.csv", "text/csv; charset=utf-8", id="csv"),
            pytest.param("?format=junit", "junit.xml", "application/xml", id="junit"),
        ],
    )
    def test_each_format_is_a_file_of_the_evaluation(
        self,
        client: Any,
        store: EvaluationStore,
        make: Callable[[Status], str],
        query: str,
        file: str,
        content_type: str,
    ) -> None:
        """As the keeper wrote it; what is no page and no JSON has a name to be saved under."""
        evaluation_id = make(Status.COMPLETED)
        for name in FORMATS.values():
            (store.folder(evaluation_id) / name).write_bytes(HOSTILE + name.encode())
        response = _report(client, evaluation_id, query)
        name = response.headers.get("Content-Disposition")

        assert (response.status_code, response.data) == (200, HOSTILE + file.encode())
        assert response.headers["Content-Type"] == content_type
        assert response.headers["Content-Length"] == str(len(HOSTILE + file.encode()))
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        if file.endswith(("html", ".json")):
            assert name is None
        else:
            assert name == f"attachment; filename={evaluation_id}-{file}"

    def test_a_page_may_run_and_nothing_else(
        self, client: Any, store: EvaluationStore, make: Callable[[Status], str]
    ) -> None:
        """Whatever a model has answered: no network, and a place of its own, apart from chatd."""
        evaluation_id = make(Status.COMPLETED)
        (store.folder(evaluation_id) / "report.html").write_bytes(HOSTILE)
        header = _report(client, evaluation_id).headers["Content-Security-Policy"]
        policy = dict(part.partition(" ")[::2] for part in header.split("; "))

        assert policy["default-src"] == "'none'"
        assert "allow-same-origin" not in policy["sandbox"]
        assert "connect-src" not in policy
        assert all("http" not in rest and "*" not in rest for rest in policy.values())

    @pytest.mark.parametrize("status", [Status.COMPLETED, Status.CANCELLED, Status.IN_PROGRESS])
    def test_the_last_rounds_report_is_there_while_another_runs(
        self,
        client: Any,
        store: EvaluationStore,
        make: Callable[[Status], str],
        status: Status,
    ) -> None:
        """And has another ETag once it is replaced."""
        evaluation_id = make(status)
        tags = []
        for text in ("first", "again"):
            making = store.folder(evaluation_id) / "making"
            making.write_text(text)
            making.rename(store.folder(evaluation_id) / "summary.json")
            response = _report(client, evaluation_id, "?format=json")
            assert response.text == text
            tags.append(response.headers["ETag"])
        known = _report(client, evaluation_id, "?format=json", headers={"If-None-Match": tags[1]})

        assert tags[0] != tags[1]
        assert (known.status_code, known.data) == (304, b"")

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            pytest.param(Status.VALIDATING, "is validating and has no report yet", id="new"),
            pytest.param(Status.IN_PROGRESS, "is in_progress and has no report yet", id="running"),
            pytest.param(Status.FAILED, "is failed and has no report, since", id="failed"),
        ],
    )
    def test_without_a_report_it_is_400_with_the_status(
        self, client: Any, make: Callable[[Status], str], status: Status, said: str
    ) -> None:
        """Nobody has to guess why."""
        response = _report(client, make(status))

        assert (response.status_code, _error(response)["code"]) == (400, "invalid_request")
        assert said in _error(response)["message"]

    @pytest.mark.parametrize("name", ["pdf", "", "../progress", "report.html"])
    def test_any_other_format_is_400(
        self, client: Any, make: Callable[[Status], str], name: str
    ) -> None:
        """No name of a caller's becomes one of a file."""
        response = client.get(
            f"/v1/evaluations/{make(Status.COMPLETED)}/report", query_string={"format": name}
        )

        assert (response.status_code, _error(response)["param"]) == (400, "format")
        assert "html, json, jsonl, csv, junit" in _error(response)["message"]

    def test_a_large_one_comes_in_pieces(
        self, client: Any, store: EvaluationStore, make: Callable[[Status], str]
    ) -> None:
        """It is never held whole, and a download that broke off can go on."""
        evaluation_id = make(Status.COMPLETED)
        size = 30_000_000
        with (store.folder(evaluation_id) / "results.jsonl").open("wb") as out:
            out.truncate(size)
        tracemalloc.start()
        try:
            response = client.get(f"/v1/evaluations/{evaluation_id}/report?format=jsonl")
            total = sum(len(piece) for piece in response.iter_encoded())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        response.close()
        rest = _report(
            client, evaluation_id, "?format=jsonl", headers={"Range": f"bytes={size - 5}-"}
        )

        assert total == size
        assert peak < MEBIBYTE
        assert (rest.status_code, rest.data) == (206, bytes(5))


class TestCache:
    """/v1/evaluations/cache."""

    def test_it_says_what_it_has_and_forgets_it(self, client: Any, store: EvaluationStore) -> None:
        """An empty one is no special case."""
        answer = {"provider": "ollama", "upstream_model": "small", "content": "1"}
        before = client.get("/v1/evaluations/cache")
        store.cache.put({"a": answer, "b": answer})
        kept = client.get("/v1/evaluations/cache")
        gone = [client.delete("/v1/evaluations/cache") for _ in range(2)]
        after = client.get("/v1/evaluations/cache")
        for response in (before, kept, after):
            CacheAnswer.model_validate_json(response.data)
        for response in gone:
            ClearedCache.model_validate_json(response.data)

        assert before.json == {"answers": 0, "bytes": 0, "oldest_at": None} == after.json
        assert kept.json["answers"] == 2
        assert kept.json["bytes"] == 2 * len(json.dumps(answer))
        assert kept.json["oldest_at"] > 0
        assert [response.json for response in gone] == [{"deleted": 2}, {"deleted": 0}]

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_a_broken_one_is_503(self, client: Any, tmp_path: Path, method: str) -> None:
        """With the way out."""
        (tmp_path / "evaluations").mkdir()
        (tmp_path / "evaluations/cache.db").write_text("no database, and long enough to be one")
        response = client.open("/v1/evaluations/cache", method=method)

        assert (response.status_code, _error(response)["code"]) == (503, "storage_unavailable")
        assert "remove the file" in _error(response)["message"]


def test_the_schema_of_a_suite_takes_suites(client: Any) -> None:
    """An editor that has it finds the same faults."""
    response = client.get("/v1/evaluations/schema")
    SuiteSchema.model_validate_json(response.data)
    Draft202012Validator.check_schema(response.json)
    validator = Draft202012Validator(response.json)

    assert validator.is_valid(a_suite())
    assert validator.is_valid(a_suite(scorers=[{"type": "json_schema", "schema": {}}]))
    assert not validator.is_valid(a_suite(scorers=[{"type": "exactly"}]))
    assert not validator.is_valid(a_suite(repeats=0))


def _answer(job: NewJob) -> str:
    """A small model that is wrong about 2, fails at 3, and whose judge says nothing about 4."""
    if job.request.model == "judge":
        asked = "".join(message.content for message in job.request.messages)
        return "well" if "What is 4?" in asked else verdict("pass")
    number = int(question_of(job).removeprefix("What is ").removesuffix("?"))
    if number == 3:
        raise Refused("upstream_rejected")
    return "17" if number == 2 else str(number)


def test_the_page_and_its_header_let_the_same_script_run(client: Any, tmp_path: Path) -> None:
    """A browser holds the page to both policies: by the page's own only its script may run."""
    stage = Stage(tmp_path, _answer)
    evaluation_id = stage.create(a_suite(), samples_of(1))
    stage.until_over(evaluation_id)
    stage.stop()
    response = _report(client, evaluation_id)
    header = response.headers["Content-Security-Policy"]
    head, _, _ = response.text.partition("<style>")
    found = re.search('http-equiv="Content-Security-Policy" content="([^"]+)"', head)
    assert found is not None

    for directive in ("script-src", "style-src"):
        assert f"{directive} 'unsafe-inline'" in header
        assert f"{directive} 'sha256-" in found[1]
    assert "unsafe-inline" not in found[1]


def test_what_the_keeper_makes_is_what_the_contract_says(client: Any, tmp_path: Path) -> None:
    """At every moment of an evaluation, and for every line of its results."""
    stage = Stage(tmp_path, _answer)
    judge = {"type": "judge", "model": "judge", "rubric": "The number is right."}
    models = ["small", {"model": "small", "name": "again", "parameters": {"seed": 1}}]
    suite = a_suite(models=models, scorers=[{"type": "numeric"}, judge])
    evaluation_id = stage.create(suite, samples_of(4))
    path = f"/v1/evaluations/{evaluation_id}"
    told: JSON = {}
    seen = set()
    for _ in range(500):
        response = client.get(path)
        EvaluationAnswer.model_validate_json(response.data)
        told = response.json
        seen.add(told["status"])
        if told["status"] == "completed":
            break
        stage.step()
    summary = _report(client, evaluation_id, "?format=json")
    Summary.model_validate_json(summary.data)
    lines = _report(client, evaluation_id, "?format=jsonl").data.splitlines()
    for line in lines:
        Row.model_validate_json(line)

    assert seen >= {"validating", "in_progress", "completed"}
    assert told["counts"] == {"total": 8, "answered": 6, "errored": 2, "cached": 0}
    assert told["verdicts"] == {"total": 6, "scored": 4, "unparsable": 2, "errored": 0}
    assert [model["errors"] for model in told["models"]] == [{"upstream_rejected": 1}] * 2
    assert [model["name"] for model in summary.json["models"]] == ["small", "again"]
    assert len(lines) == 8
    assert client.post(f"{path}/retry").json["status"] == "in_progress"
    stage.stop()
