"""/v1/evaluations over fakes: what makes an evaluation, what is refused, what is shown of one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from api.contract import ErrorAnswer
from api.evaluation_contract import EvaluationAnswer, Evaluations
from chat.batches.batch import Fault, Status
from chat.evaluations.evaluation import Progress
from chat.evaluations.folder import EvaluationStore
from chat.files import FileStore
from chat.jobs import new_id
from chat.settings import ChatdConfig
from chat.types import JSON
from tests.batches import lines_of
from tests.evaluations import a_suite
from tests.fakes import gateway

DATASET = b'{"id": "q1", "prompt": "What is 1?", "expected": 1}\n'
UNKNOWN = "eval_01m8km9hca0fry9f33695ve0c8"


@pytest.fixture
def client(tmp_path: Path) -> Any:
    """A client of a front end with the defaults, and a data_dir of its own."""
    return gateway(ChatdConfig(data_dir=tmp_path)).client


@pytest.fixture
def store(tmp_path: Path) -> EvaluationStore:
    """What the keeper of the same data_dir has."""
    return EvaluationStore(tmp_path / "evaluations")


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


@pytest.fixture
def body(files: FileStore) -> JSON:
    """A request for an evaluation of one sample."""
    with files.incoming() as incoming:
        incoming.write(DATASET)
        file = incoming.commit("in.jsonl", "batch")
    return {"suite": a_suite(), "input_file_id": file.id}


def _post(client: Any, body: JSON, key: str | None = None) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/v1/evaluations", json=body, headers=headers)


def _evaluation(response: Any) -> JSON:
    """The evaluation of a response, checked against the contract."""
    assert response.status_code == 200, response.text
    EvaluationAnswer.model_validate_json(response.data)
    answer: JSON = response.json
    return answer


def _page(client: Any, **query: object) -> JSON:
    response = client.get("/v1/evaluations", query_string=query)
    assert response.status_code == 200, response.text
    Evaluations.model_validate_json(response.data)
    answer: JSON = response.json
    return answer


def figures(
    name: str,
    answered: int = 0,
    errored: int = 0,
    verdicts: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> JSON:
    """A model's numbers as the keeper has them; ``verdicts`` in the order of their names."""
    score = {"mean": 0.5, "stderr": None, "low": None, "high": None, "scored": answered}
    return {
        "name": name,
        "model": name,
        "provider": "ollama",
        "upstream_model": name,
        "total": 4,
        "answered": answered,
        "errored": errored,
        "cached": 0,
        "truncated": None,
        "errors": {"upstream_rejected": errored} if errored else {},
        "scores": [
            {"scorer": "numeric", "type": "numeric", **score}
            | {"unparsable": 0, "errored": 0, "samples": None}
        ],
        "verdicts": dict(zip(("total", "scored", "unparsable", "errored"), verdicts, strict=True)),
        "queue_ms": None,
        "model_ms": None,
        "input_tokens": 10,
        "output_tokens": 5,
        "cost_usd": 0.25,
        "judge": {"calls": 0, "input_tokens": 0, "output_tokens": 0, "cost_usd": None},
    }


def _error(response: Any) -> JSON:
    ErrorAnswer.model_validate_json(response.data)
    told: JSON = response.json["error"]
    return told


