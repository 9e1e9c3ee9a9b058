"""POST /v1/files: what is taken, what is refused, and that nothing is held or left behind."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from gunicorn.http.errors import InvalidChunkSize, NoMoreData

from api.contract import FileForm
from api.openapi import document
from chat.files import FileStore
from chat.jobs import new_id
from chat.settings import ChatdConfig
from tests.fakes import gateway
from tests.forms import (
    BOUNDARY,
    FILE,
    LINES,
    PURPOSE,
    WHOLE,
    Made,
    error,
    files_in,
    form,
    post,
    send,
    stored,
)

MEBIBYTE = 2**20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files are."""
    return tmp_path / "files"


@pytest.fixture
def client(tmp_path: Path) -> Any:
    """A client of a front end with the defaults, and files in a folder of its own."""
    return gateway(ChatdConfig(data_dir=tmp_path)).client


class TestUploading:
    """POST /v1/files."""

    def test_the_answer_is_the_file(self, client: Any, folder: Path) -> None:
        """As OpenAI shows it; the content is stored as it came."""
        answer = stored(client)

        assert list(answer) == [
            "id",
            "object",
            "bytes",
            "created_at",
            "expires_at",
            "filename",
            "purpose",
            "status",
        ]
        assert (answer["bytes"], answer["filename"]) == (len(LINES), "in.jsonl")
        assert (answer["object"], answer["purpose"], answer["status"]) == (
            "file",
            "batch",
            "processed",
        )
        assert FileStore(folder).path(answer["id"]).read_bytes() == LINES

    def test_the_parts_may_come_in_any_order(self, client: Any) -> None:
        """curl sends them as they are given, OpenAI's clients the file last."""
        assert stored(client, form(FILE, PURPOSE))["bytes"] == len(LINES)

    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(b"\r\n", id="a line end"),
            pytest.param(b"x--" + BOUNDARY.encode(), id="the boundary within a line"),
            pytest.param(b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n--", id="almost a boundary"),
            pytest.param(bytes(range(256)) * 1000, id="any bytes"),
            pytest.param(b"x" * 200_000, id="no line end in sight"),
            pytest.param(b"\n" * 200_000, id="nothing but line ends"),
            pytest.param(b"\r" * 65_536 + b"\n" * 65_536, id="around a piece"),
        ],
    )
    def test_the_content_arrives_as_it_was_sent(
        self, client: Any, folder: Path, sent: bytes
    ) -> None:
        """Byte by byte, wherever the pieces begin."""
        answer = stored(client, form(PURPOSE, ("file", ("f", sent))))

        assert FileStore(folder).path(answer["id"]).read_bytes() == sent
        assert answer["bytes"] == len(sent)

    @pytest.mark.parametrize(
        ("retention_s", "expires", "lifetime_s"),
        [
            pytest.param(86400.0, None, 86400, id="as configured"),
            pytest.param(0.0, None, None, id="configured to be for ever"),
            pytest.param(86400.0, "3600", 3600, id="as the upload says"),
            pytest.param(0.0, "2592000", 2_592_000, id="the longest"),
        ],
    )
    def test_a_file_expires_when_the_upload_says_else_as_configured(
        self, tmp_path: Path, retention_s: float, expires: str | None, lifetime_s: int | None
    ) -> None:
        """``expires_after`` in brackets, as OpenAI's clients write nested fields."""
        config = ChatdConfig(data_dir=tmp_path, file_retention_s=retention_s)
        parts = [PURPOSE, FILE]
        if expires is not None:
            parts += [
                ("expires_after[anchor]", "created_at"),
                ("expires_after[seconds]", expires),
            ]
        answer = stored(gateway(config).client, form(*parts))
        lasts = None if lifetime_s is None else answer["created_at"] + lifetime_s

        assert answer["expires_at"] == lasts

    @pytest.mark.parametrize(
        ("header", "name"),
        [
            pytest.param('filename="größer.jsonl"', "größer.jsonl", id="UTF-8"),
            pytest.param("filename*=UTF-8''gr%C3%B6%C3%9Fer", "größer", id="RFC 5987"),
            pytest.param(r'filename="a\"b"', 'a"b', id="a quote"),
            pytest.param('filename="../../etc/passwd"', "../../etc/passwd", id="a path"),
            pytest.param("filename=plain", "plain", id="without quotes"),
            pytest.param(f'filename="{"x" * 255}"', "x" * 255, id="the longest"),
        ],
    )
    def test_the_name_is_kept_and_means_nothing(
        self, client: Any, folder: Path, header: str, name: str
    ) -> None:
        """It is shown again, and no path is made of it."""
        body = form(PURPOSE, FILE).replace(b'filename="in.jsonl"', header.encode())
        answer = stored(client, body)
        paths = {path.name for path in files_in(folder)}

        assert answer["filename"] == name
        assert paths == {f"{answer['id']}.json", f"{answer['id']}.jsonl"}

    def test_a_file_of_exactly_the_limit_is_taken(self, tmp_path: Path) -> None:
        """The limit is that of the file, not of the form around it."""
        config = ChatdConfig(data_dir=tmp_path, file_limit=len(LINES), body_limit=1)

        assert stored(gateway(config).client)["bytes"] == len(LINES)


