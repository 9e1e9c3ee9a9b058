"""/v1/batches over fakes: what makes a batch, what is refused, what is shown of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.batch_contract import BatchAnswer, Batches
from api.contract import ErrorAnswer
from chat.batches.batch import Fault, Progress, Status
from chat.batches.folder import BatchStore
from chat.files import FileStore
from chat.jobs import new_id
from chat.settings import ChatdConfig
from chat.types import JSON
from tests.batches import lines_of
from tests.fakes import gateway

HOUR_S = 3600
DAY_S = 24 * HOUR_S
UNKNOWN = "batch_01m8km9gfkb29r7zz3sj4bf7jp"


@pytest.fixture
def client(tmp_path: Path) -> Any:
    """A client of a front end with the defaults, and a data_dir of its own."""
    return gateway(ChatdConfig(data_dir=tmp_path)).client


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    """What the keeper of the same data_dir has."""
    return BatchStore(tmp_path / "batches")


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


@pytest.fixture
def body(files: FileStore) -> JSON:
    """A request for a batch of two lines."""
    with files.incoming() as incoming:
        incoming.write(lines_of(2).encode())
        file = incoming.commit("in.jsonl", "batch")
    return {
        "input_file_id": file.id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }


def _post(client: Any, body: JSON, key: str | None = None) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/v1/batches", json=body, headers=headers)


def _batch(response: Any) -> JSON:
    """The batch of a response, checked against the contract."""
    assert response.status_code == 200, response.text
    BatchAnswer.model_validate_json(response.data)
    answer: JSON = response.json
    return answer


def _page(client: Any, **query: object) -> JSON:
    response = client.get("/v1/batches", query_string=query)
    assert response.status_code == 200, response.text
    Batches.model_validate_json(response.data)
    answer: JSON = response.json
    return answer


def _error(response: Any) -> JSON:
    ErrorAnswer.model_validate_json(response.data)
    told: JSON = response.json["error"]
    return told


class TestCreate:
    """POST /v1/batches."""

    def test_a_batch_is_made_and_left_to_the_keeper(
        self, client: Any, store: BatchStore, body: JSON
    ) -> None:
        """200 at once, in OpenAI's form; its requests are there for the keeper."""
        answer = _batch(_post(client, {**body, "metadata": {"for": "a test"}}))

        assert store.unfinished() == [answer["id"]]
        assert (store.folder(answer["id"]) / "input.jsonl").read_text() == lines_of(2)
        assert answer["expires_at"] - answer["created_at"] == DAY_S
        answer.pop("expires_at"), answer.pop("created_at")
        assert answer.pop("id").startswith("batch_")
        assert answer == {
            **body,
            "object": "batch",
            "model": None,
            "errors": None,
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "in_progress_at": None,
            "finalizing_at": None,
            "completed_at": None,
            "failed_at": None,
            "expired_at": None,
            "cancelling_at": None,
            "cancelled_at": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "usage": {
                "input_tokens": 0,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 0,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 0,
            },
            "metadata": {"for": "a test"},
            "chatd": {"cost_usd": None, "errors": {}},
        }

    @pytest.mark.parametrize(
        ("window", "seconds"),
        [
            pytest.param("1h", HOUR_S, id="the shortest"),
            pytest.param("24h", DAY_S, id="OpenAI's"),
            pytest.param("7d", 7 * DAY_S, id="days"),
            pytest.param("720h", 30 * DAY_S, id="the longest in hours"),
            pytest.param("30d", 30 * DAY_S, id="the longest in days"),
        ],
    )
    def test_a_window_is_a_number_of_hours_or_days(
        self, client: Any, body: JSON, window: str, seconds: int
    ) -> None:
        """And is shown as it was given."""
        answer = _batch(_post(client, {**body, "completion_window": window}))

        assert answer["expires_at"] - answer["created_at"] == seconds
        assert answer["completion_window"] == window

    @pytest.mark.parametrize(
        "window",
        ["0h", "31d", "721h", "x", "", "24", "h", "1.5h", "-1h", "024h", "24h\n", "24 h", "9999d"],
        ids=repr,
    )
    def test_any_other_window_is_400(
        self, client: Any, store: BatchStore, body: JSON, window: str
    ) -> None:
        """With the rule; nothing is made."""
        response = _post(client, {**body, "completion_window": window})
        told = _error(response)

        assert (response.status_code, told["code"]) == (400, "invalid_request")
        assert told["param"] == "completion_window"
        assert "30 days" in told["message"]
        assert store.unfinished() == []

    @pytest.mark.parametrize(
        ("change", "param"),
        [
            pytest.param({"input_file_id": None}, "input_file_id", id="no file"),
            pytest.param({"input_file_id": 7}, "input_file_id", id="file 7"),
            pytest.param({"endpoint": "/v1/embeddings"}, "endpoint", id="unknown endpoint"),
            pytest.param({"endpoint": None}, "endpoint", id="no endpoint"),
            pytest.param({"completion_window": 24}, "completion_window", id="window 24"),
            pytest.param({"metadata": "x"}, "metadata", id="metadata is a text"),
            pytest.param({"metadata": {"k": 1}}, "metadata.k", id="metadata has a number"),
            pytest.param({"metadata": {"": "v"}}, "metadata", id="a key is empty"),
            pytest.param({"metadata": {"k" * 65: "v"}}, "metadata", id="a key is too long"),
            pytest.param({"metadata": {"k": "v" * 513}}, "metadata.k", id="a value is too long"),
            pytest.param(
                {"metadata": {str(number): "v" for number in range(17)}}, "metadata", id="17 keys"
            ),
            pytest.param({"input_file": "x"}, "input_file", id="unknown field"),
        ],
    )
    def test_a_field_that_is_wrong_is_400_and_named(
        self, client: Any, store: BatchStore, body: JSON, change: JSON, param: str
    ) -> None:
        """Nothing is made."""
        response = _post(client, body | change)
        told = _error(response)

        assert (response.status_code, told["code"]) == (400, "invalid_request")
        assert told["param"].startswith(param)
        assert store.unfinished() == []

    @pytest.mark.parametrize("field", ["input_file_id", "endpoint", "completion_window"])
    def test_a_field_that_is_missing_is_400_and_named(
        self, client: Any, body: JSON, field: str
    ) -> None:
        """All but the metadata are needed."""
        del body[field]
        response = _post(client, body)

        assert response.status_code == 400
        assert _error(response)["param"] == field

    def test_a_body_that_is_no_json_is_400(self, client: Any) -> None:
        """As everywhere."""
        response = client.post("/v1/batches", data="{")

        assert (response.status_code, _error(response)["code"]) == (400, "invalid_request")

    @pytest.mark.parametrize(
        "file_id", ["file-01m8km9gfmvppyer5k7fy6x403", "file-x", "../../etc/passwd"]
    )
    def test_an_unknown_file_is_404(
        self, client: Any, store: BatchStore, body: JSON, file_id: str
    ) -> None:
        """Whatever it looks like."""
        response = _post(client, {**body, "input_file_id": file_id})

        assert (response.status_code, _error(response)["code"]) == (404, "file_not_found")
        assert store.unfinished() == []

    def test_results_are_no_requests(
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


class TestIdempotency:
    """The same call twice."""

    def test_the_same_key_and_body_is_the_same_batch(
        self, client: Any, store: BatchStore, body: JSON
    ) -> None:
        """As it is by now."""
        first = _batch(_post(client, body, key="k"))
        store.save(first["id"], Progress(Status.COMPLETED, {"completed_at": 5}))
        again = _batch(_post(client, body, key="k"))

        assert (again["id"], again["status"]) == (first["id"], "completed")
        assert len(_page(client)["data"]) == 1

    def test_a_retry_does_not_need_the_input_file(self, client: Any, body: JSON) -> None:
        """It may have been deleted since: the batch has what it needs."""
        first = _batch(_post(client, body, key="k"))
        client.delete(f"/v1/files/{body['input_file_id']}")

        assert _batch(_post(client, body, key="k"))["id"] == first["id"]
        assert _post(client, body, key="l").status_code == 404

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"completion_window": "48h"}, id="window"),
            pytest.param({"endpoint": "/v1/chat"}, id="endpoint"),
            pytest.param({"metadata": {"a": "b"}}, id="metadata"),
        ],
    )
    def test_the_same_key_with_another_body_is_422(
        self, client: Any, body: JSON, change: JSON
    ) -> None:
        """Nothing is made."""
        _batch(_post(client, body, key="k"))
        response = _post(client, body | change, key="k")

        assert (response.status_code, _error(response)["code"]) == (422, "idempotency_mismatch")
        assert len(_page(client)["data"]) == 1

    @pytest.mark.parametrize("keys", [("k", "l"), (None, None)], ids=["two keys", "no key"])
    def test_without_a_common_key_there_are_two_batches(
        self, client: Any, body: JSON, keys: tuple[str | None, str | None]
    ) -> None:
        """Though they ask for the same."""
        ids = {_batch(_post(client, body, key=key))["id"] for key in keys}

        assert len(ids) == 2

    def test_a_bad_key_is_400(self, client: Any, store: BatchStore, body: JSON) -> None:
        """Before anything is made."""
        response = _post(client, body, key="a b")

        assert (response.status_code, _error(response)["code"]) == (400, "invalid_request")
        assert store.unfinished() == []