class TestCreate:
    """POST /v1/evaluations."""

    def test_an_evaluation_is_made_and_left_to_the_keeper(
        self, client: Any, store: EvaluationStore, body: JSON
    ) -> None:
        """200 at once; its dataset is there for the keeper, whatever becomes of the file."""
        body["suite"].update(description="sums", repeats=3, completion_window="7d")
        answer = _evaluation(_post(client, {**body, "metadata": {"for": "a test"}}))
        evaluation, _ = store.get(answer["id"])

        assert store.unfinished() == [answer["id"]]
        assert (store.folder(answer["id"]) / "dataset.jsonl").read_bytes() == DATASET
        assert evaluation.suite.to_wire() == body["suite"]
        assert evaluation.window_s == 7 * 86400
        assert answer.pop("id").startswith("eval_")
        assert answer.pop("created_at") == evaluation.created_ms // 1000
        assert answer == {
            "object": "evaluation",
            "name": "numbers",
            "description": "sums",
            "status": "validating",
            "errors": None,
            "input_file_id": body["input_file_id"],
            "expires_at": None,
            "in_progress_at": None,
            "finalizing_at": None,
            "completed_at": None,
            "failed_at": None,
            "expired_at": None,
            "cancelling_at": None,
            "cancelled_at": None,
            "round": 0,
            "batch_ids": [],
            "samples": 0,
            "repeats": 3,
            "counts": {"total": 0, "answered": 0, "errored": 0, "cached": 0},
            "verdicts": {"total": 0, "scored": 0, "unparsable": 0, "errored": 0},
            "models": [],
            "usage": {"input_tokens": 0, "output_tokens": 0, "cost_usd": None},
            "metadata": {"for": "a test"},
        }

    @pytest.mark.parametrize(
        ("change", "param", "said"),
        [
            pytest.param({"suite": None}, "suite", "is null", id="no suite"),
            pytest.param({"suite": "x"}, "suite", "fields of name", id="a text"),
            pytest.param({"sweet": {}}, "sweet", '"suite"', id="unknown field"),
            pytest.param({"input_file_id": 7}, "input_file_id", "is 7", id="file 7"),
            pytest.param({"metadata": {"k": 1}}, "metadata.k", "is 1", id="metadata"),
        ],
    )
    def test_a_field_that_is_wrong_is_400_and_named(
        self, client: Any, store: EvaluationStore, body: JSON, change: JSON, param: str, said: str
    ) -> None:
        """Nothing is made."""
        response = _post(client, body | change)
        told = _error(response)

        assert (response.status_code, told["code"]) == (400, "invalid_request")
        assert told["param"] == param
        assert said in told["message"]
        assert store.unfinished() == []

    @pytest.mark.parametrize(
        ("change", "param", "said"),
        [
            pytest.param({"name": ""}, "suite.name", "1 to 128", id="name"),
            pytest.param({"models": []}, "suite.models", "a list of 0", id="no models"),
            pytest.param(
                {"models": ["m", {"model": "n", "temperature": 1}]},
                "suite.models[1].temperature",
                "parameters",
                id="a field of another place",
            ),
            pytest.param({"models": ["m", "m"]}, "suite.models[1]", "its own", id="model twice"),
            pytest.param(
                {"scorers": [{"type": "exact"}, {"type": "regex", "pattern": "("}]},
                "suite.scorers[1].pattern",
                "regular expression",
                id="pattern",
            ),
            pytest.param({"scorers": [7]}, "suite.scorers[0]", "it is 7", id="scorer 7"),
            pytest.param({"repeats": 101}, "suite.repeats", "1 to 100", id="repeats"),
            pytest.param({"a b": 1}, 'suite["a b"]', "nearest", id="no identifier"),
            *(
                pytest.param(
                    {"completion_window": window}, "suite.completion_window", "30 days", id=window
                )
                for window in ("0h", "31d", "soon")
            ),
        ],
    )
    def test_a_fault_of_the_suite_is_named_by_its_place_in_the_body(
        self, client: Any, store: EvaluationStore, body: JSON, change: JSON, param: str, said: str
    ) -> None:
        """Once, at the beginning of the message and in ``param``."""
        response = _post(client, body | {"suite": a_suite(**change)})
        told = _error(response)

        assert (response.status_code, told["code"]) == (400, "invalid_request")
        assert told["param"] == param
        assert told["message"].startswith(param)
        assert told["message"].count("suite") == 1
        assert said in told["message"]
        assert store.unfinished() == []

    @pytest.mark.parametrize(
        ("change", "param", "status", "code"),
        [
            pytest.param(
                {"models": ["small", "openrouter/a/b"]},
                "suite.models[1]",
                404,
                "provider_not_registered",
                id="no key",
            ),
            pytest.param(
                {"models": ["small", {"model": "ollama/x:cloud"}]},
                "suite.models[1].model",
                400,
                "invalid_request",
                id="it would be forwarded",
            ),
            pytest.param(
                {"scorers": [{"type": "judge", "model": "x:cloud", "rubric": "r"}]},
                "suite.scorers[0].model",
                404,
                "provider_not_registered",
                id="judge",
            ),
        ],
    )
    def test_a_model_that_leads_nowhere_is_refused_at_once(
        self,
        client: Any,
        store: EvaluationStore,
        body: JSON,
        change: JSON,
        param: str,
        status: int,
        code: str,
    ) -> None:
        """With its place, before anything is stored."""
        response = _post(client, body | {"suite": a_suite(**change)})
        told = _error(response)

        assert (response.status_code, told["code"], told["param"]) == (status, code, param)
        assert told["message"].startswith(f"{param}: model ")
        assert store.unfinished() == []

    def test_a_body_that_is_no_json_is_400(self, client: Any) -> None:
        """As everywhere."""
        response = client.post("/v1/evaluations", data="{")

        assert (response.status_code, _error(response)["code"]) == (400, "invalid_request")

    @pytest.mark.parametrize(
        "file_id", ["file-01m8km9hcbnah05k6vhxqmb5sv", "file-x", "../../etc/passwd"]
    )
    def test_an_unknown_dataset_is_404(
        self, client: Any, store: EvaluationStore, body: JSON, file_id: str
    ) -> None:
        """Whatever it looks like."""
        response = _post(client, {**body, "input_file_id": file_id})

        assert (response.status_code, _error(response)["code"]) == (404, "file_not_found")
        assert store.unfinished() == []

    def test_results_are_no_dataset(
        self, client: Any, files: FileStore, body: JSON, tmp_path: Path
    ) -> None:
        """A file of another purpose is 400, which says of which."""
        (tmp_path / "out.jsonl").write_text(lines_of(1))
        file_id = new_id("file-")
        files.adopt(tmp_path / "out.jsonl", file_id, "out.jsonl", "batch_output")
        response = _post(client, {**body, "input_file_id": file_id})
        told = _error(response)

        assert (response.status_code, told["param"]) == (400, "input_file_id")
        assert "batch_output" in told["message"]
        assert "upload the dataset" in told["message"]