REFUSED = [
    pytest.param(form(PURPOSE), "file", "file is missing", id="no file"),
    pytest.param(form(FILE), "purpose", 'purpose is missing; it must be "batch"', id="no purpose"),
    pytest.param(form(), "file", "file is missing", id="no part at all"),
    pytest.param(
        form(PURPOSE, FILE, FILE), "file", "file is in the form twice; send it once", id="two files"
    ),
    pytest.param(
        form(PURPOSE, PURPOSE, FILE), "purpose", "is in the form twice", id="two purposes"
    ),
    pytest.param(
        form(("purpose", "fine-tune"), FILE),
        "purpose",
        'purpose is "fine-tune", but must be "batch"',
        id="another purpose",
    ),
    pytest.param(
        form(PURPOSE, ("file", LINES)), "file", "give the part a filename", id="a text as the file"
    ),
    pytest.param(
        form(PURPOSE, ("file", ("", LINES))), "file", 'file has the name ""', id="an empty name"
    ),
    pytest.param(
        form(PURPOSE, ("file", ("x" * 256, LINES))), "file", "1 to 255 printable", id="a long name"
    ),
    pytest.param(
        form(PURPOSE, ("file", ("a\x1bb", LINES))), "file", r"a\x1bb", id="an unprintable name"
    ),
    pytest.param(
        form(PURPOSE, ("file", ("in.jsonl", b""))), "file", "file is empty", id="an empty file"
    ),
    pytest.param(
        form(PURPOSE, ("model", "x"), FILE),
        "model",
        '"model" is not a field of this form; those are file, purpose, expires_after[anchor]',
        id="an unknown field",
    ),
    pytest.param(
        form(PURPOSE, FILE, ("files", ("a", LINES))), "files", "not a field", id="an unknown file"
    ),
    pytest.param(
        form(PURPOSE, FILE).replace(b' name="file";', b""), None, '"" is not a field', id="no name"
    ),
    pytest.param(
        form(("purpose", "x" * 1001), FILE), "purpose", "longer than 1000 bytes", id="a long text"
    ),
    pytest.param(
        form(("purpose", b"\xff"), FILE), "purpose", "purpose is not UTF-8", id="not UTF-8"
    ),
    pytest.param(
        form(PURPOSE, FILE, ("expires_after[anchor]", "created_at")),
        "expires_after[seconds]",
        "must be a whole number from 3600 to 2592000",
        id="an anchor alone",
    ),
    pytest.param(
        form(PURPOSE, FILE, ("expires_after[seconds]", "3600")),
        "expires_after[anchor]",
        'must be "created_at"',
        id="seconds alone",
    ),
    pytest.param(
        form(PURPOSE, ("expires_after[anchor]", "now"), FILE),
        "expires_after[anchor]",
        'is "now", but must be "created_at"',
        id="another anchor",
    ),
    *(
        pytest.param(
            form(PURPOSE, ("expires_after[seconds]", seconds), FILE),
            "expires_after[seconds]",
            "must be a whole number from 3600 to 2592000",
            id=f"{seconds or 'no'} seconds",
        )
        for seconds in ("3599", "2592001", "-3600", "3600.0", "1e4", "", "٣٦٠٠", "9" * 40)
    ),
]


