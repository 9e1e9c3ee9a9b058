"""/v1/files beyond uploads: lists, what is known about a file, its content, its end."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from api.contract import DeletedFile, Files
from chat.config import load_config
from chat.errors import ConfigError
from chat.jobs import new_id
from chat.settings import ChatdConfig
from chat.types import JSON
from tests.fakes import gateway
from tests.forms import LINES, PURPOSE, Made, error, files_in, form, send, stored

MEBIBYTE = 2**20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files are."""
    return tmp_path / "files"


@pytest.fixture
def client(tmp_path: Path) -> Any:
    """A client of a front end with the defaults, and files in a folder of its own."""
    return gateway(ChatdConfig(data_dir=tmp_path)).client


def page(client: Any, **query: object) -> JSON:
    """A list, checked against the contract."""
    response = client.get("/v1/files", query_string=query)
    assert response.status_code == 200, response.text
    Files.model_validate_json(response.data)
    answer: JSON = response.json
    return answer


def content(client: Any, file_id: str, method: str = "GET", **headers: str) -> Any:
    path = f"/v1/files/{file_id}/content"
    return client.open(path, method=method, headers=headers, buffered=True)


def test_a_download_is_never_held_whole(client: Any) -> None:
    """It is read in pieces as the client takes it."""
    size = 30_000_000
    body = Made(size)
    answer = send(client, body, body.length).json
    tracemalloc.start()
    try:
        response = client.get(f"/v1/files/{answer['id']}/content", buffered=False)
        total = sum(len(piece) for piece in response.iter_encoded())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    response.close()

    assert total == size
    assert peak < MEBIBYTE


class TestReading:
    """What is known about files, their lists, and what is in them."""

    def test_a_file_is_shown_as_its_upload_was_answered(self, client: Any) -> None:
        """GET /v1/files/<id>."""
        answer = stored(client)
        response = client.get(f"/v1/files/{answer['id']}")

        assert response.status_code == 200
        assert response.json == answer

    def test_the_content_comes_as_it_was_uploaded(self, client: Any) -> None:
        """With its length, its hash, and its name for whoever saves it."""
        answer = stored(client)
        response, head = content(client, answer["id"]), content(client, answer["id"], "HEAD")

        assert (response.status_code, response.data) == (200, LINES)
        assert response.headers["Content-Type"] == "application/jsonl"
        assert response.headers["Content-Length"] == str(len(LINES))
        assert response.headers["Content-Disposition"] == "attachment; filename=in.jsonl"
        assert (head.status_code, head.data) == (200, b"")
        assert head.headers["Content-Length"] == str(len(LINES))

    @pytest.mark.parametrize(
        ("name", "header"),
        [
            pytest.param("a b;c", 'attachment; filename="a b;c"', id="to be quoted"),
            pytest.param("größer", f"attachment; filename*=UTF-8''{quote('größer')}", id="UTF-8"),
        ],
    )
    def test_the_name_is_a_valid_header(self, client: Any, name: str, header: str) -> None:
        """RFC 6266, which takes RFC 5987 for what is not ASCII."""
        answer = stored(client, form(PURPOSE, ("file", (name, LINES))))
        response = content(client, answer["id"])

        assert response.headers["Content-Disposition"] == header

    @pytest.mark.parametrize(
        ("asked", "status", "data", "told"),
        [
            pytest.param("bytes=2-5", 206, LINES[2:6], f"bytes 2-5/{len(LINES)}", id="a part"),
            pytest.param("bytes=-4", 206, LINES[-4:], None, id="the end"),
            pytest.param("bytes=7-", 206, LINES[7:], None, id="the rest"),
            pytest.param("lines=2-5", 416, None, None, id="no bytes"),
            pytest.param("bytes=9999-", 416, None, None, id="behind the end"),
            pytest.param("bytes=0-1,3-4", 416, None, None, id="two of them"),
            pytest.param(f"bytes=0-{'9' * 5000}", 416, None, None, id="thousands of digits"),
        ],
    )
    def test_a_range_is_answered(
        self, client: Any, asked: str, status: int, data: bytes | None, told: str | None
    ) -> None:
        """A download that broke off can go on (RFC 9110, section 14)."""
        answer = stored(client)
        response = content(client, answer["id"], Range=asked)

        assert response.status_code == status
        if data is None:
            refused = error(response)
            assert (refused["code"], refused["param"]) == ("invalid_request", "Range")
            assert f'Range is "{asked[:60]}' in refused["message"]
            assert response.headers["Content-Range"] == f"bytes */{len(LINES)}"
        else:
            assert response.data == data
            assert told is None or response.headers["Content-Range"] == told

    def test_what_the_client_has_is_not_sent_again(self, client: Any) -> None:
        """304 by the hash of the content."""
        file_id = stored(client)["id"]
        tag = content(client, file_id).headers["ETag"]
        response = content(client, file_id, **{"If-None-Match": tag})

        assert (response.status_code, response.data) == (304, b"")

    def test_a_file_that_is_another_one_is_refused_in_our_own_form(self, client: Any) -> None:
        """412, whose body is an error and not the file."""
        file_id = stored(client)["id"]
        response = content(client, file_id, **{"If-Match": '"another"'})

        assert (response.status_code, response.content_type) == (412, "application/json")
        assert (error(response)["code"], error(response)["param"]) == (
            "invalid_request",
            "If-Match",
        )

    def test_a_list_has_the_newest_first_and_says_where_the_next_begins(self, client: Any) -> None:
        """As OpenAI's clients leaf through it."""
        ids = sorted(stored(client)["id"] for _ in range(3))
        first = page(client, limit=2)
        second = page(client, limit=2, after=first["last_id"])

        assert [item["id"] for item in first["data"] + second["data"]] == ids[::-1]
        assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[2], ids[1], True)
        assert (second["first_id"], second["last_id"], second["has_more"]) == (*[ids[0]] * 2, False)
        assert [item["id"] for item in page(client, order="asc")["data"]] == ids

    def test_an_empty_list_has_no_ends(self, client: Any) -> None:
        """Nothing was uploaded, or nothing of that purpose."""
        empty: JSON = {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }
        before = page(client)
        stored(client)

        assert before == page(client, purpose="batch_output") == empty
        assert len(page(client, purpose="batch", order="desc")["data"]) == 1

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            pytest.param("limit", "0", "from 1 to 10000", id="limit zero"),
            pytest.param("limit", "10001", "from 1 to 10000", id="limit too large"),
            pytest.param("limit", "many", "from 1 to 10000", id="limit no number"),
            pytest.param("order", "up", 'must be "asc" or "desc"', id="order"),
            pytest.param("purpose", "vision", 'must be "batch" or "batch_output"', id="purpose"),
            pytest.param("after", "../x", "must be the id of a file", id="after"),
        ],
    )
    def test_a_query_that_breaks_a_rule_is_400(
        self, client: Any, name: str, value: str, words: str
    ) -> None:
        """It names the parameter."""
        response = client.get("/v1/files", query_string={name: value})
        found = error(response)

        assert (response.status_code, found["param"]) == (400, name)
        assert words in found["message"]