class TestIdempotency:
    """The same call twice."""

    def test_the_same_key_and_body_is_the_same_evaluation(
        self, client: Any, store: EvaluationStore, body: JSON
    ) -> None:
        """As it is by now, and however the same is written."""
        first = _evaluation(_post(client, body, key="k"))
        store.save(first["id"], Progress(Status.COMPLETED, {"completed_at": 5}))
        body["suite"].update(cache=True, description=None)
        again = _evaluation(_post(client, body, key="k"))

        assert (again["id"], again["status"]) == (first["id"], "completed")
        assert len(_page(client)["data"]) == 1

    def test_a_call_that_broke_off_is_gone_on_with(
        self, client: Any, store: EvaluationStore, body: JSON
    ) -> None:
        """A process may have died with the id, and before there was an evaluation."""
        first = _evaluation(_post(client, body, key="k"))["id"]
        shutil.rmtree(store.folder(first))

        assert _evaluation(_post(client, body, key="k"))["id"] == first
        assert store.unfinished() == [first]

    def test_a_retry_does_not_need_the_dataset(self, client: Any, body: JSON) -> None:
        """It may have been deleted since: the evaluation has what it needs."""
        first = _evaluation(_post(client, body, key="k"))
        client.delete(f"/v1/files/{body['input_file_id']}")

        assert _evaluation(_post(client, body, key="k"))["id"] == first["id"]
        assert _post(client, body, key="l").status_code == 404

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"suite": a_suite(repeats=2)}, id="repeats"),
            pytest.param({"suite": a_suite(cache=False)}, id="cache"),
            pytest.param({"metadata": {"a": "b"}}, id="metadata"),
        ],
    )
    def test_the_same_key_with_another_body_is_422(
        self, client: Any, body: JSON, change: JSON
    ) -> None:
        """Nothing is made."""
        _evaluation(_post(client, body, key="k"))
        response = _post(client, body | change, key="k")

        assert (response.status_code, _error(response)["code"]) == (422, "idempotency_mismatch")
        assert len(_page(client)["data"]) == 1

    @pytest.mark.parametrize("keys", [("k", "l"), (None, None)], ids=["two keys", "no key"])
    def test_without_a_common_key_there_are_two_evaluations(
        self, client: Any, body: JSON, keys: tuple[str | None, str | None]
    ) -> None:
        """Though they ask for the same."""
        ids = {_evaluation(_post(client, body, key=key))["id"] for key in keys}

        assert len(ids) == 2

    def test_a_bad_key_is_400(self, client: Any, store: EvaluationStore, body: JSON) -> None:
        """Before anything is made."""
        response = _post(client, body, key="a b")

        assert (response.status_code, _error(response)["param"]) == (400, "Idempotency-Key")
        assert store.unfinished() == []