class TestRefusedUploads:
    """What is wrong is told, and nothing is stored."""

    @pytest.mark.parametrize(("body", "param", "words"), REFUSED)
    def test_a_form_that_breaks_a_rule_is_400(
        self, client: Any, folder: Path, body: bytes, param: str | None, words: str
    ) -> None:
        """The field, its rule, the way out."""
        response = post(client, body)
        found = error(response)

        assert (response.status_code, found["code"]) == (400, "invalid_request")
        assert words in found["message"]
        assert found["param"] == param
        assert files_in(folder) == []

    @pytest.mark.parametrize(
        ("content_type", "words"),
        [
            pytest.param("", "must be multipart/form-data", id="none"),
            pytest.param("application/json", "must be multipart/form-data", id="JSON"),
            pytest.param("multipart/mixed; boundary=b", "must be multipart/form-data", id="mixed"),
            pytest.param("multipart/form-data", "leave Content-Type to your", id="no boundary"),
            pytest.param("multipart/form-data; boundary=", "must name one", id="an empty one"),
            pytest.param("multipart/form-data; boundary=é", "in ASCII", id="not ASCII"),
        ],
    )
    def test_a_body_that_is_no_form_is_400(
        self, client: Any, content_type: str, words: str
    ) -> None:
        """The message says how forms are sent."""
        response = post(client, content_type=content_type)
        found = error(response)

        assert (response.status_code, found["param"]) == (400, "Content-Type")
        assert words in found["message"]

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"{}", id="JSON"),
            pytest.param(WHOLE[: WHOLE.index(LINES)], id="cut before the content"),
            pytest.param(WHOLE[: WHOLE.index(LINES) + 5], id="cut in the content"),
            pytest.param(form(PURPOSE, FILE, end=""), id="cut before the end"),
            pytest.param(WHOLE.replace(BOUNDARY.encode(), b"other"), id="another boundary"),
            pytest.param(WHOLE.replace(b"Content-Disposition", b"X"), id="parts without a name"),
            pytest.param(WHOLE.replace(b"in.jsonl", b"\xff"), id="a name that is not UTF-8"),
        ],
    )
    def test_a_form_that_cannot_be_read_is_400(
        self, client: Any, folder: Path, body: bytes
    ) -> None:
        """And leaves nothing."""
        response = post(client, body)

        assert response.status_code == 400
        assert "the body cannot be read to its end" in error(response)["message"]
        assert files_in(folder) == []

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"x" * 200_000 + WHOLE, id="before the first part"),
            pytest.param(WHOLE + b"x" * 200_000, id="behind the last"),
            pytest.param(
                WHOLE.replace(b'; filename="in', b'; x="' + b"x" * 200_000 + b'"; filename="in'),
                id="in the headers of a part",
            ),
        ],
    )
    def test_rubbish_around_the_parts_is_not_held(
        self, client: Any, folder: Path, body: bytes
    ) -> None:
        """It would have to be kept in memory."""
        response = post(client, body)

        assert response.status_code == 400
        assert "the headers of a part or its end belong" in error(response)["message"]
        assert files_in(folder) == []

    def test_a_body_that_breaks_off_is_400(self, client: Any, folder: Path) -> None:
        """Fewer bytes came than Content-Length says."""
        response = send(client, io.BytesIO(WHOLE[:-30]), len(WHOLE))

        assert response.status_code == 400
        assert "ends before its last boundary" in error(response)["message"]
        assert files_in(folder) == []

    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            pytest.param(
                InvalidChunkSize(b"x"), "chunks are malformed: InvalidChunkSize", id="bad"
            ),
            pytest.param(
                NoMoreData(b""), "(it broke off, or nothing of it came for 30 s)", id="broken off"
            ),
            pytest.param(
                ConnectionResetError(), "(it broke off, or nothing of it came for 30 s)", id="reset"
            ),
        ],
    )
    def test_chunks_that_cannot_be_read_are_400(
        self, client: Any, folder: Path, fault: Exception, words: str
    ) -> None:
        """gunicorn finds them while the body is read."""

        class Chunks:
            def __init__(self) -> None:
                self.first = WHOLE[:-30]

            def read(self, _: int) -> bytes:
                if not self.first:
                    raise fault
                first, self.first = self.first, b""
                return first

        response = send(client, Chunks(), None)

        assert response.status_code == 400
        assert words in error(response)["message"]
        assert files_in(folder) == []

    def test_chunks_are_as_good_as_a_length(self, client: Any) -> None:
        """curl sends them when it reads from a pipe."""
        response = send(client, io.BytesIO(WHOLE), None)

        assert response.status_code == 200
        assert response.json["bytes"] == len(LINES)

    @pytest.mark.parametrize("told", [False, True], ids=["in chunks", "with its length"])
    @pytest.mark.parametrize("size", [101, 200_000], ids=["one byte more", "much more"])
    def test_a_file_over_the_limit_is_413(
        self, tmp_path: Path, folder: Path, size: int, *, told: bool
    ) -> None:
        """The message names limit and key; ``body_limit`` is not asked."""
        client = gateway(ChatdConfig(data_dir=tmp_path, file_limit=100)).client
        body = form(PURPOSE, ("file", ("in.jsonl", b"x" * size)))
        response = send(client, io.BytesIO(body), len(body) if told else None)
        found = error(response)

        assert (response.status_code, found["code"], found["param"]) == (413, "too_large", "file")
        assert "larger than 100 bytes (file_limit)" in found["message"]
        assert files_in(folder) == []

    def test_a_wrong_purpose_is_told_before_the_file_is_read(self, client: Any) -> None:
        """Nobody uploads for an hour to learn that."""
        body = io.BytesIO(form(("purpose", "x"), ("file", ("f", b"x" * MEBIBYTE))))
        response = send(client, body, None)

        assert response.status_code == 400
        assert body.tell() < MEBIBYTE / 2

    def test_a_disk_that_cannot_be_written_is_503(self, tmp_path: Path) -> None:
        """With Retry-After: it may be mended."""
        (tmp_path / "files").write_text("in the way")
        client = gateway(ChatdConfig(data_dir=tmp_path)).client
        responses = [
            post(client),
            client.get("/v1/files"),
            client.get(f"/v1/files/{new_id('file-')}"),
        ]

        assert [(r.status_code, error(r)["code"]) for r in responses] == [
            (503, "storage_unavailable")
        ] * 3
        assert {r.headers["Retry-After"] for r in responses} == {"5"}
        assert "data_dir" in error(responses[0])["message"]