class TestReading:
    """GET /v1/batches and /v1/batches/<id>."""

    def test_a_batch_is_shown_as_it_is_by_now(
        self, client: Any, store: BatchStore, body: JSON
    ) -> None:
        """With what it has cost so far."""
        batch_id = _batch(_post(client, body))["id"]
        progress = Progress(Status.IN_PROGRESS, {"in_progress_at": 7}, 9, 3, 2, 100, 50, 0.25)
        progress.codes["upstream_rejected"] = 2
        store.save(batch_id, progress)
        answer = _batch(client.get(f"/v1/batches/{batch_id}"))

        assert (answer["status"], answer["in_progress_at"]) == ("in_progress", 7)
        assert answer["request_counts"] == {"total": 9, "completed": 3, "failed": 2}
        assert answer["usage"]["total_tokens"] == 150
        assert answer["chatd"] == {"cost_usd": 0.25, "errors": {"upstream_rejected": 2}}

    def test_the_faults_of_a_file_are_shown(
        self, client: Any, store: BatchStore, body: JSON
    ) -> None:
        """Of one line, and of all of it."""
        batch_id = _batch(_post(client, body))["id"]
        faults = [Fault("invalid_request", "wrong", 7, "body"), Fault("empty_file", "empty")]
        store.save(batch_id, Progress(Status.FAILED, {"failed_at": 7}, faults=faults))
        answer = _batch(client.get(f"/v1/batches/{batch_id}"))

        assert (answer["status"], answer["errors"]["object"]) == ("failed", "list")
        assert [fault["line"] for fault in answer["errors"]["data"]] == [7, None]

    def test_a_list_has_the_newest_first_and_says_where_the_next_begins(
        self, client: Any, body: JSON
    ) -> None:
        """As OpenAI's clients leaf through it."""
        ids = sorted(_batch(_post(client, body))["id"] for _ in range(3))
        first = _page(client, limit=2)
        second = _page(client, limit=2, after=first["last_id"])

        assert [item["id"] for item in first["data"] + second["data"]] == ids[::-1]
        assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[2], ids[1], True)
        assert (second["first_id"], second["last_id"], second["has_more"]) == (*[ids[0]] * 2, False)

    def test_an_empty_list_has_no_ends(self, client: Any) -> None:
        """Nothing was ever made."""
        assert _page(client) == {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            pytest.param({"limit": "0"}, "limit", id="limit 0"),
            pytest.param({"limit": "101"}, "limit", id="limit 101"),
            pytest.param({"limit": "-1"}, "limit", id="limit -1"),
            pytest.param({"limit": "ten"}, "limit", id="limit ten"),
            pytest.param({"limit": ""}, "limit", id="limit empty"),
            pytest.param({"after": "batch_x"}, "after", id="no batch id"),
            pytest.param({"after": ""}, "after", id="after nothing"),
        ],
    )
    def test_a_page_that_cannot_be_is_400(self, client: Any, query: JSON, param: str) -> None:
        """With the rule."""
        response = client.get("/v1/batches", query_string=query)

        assert (response.status_code, _error(response)["param"]) == (400, param)

    @pytest.mark.parametrize("batch_id", [UNKNOWN, "batch_x", "x", "%2e%2e%2ffiles"])
    @pytest.mark.parametrize("verb", ["show", "cancel"])
    def test_an_unknown_batch_is_404(self, client: Any, verb: str, batch_id: str) -> None:
        """Whatever it looks like."""
        path = f"/v1/batches/{batch_id}"
        response = client.get(path) if verb == "show" else client.post(f"{path}/cancel")

        assert response.status_code == 404
        assert _error(response)["code"] in ("batch_not_found", "not_found")

    def test_a_disk_that_does_not_answer_is_503(
        self, client: Any, store: BatchStore, body: JSON
    ) -> None:
        """It is no defect of the front end's."""
        batch_id = _batch(_post(client, body))["id"]
        progress = store.folder(batch_id) / "progress.json"
        progress.unlink()
        progress.mkdir()
        responses = [client.get(path) for path in (f"/v1/batches/{batch_id}", "/v1/batches")]

        assert [response.status_code for response in responses] == [503, 503]
        assert {_error(response)["code"] for response in responses} == {"storage_unavailable"}