class TestReading:
    """GET /v1/evaluations and /v1/evaluations/<id>."""

    def test_an_evaluation_is_shown_as_it_is_by_now(
        self, client: Any, store: EvaluationStore, body: JSON
    ) -> None:
        """Its models one by one, and all together."""
        evaluation_id = _evaluation(_post(client, body))["id"]
        models = [figures("a", answered=3, errored=1), figures("b", answered=2)]
        progress = Progress(Status.IN_PROGRESS, {"in_progress_at": 7}, 4, models=models)
        store.save(evaluation_id, progress)
        answer = _evaluation(client.get(f"/v1/evaluations/{evaluation_id}"))

        assert (answer["status"], answer["in_progress_at"]) == ("in_progress", 7)
        assert answer["models"] == models
        assert answer["counts"] == {"total": 8, "answered": 5, "errored": 1, "cached": 0}

    def test_the_faults_of_a_dataset_are_shown(
        self, client: Any, store: EvaluationStore, body: JSON
    ) -> None:
        """Of one line, and of all of it."""
        evaluation_id = _evaluation(_post(client, body))["id"]
        faults = [Fault("invalid_request", "wrong", 7, "id"), Fault("empty_file", "empty")]
        store.save(evaluation_id, Progress(Status.FAILED, {"failed_at": 7}, faults=faults))
        answer = _evaluation(client.get(f"/v1/evaluations/{evaluation_id}"))

        assert (answer["status"], answer["errors"]["object"]) == ("failed", "list")
        assert [fault["line"] for fault in answer["errors"]["data"]] == [7, None]

    def test_a_list_has_the_newest_first_and_says_where_the_next_begins(
        self, client: Any, body: JSON
    ) -> None:
        """As that of batches."""
        ids = sorted(_evaluation(_post(client, body))["id"] for _ in range(3))
        first = _page(client, limit=2)
        second = _page(client, limit=2, after=first["last_id"])

        assert [item["id"] for item in first["data"] + second["data"]] == ids[::-1]
        assert (first["last_id"], first["has_more"]) == (ids[1], True)
        assert (second["last_id"], second["has_more"]) == (ids[0], False)

    @pytest.mark.parametrize(
        ("query", "param", "said"),
        [
            pytest.param({"limit": "0"}, "limit", "1 to 100", id="limit 0"),
            pytest.param({"limit": "101"}, "limit", "1 to 100", id="limit 101"),
            pytest.param({"after": "batch_x"}, "after", "an evaluation id", id="no id"),
        ],
    )
    def test_a_page_that_cannot_be_is_400(
        self, client: Any, query: JSON, param: str, said: str
    ) -> None:
        """With the rule."""
        response = client.get("/v1/evaluations", query_string=query)

        assert (response.status_code, _error(response)["param"]) == (400, param)
        assert said in _error(response)["message"]

    @pytest.mark.parametrize("evaluation_id", [UNKNOWN, "eval_x", "x", "%2e%2e%2ffiles"])
    @pytest.mark.parametrize("verb", ["", "cancel", "retry", "report"])
    def test_an_unknown_evaluation_is_404(self, client: Any, verb: str, evaluation_id: str) -> None:
        """Whatever it looks like."""
        method = "POST" if verb in ("cancel", "retry") else "GET"
        path = f"/v1/evaluations/{evaluation_id}/{verb}".removesuffix("/")
        response = client.open(path, method=method)

        assert response.status_code == 404
        assert _error(response)["code"] in ("evaluation_not_found", "not_found")

    def test_a_disk_that_does_not_answer_is_503(
        self, client: Any, store: EvaluationStore, body: JSON
    ) -> None:
        """It is no defect of the front end's."""
        evaluation_id = _evaluation(_post(client, body))["id"]
        progress = store.folder(evaluation_id) / "progress.json"
        progress.unlink()
        progress.mkdir()
        path = f"/v1/evaluations/{evaluation_id}"
        responses = [client.get(each) for each in ("/v1/evaluations", path, f"{path}/report")]
        responses += [client.post(f"{path}/{verb}") for verb in ("cancel", "retry")]

        assert {response.status_code for response in responses} == {503}
        assert {_error(response)["code"] for response in responses} == {"storage_unavailable"}


