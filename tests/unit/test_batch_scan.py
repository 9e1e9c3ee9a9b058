"""Whole files are checked before anything is queued: ``chat.batches.scan`` and ``lines``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from chat.batches.batch import Fault
from chat.batches.lines import custom_id_in, job_id_of, parse_line
from chat.batches.scan import MOST_FAULTS, Index, scan
from chat.errors import InvalidRequest
from tests.batches import CREATED_MS, lines_of, request_line
from tests.fakes import registered_names

LONGEST = 2000
Checked = tuple[Index, list[Fault]]


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Checked]:
    def run(text: str | bytes, most_lines: int = 1000) -> Checked:
        path = tmp_path / "input.jsonl"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        index, faults = Index(), list[Fault]()
        for _ in scan(
            path,
            registered_names("ollama", "kimi"),
            index=index,
            faults=faults,
            most_lines=most_lines,
            longest_line=LONGEST,
            max_timeout_s=86400,
        ):
            pass
        return index, faults

    return run


def test_a_good_file_has_an_index(check, tmp_path):
    """From which each line is found again."""
    text = lines_of(2) + "\n" + request_line("k", "kimi/k2") + "\n" + request_line("last")
    index, faults = check(text)
    raw = (tmp_path / "input.jsonl").read_bytes()

    assert faults == []
    assert list(index.numbers) == [1, 2, 4, 5]
    assert index.providers == ["ollama", "kimi"]
    assert (index.places("ollama"), index.places("kimi")) == ([0, 1, 3], [2])
    ids = [custom_id_in(raw[offset:].split(b"\n")[0]) for offset in index.offsets]
    assert ids == ["r1", "r2", "k", "last"]


def test_an_index_can_be_kept(check, tmp_path):
    """Lines of a batch that is taken up again are not checked a second time."""
    index, _ = check(lines_of(3))
    index.save(tmp_path / "index.json")

    assert Index.load(tmp_path / "index.json") == index


BAD_LINES = [
    pytest.param("{no json}", "invalid_request", None, "not JSON", id="no-json"),
    pytest.param("[1]", "invalid_request", None, "must be a JSON object", id="no-object"),
    pytest.param(b"\xff{}", "invalid_request", None, "not UTF-8", id="no-utf8"),
    pytest.param(request_line("r1"), "duplicate_custom_id", "custom_id", "r1", id="twice"),
    pytest.param(request_line(""), "invalid_request", "custom_id", "1 to 512", id="no-id"),
    pytest.param(request_line("a", custom_id=7), "invalid_request", "custom_id", "7", id="id-7"),
    pytest.param(request_line("a", method="GET"), "invalid_request", "method", "GET", id="get"),
    pytest.param(
        request_line("a", url="/v1/embeddings"), "invalid_request", "url", "embeddings", id="url"
    ),
    pytest.param(request_line("a", body="x"), "invalid_request", "body", "JSON object", id="body"),
    pytest.param(request_line("a", extra=1), "invalid_request", "extra", "custom_id", id="extra"),
    pytest.param(
        request_line("a", body={"model": "m", "messages": []}),
        "invalid_request",
        "body.messages",
        "non-empty",
        id="no-messages",
    ),
    pytest.param(
        request_line("a", "openrouter/x/y"),
        "provider_not_registered",
        "body.model",
        "openrouter",
        id="key",
    ),
    pytest.param("x" * (LONGEST + 1), "too_large", None, "body_limit", id="long"),
]


@pytest.mark.parametrize(("bad", "code", "param", "words"), BAD_LINES)
def test_a_bad_line_is_told_by_its_number(check, bad, code, param, words):
    """And what follows it is checked all the same."""
    bad = bad if isinstance(bad, bytes) else bad.encode()
    _, faults = check(lines_of(6).encode() + bad + b"\n" + request_line("z").encode() + b"\nbad")

    assert [fault.line for fault in faults] == [7, 9]
    assert (faults[0].code, faults[0].param) == (code, param)
    assert words in faults[0].message


@pytest.mark.parametrize("text", ["", "\n \n"], ids=["nothing", "empty lines"])
def test_a_file_without_requests_is_refused(check, text):
    """It would be over before it began."""
    _, (fault,) = check(text)

    assert (fault.code, fault.line) == ("empty_file", None)


def test_a_file_with_too_many_requests_is_refused(check):
    """With the limit and its name."""
    assert check(lines_of(5), most_lines=5)[1] == []
    _, (fault,) = check(lines_of(6), most_lines=5)

    assert fault.code == "too_many_lines"
    assert "batch_max_lines" in fault.message


def test_a_file_full_of_faults_is_not_read_to_its_end(check):
    """The first hundred tell enough."""
    _, faults = check("x\n" * 1000)

    assert [fault.line for fault in faults] == list(range(1, MOST_FAULTS + 1))


def test_a_batch_does_not_run_in_the_interactive_lane():
    """Nobody waits for it, and people would."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "lane": "interactive"}
    line = request_line("a", url="/v1/chat", body=body).encode()
    with pytest.raises(InvalidRequest, match="batch lane") as error:
        parse_line(1, line, max_timeout_s=60)

    assert error.value.param == "body.lane"


@pytest.mark.parametrize("url", ["/v1/chat", "/v1/chat/completions"])
def test_a_batch_has_no_streams(url):
    """Its lines are answered whole; false is the same as nothing."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with pytest.raises(InvalidRequest, match="whole answers") as error:
        parse_line(1, request_line("a", url=url, body=body).encode(), max_timeout_s=60)

    assert error.value.param == "body.stream"
    whole = request_line("a", url=url, body={**body, "stream": False}).encode()
    assert not parse_line(1, whole, max_timeout_s=60).call.request.stream


def test_the_job_of_a_line_is_always_the_same():
    """And another one for another line or batch; it begins with the batch's time."""
    ids = [
        job_id_of(batch, CREATED_MS, number)
        for batch, number in (("batch_a", 1), ("batch_a", 1), ("batch_a", 2), ("batch_b", 1))
    ]

    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert {job_id[: len("job_") + 9] for job_id in ids} == {ids[0][:13]}
    assert len(ids[0]) == 30


def test_each_url_has_its_own_body():
    """What one takes, the other may not know."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "think": True}
    chat = parse_line(1, request_line("a", url="/v1/chat", body=body).encode(), max_timeout_s=60)

    assert chat.call.request.think is True
    assert json.loads(request_line("a"))["method"] == "POST"
