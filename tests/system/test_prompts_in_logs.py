"""No log has a prompt or an answer: there is no option that would put one there.

Every process logs in full. The text is asked in every way there is, of models that answer it,
repeat it, refuse it in its own words or do not exist, and in requests that are wrong.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from bench.upstream import Upstream
from tests.leaks import files_below, leaks
from tests.servers import ROOT, python
from tests.stack import Stack

MARK = "Zyxomma petiolatum is what nobody may read of"
MODELS = ("echo", "gossip", "parrot", "broken", "unknown/model")


def repeated(_path, body):
    """What a model makes of the text: an answer, an error that quotes it, an answer of no use."""
    said = body["messages"][-1]["content"]
    good = {"message": {"role": "assistant", "content": said}, "done": True}
    match body["model"]:
        case "echo":
            return 200, {**good, "message": {"content": "fine"}}
        case "gossip":
            return 200, good
        case "parrot":
            return 400, {"error": f"I cannot answer {said}"}
        case "broken":
            return 200, {"message": said, "error": {"message": said}}
    return 404, {"error": f"{said}: no such model"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    upstream = Upstream(reply=repeated).start()
    stack = Stack(
        tmp_path_factory.mktemp("prompts-in-logs"),
        {"ollama": upstream.url},
        settings='log_level = "debug"\nmax_attempts = 1',
    )
    yield stack.start()
    stack.stop()
    upstream.stop()


def chatd(stack, *arguments):
    """A command, run to its end; what it wrote."""
    run = subprocess.run(
        python("-m", "cli", *arguments),
        env={**os.environ, **stack.environ, "no_proxy": "*"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return run.stdout + run.stderr


def post(stack, path, body, **headers):
    """A request that may be wrong; what came back."""
    data = body if isinstance(body, str) else json.dumps(body)
    return stack.http.post(stack.url + path, data=data.encode(), headers=headers, timeout=100).text


def waiting(stack):
    """A caller who waits, in chatd's words and in OpenAI's."""
    messages = [{"role": "system", "content": MARK}, {"role": "user", "content": MARK}]
    return [
        post(stack, path, {"model": model, "messages": messages})
        for model in MODELS
        for path in ("/v1/chat", "/v1/chat/completions")
    ]


def later(stack):
    """A job that is fetched, and a call whose caller lets go of it."""
    records = [stack.ended(stack.submit(MARK, model)) for model in MODELS]
    body = {"model": "gossip", "messages": [{"role": "user", "content": MARK}]}
    return [json.dumps(records), post(stack, "/v1/chat", body, Prefer="respond-async")]


def wrong(stack):
    """Requests that are refused, with the text where it does not belong."""
    chat = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    return [
        post(stack, "/v1/chat", {**chat, "messages": [{"role": MARK, "content": MARK}]}),
        post(stack, "/v1/chat", {**chat, MARK: MARK}),
        post(stack, "/v1/chat", {**chat, "temperature": MARK}),
        post(stack, "/v1/chat", f'{{"model": "echo", "messages": [{{"content": "{MARK}'),
        post(stack, "/v1/chat", {**chat, "metadata": {"note": MARK * 99}}),
        post(stack, "/v1/chat/completions", {**chat, "messages": MARK}),
        post(stack, "/v1/evaluations", {"suite": MARK}),
        post(stack, "/v1/batches", {"input_file_id": MARK}),
    ]


def batch(stack):
    """The lines of a batch, good and bad."""
    lines = [
        {
            "custom_id": model,
            "method": "POST",
            "url": "/v1/chat",
            "body": {"model": model, "messages": [{"role": "user", "content": MARK}]},
        }
        for model in MODELS
    ]
    good, bad = stack.folder / "good.jsonl", stack.folder / "bad.jsonl"
    good.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    bad.write_text(json.dumps({**lines[0], "method": MARK}) + "\n" + MARK, "utf-8")
    endpoint = ("--endpoint", "/v1/chat")
    return [chatd(stack, "batch", "submit", str(path), *endpoint) for path in (good, bad)]


def evaluation(stack):
    """The samples of an evaluation, its rubric, and a judge that repeats all of it."""
    (stack.folder / "samples.jsonl").write_text(
        json.dumps({"id": "1", "prompt": MARK, "expected": MARK}) + "\n", "utf-8"
    )
    suite = stack.folder / "suite.toml"
    suite.write_text(
        f'name = "marked"\ndataset = "samples.jsonl"\nmodels = {json.dumps(MODELS)}\n'
        '[[scorers]]\ntype = "contains"\n'
        f'[[scorers]]\ntype = "judge"\nmodel = "gossip"\nrubric = "{MARK}"\n',
        "utf-8",
    )
    return [chatd(stack, "eval", "run", str(suite), "--report", str(stack.folder / "report.html"))]


@pytest.mark.parametrize("ask", [waiting, later, wrong, batch, evaluation])
def test_no_log_has_the_text(stack, ask):
    """It comes back to whoever asked, where it does; no process writes it down."""
    answers = "".join(ask(stack))
    logs = [place for place in files_below(stack.folder) if place[0].endswith(".log")]

    assert {name for name, content in logs if content} >= {
        "file api.log",
        "file keeper.log",
        "file worker-ollama.log",
        "file redis/redis.log",
    }
    assert answers
    assert leaks({"the text": MARK}, logs) == []


def test_a_text_that_was_logged_would_be_found(stack):
    """Were it cut short or escaped as well."""
    with (stack.folder / "api.log").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"message": f"asked: {MARK[5:30]}…"}) + "\n")
    found = leaks({"the text": MARK}, files_below(stack.folder))

    assert any(leak.startswith("the text in file api.log") for leak in found)
    assert any("file data/files" in leak for leak in found)