class TestCancel:
    """POST /v1/batches/<id>/cancel."""

    def test_a_batch_is_cancelling_until_the_keeper_has_ended_it(
        self, client: Any, store: BatchStore, body: JSON
    ) -> None:
        """Everybody sees it at once, and asking again changes nothing."""
        batch_id = _batch(_post(client, body))["id"]
        store.save(batch_id, Progress(Status.IN_PROGRESS, {"in_progress_at": 7}, 2))
        answers = [_batch(client.post(f"/v1/batches/{batch_id}/cancel")) for _ in range(2)]
        answers.append(_batch(client.get(f"/v1/batches/{batch_id}")))

        assert {answer["status"] for answer in answers} == {"cancelling"}
        assert all(answer["cancelling_at"] for answer in answers)
        assert store.cancelled_at(batch_id) is not None

    @pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.EXPIRED])
    def test_one_that_is_over_stays_as_it_is(
        self, client: Any, store: BatchStore, body: JSON, status: Status
    ) -> None:
        """Too late is no error."""
        batch_id = _batch(_post(client, body))["id"]
        store.save(batch_id, Progress(status, {f"{status.value}_at": 7}, 2))
        answer = _batch(client.post(f"/v1/batches/{batch_id}/cancel"))

        assert (answer["status"], answer["cancelling_at"]) == (status.value, None)