class TestCancel:
    """POST /v1/evaluations/<id>/cancel."""

    def test_an_evaluation_is_cancelling_until_the_keeper_has_ended_it(
        self, client: Any, store: EvaluationStore, body: JSON
    ) -> None:
        """Everybody sees it at once, and asking again changes nothing."""
        evaluation_id = _evaluation(_post(client, body))["id"]
        store.save(evaluation_id, Progress(Status.IN_PROGRESS, {"in_progress_at": 7}, 2))
        path = f"/v1/evaluations/{evaluation_id}"
        answers = [_evaluation(client.post(f"{path}/cancel")) for _ in range(2)]
        answers.append(_evaluation(client.get(path)))

        assert {answer["status"] for answer in answers} == {"cancelling"}
        assert all(answer["cancelling_at"] for answer in answers)
        assert store.cancelled_at(evaluation_id) is not None

    def test_one_that_is_over_stays_as_it_is(
        self, client: Any, store: EvaluationStore, body: JSON
    ) -> None:
        """Too late is no error."""
        evaluation_id = _evaluation(_post(client, body))["id"]
        store.save(evaluation_id, Progress(Status.EXPIRED, {"expired_at": 7}, 2))
        answer = _evaluation(client.post(f"/v1/evaluations/{evaluation_id}/cancel"))

        assert (answer["status"], answer["cancelling_at"]) == ("expired", None)


class TestRetry:
    """POST /v1/evaluations/<id>/retry."""

    @pytest.mark.parametrize("status", [Status.COMPLETED, Status.CANCELLED, Status.EXPIRED])
    @pytest.mark.parametrize(
        "failed",
        [
            pytest.param({"errored": 1}, id="an answer"),
            pytest.param({"verdicts": (4, 3, 0, 1)}, id="a verdict"),
            pytest.param({"verdicts": (4, 3, 1, 0)}, id="a verdict that cannot be read"),
            pytest.param({"verdicts": (4, 3, 0, 0)}, id="a verdict that nobody gave"),
        ],
    )
    def test_what_failed_is_asked_again(
        self, client: Any, store: EvaluationStore, body: JSON, status: Status, failed: JSON
    ) -> None:
        """The keeper is told; until it has begun, asking once more changes nothing."""
        evaluation_id = _evaluation(_post(client, body))["id"]
        models = [figures("small", **failed)]
        store.save(evaluation_id, Progress(status, {f"{status}_at": 7}, 4, models=models))
        assert store.unfinished() == []
        path = f"/v1/evaluations/{evaluation_id}/retry"
        answers = [_evaluation(client.post(path)) for _ in range(2)]

        assert [answer["status"] for answer in answers] == ["in_progress"] * 2
        assert store.unfinished() == [evaluation_id]
        assert store.retry_asked(evaluation_id)

    @pytest.mark.parametrize(
        ("progress", "said"),
        [
            pytest.param(Progress(Status.VALIDATING), "is validating", id="it has not begun"),
            pytest.param(
                Progress(Status.IN_PROGRESS, samples=4, models=[figures("m", errored=1)]),
                "is in_progress",
                id="it runs",
            ),
            pytest.param(
                Progress(Status.COMPLETED, samples=4, models=[figures("m", answered=4)]),
                "nothing to ask again",
                id="everything is answered",
            ),
            pytest.param(Progress(Status.FAILED), "make another", id="nothing was asked"),
        ],
    )
    def test_where_there_is_nothing_to_retry_it_is_400(
        self, client: Any, store: EvaluationStore, body: JSON, progress: Progress, said: str
    ) -> None:
        """The message says why; nothing is changed."""
        evaluation_id = _evaluation(_post(client, body))["id"]
        progress.times = {"in_progress_at": 7}
        store.save(evaluation_id, progress)
        response = client.post(f"/v1/evaluations/{evaluation_id}/retry")
        told = _error(response)

        assert (response.status_code, told["code"]) == (400, "invalid_request")
        assert evaluation_id in told["message"]
        assert said in told["message"]
        assert not store.retry_asked(evaluation_id)