def test_an_upload_is_never_held_whole(client: Any, folder: Path) -> None:
    """Of 30 MB some 64 KiB pieces are in memory at a time, and it is written once, in its place."""
    size = 30_000_000
    body = Made(size)
    stored(client)  # What is imported or cached at the first upload is not this one's.
    tracemalloc.start()
    try:
        response = send(client, body, body.length)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert response.status_code == 200
    assert response.json["bytes"] == size
    assert FileStore(folder).path(response.json["id"]).stat().st_size == size
    assert body.largest <= 64 * 2**10
    assert peak < MEBIBYTE


KEY = {"Idempotency-Key": "eval-7"}


class TestIdempotency:
    """An Idempotency-Key makes one file of any number of equal uploads."""

    def test_the_same_upload_is_the_same_file(self, client: Any, folder: Path) -> None:
        """Also in another form around it."""
        first = stored(client, headers=KEY)
        again = stored(client, form(FILE, PURPOSE), headers=KEY)
        other = stored(client, headers={"Idempotency-Key": "eval-8"})

        assert again == first
        assert other["id"] != first["id"]
        assert len(list(folder.glob("*.jsonl"))) == 2

    def test_another_upload_is_422(self, client: Any, folder: Path) -> None:
        """And leaves nothing."""
        first = stored(client, headers=KEY)
        body = form(PURPOSE, ("file", ("in.jsonl", LINES * 2)))
        response = post(client, body, headers=KEY)
        found = error(response)

        assert (response.status_code, found["code"]) == (422, "idempotency_mismatch")
        assert first["id"] in found["message"]
        assert "eval-7" not in found["message"]
        assert [path.stem for path in folder.glob("*.jsonl")] == [first["id"]]

    def test_a_bad_key_is_400(self, client: Any, folder: Path) -> None:
        """Before anything is read."""
        response = post(client, headers={"Idempotency-Key": "a b"})

        assert (response.status_code, error(response)["param"]) == (400, "Idempotency-Key")
        assert files_in(folder) == []


def test_the_document_describes_the_form_that_is_accepted() -> None:
    """Its fields are those that an unknown one is told."""
    made = document("1")
    body = made["paths"]["/v1/files"]["post"]["requestBody"]["content"]
    schema = made["components"]["schemas"]["FileForm"]

    assert body == {"multipart/form-data": {"schema": {"$ref": "#/components/schemas/FileForm"}}}
    assert list(schema["properties"]) == [
        "file",
        "purpose",
        "expires_after[anchor]",
        "expires_after[seconds]",
    ]
    assert schema["required"] == ["file", "purpose"]
    assert FileForm.model_config["extra"] == "forbid"