class TestDeleting:
    """DELETE /v1/files/<id>, and what is not there."""

    def test_a_deleted_file_is_gone(self, client: Any, folder: Path) -> None:
        """From the disk as well."""
        answer = stored(client)
        response = client.delete(f"/v1/files/{answer['id']}")

        assert response.status_code == 200
        DeletedFile.model_validate_json(response.data)
        assert response.json == {"id": answer["id"], "object": "file", "deleted": True}
        assert files_in(folder) == []
        assert client.get(f"/v1/files/{answer['id']}").status_code == 404

    @pytest.mark.parametrize(
        "file_id",
        [
            pytest.param(new_id("file-"), id="unknown"),
            pytest.param("file-1", id="no id"),
            pytest.param("%2e%2e%2fsecret", id="a path"),
            pytest.param("..", id="up"),
        ],
    )
    def test_what_is_not_there_is_404(self, client: Any, folder: Path, file_id: str) -> None:
        """For every call, and nothing else is touched."""
        folder.mkdir()
        (folder.parent / "secret.json").write_text("{}")
        calls: list[tuple[Callable[..., Any], str]] = [
            (client.get, file_id),
            (client.get, f"{file_id}/content"),
            (client.delete, file_id),
        ]
        responses = [method(f"/v1/files/{path}") for method, path in calls]
        codes = {error(response)["code"] for response in responses}

        assert [response.status_code for response in responses] == [404] * 3
        assert codes <= {"file_not_found", "not_found"}
        assert (folder.parent / "secret.json").exists()


@pytest.mark.parametrize(
    ("lines", "limit", "retention_s"),
    [
        pytest.param("", 200 * MEBIBYTE, 2_592_000, id="defaults"),
        pytest.param('file_limit = "1KiB"\nfile_retention_s = 0', 1024, 0, id="for ever"),
        pytest.param("file_limit = 1\nfile_retention_s = 60", 1, 60, id="small"),
    ],
)
def test_limit_and_retention_are_configured(
    tmp_path: Path, lines: str, limit: int, retention_s: int
) -> None:
    """A size with or without a unit; seconds, of which 0 is for ever."""
    file = tmp_path / "lakehouse.toml"
    file.write_text(f"[chatd]\n{lines}\n")
    config = load_config(file, {})

    assert (config.file_limit, config.file_retention_s) == (limit, retention_s)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param('file_limit = "200MB"', "is not a size in bytes", id="unit"),
        pytest.param("file_retention_s = -1", "not a number of seconds, 0 to", id="negative"),
    ],
)
def test_what_they_cannot_be_is_refused(tmp_path: Path, line: str, words: str) -> None:
    """When the configuration is read."""
    file = tmp_path / "lakehouse.toml"
    file.write_text(f"[chatd]\n{line}\n")
    with pytest.raises(ConfigError, match=words):
        load_config(file, {})
