"""A key reaches its own upstream and no other place, whatever goes wrong on the way.

All five providers are registered, each that takes a key with one, at an upstream that answers in
every way an upstream can and repeats the key wherever it finds room for it. Every process logs in
full. ``python -m bench.secrets`` prints what is searched here.
"""

from __future__ import annotations

import json

import pytest

from bench.secrets.cases import CASES, ROUTES
from bench.secrets.scene import ACCIDENTS, KEYS, MODES, SECRETS, Scene
from chat.errors import error_classes
from tests.leaks import files_below, leaks, redis_contents, spellings


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    scene = Scene(tmp_path_factory.mktemp("secrets"))
    try:
        scene.stack.start()
        scene.ask()
        yield scene
    finally:
        scene.stack.stop()
        scene.upstream.close()


@pytest.fixture(scope="module")
def aftermath(scene):
    """The scene once every part has failed; apart, since one fixture would take a minute or two."""
    scene.break_down()
    return scene


def test_every_upstream_gets_its_own_key_and_no_other(scene):
    """So that the rest of this file searches for what was really sent."""
    sent = {
        (request.path, request.headers.get("authorization")) for request in scene.upstream.requests
    }

    assert sent == {
        (path, f"Bearer {KEYS[path.split('/')[1]]}" if name != "ollama" else None)
        for name, (_, path) in ROUTES.items()
    }


def test_everything_has_gone_wrong_everywhere(aftermath):
    """Every kind of upstream error, at every route, in every way to ask; every error there is."""
    expected = {
        (route, name, mode): case.others.get(route, case.code)
        for route in ROUTES
        for name, case in CASES.items()
        for mode in MODES
    }
    expected |= {
        (route, name, "waiting"): code for route in ROUTES for name, code in ACCIDENTS.items()
    }

    assert {call: error["code"] for call, error in aftermath.errors.items()} == expected
    assert {cls.code for cls in error_classes()} <= aftermath.codes()


@pytest.mark.parametrize("name", ["rejected", "key refused", "failed", "page", "redirect"])
def test_what_an_upstream_repeats_is_masked(scene, name):
    """It is quoted in the message, since it may say what is wrong, but without the key."""
    for route in ROUTES:
        said = "you sent nothing" if route == "ollama" else "you sent Bearer ***"

        assert f'"{said}"' in scene.errors[route, name, "waiting"]["message"]
        assert f'"{said}"' in scene.errors[route, name, "job"]["message"]


@pytest.mark.parametrize("route", ROUTES)
def test_an_answer_that_repeats_the_key_is_an_answer(scene, route):
    """With a mask in the place of the key, also in what a tool is to be called with."""
    said = "you sent nothing" if route == "ollama" else "you sent Bearer ***"
    content, _ = scene.answers[route, "repeated"]
    _, calls = scene.answers[route, "repeated to a tool"]

    assert content == said
    # /api/generate knows no tools.
    assert [call["function"]["arguments"] for call in calls] == (
        [] if route == "ollama_cloud" else [json.dumps({said: [said]})]
    )


def test_no_secret_is_anywhere(aftermath):
    """Neither whole nor in part, neither plain nor encoded."""
    places = aftermath.places()
    found = [leak for kind in places.values() for leak in leaks(SECRETS, kind)]
    searched = {name for kind in places.values() for name, content in kind if content}

    assert found == []
    assert searched >= {
        "redis stream audit",
        "file worker-kimi.log",
        "file data/workers/kimi-1.lock",
        "file report.html",
        "answer to GET /openapi.json",
        "answer to GET /metrics",
        "output of chatd check",
    }
    assert all(places.values())


@pytest.mark.parametrize("spelling", spellings(KEYS["ollama_cloud"]))
def test_the_search_would_have_found_one(aftermath, spelling):
    """A secret put into each kind of value, a log and an answer, cut short, comes to light."""
    secret = f"planted+secret/{spelling}/0123456789abcdef"
    planted = "some text " * 20 + spellings(secret)[spelling].decode()[:-4] + " and more"
    client = aftermath.stack.redis.client
    puts = {
        "string": lambda key: client.set(key, planted),
        "hash": lambda key: client.hset(key, "field", planted),
        "list": lambda key: client.rpush(key, planted),
        "set": lambda key: client.sadd(key, planted),
        "zset": lambda key: client.zadd(key, {planted: 1}),
        "stream": lambda key: client.xadd(key, {"field": planted}),
    }
    for kind, put in puts.items():
        put(f"planted:{kind}")
    with (aftermath.stack.folder / "keeper.log").open("a", encoding="utf-8") as log:
        log.write(planted + "\n")
    wanted = {"it": secret}
    in_redis = leaks(wanted, redis_contents(aftermath.stack.redis.url))
    in_files = leaks(wanted, files_below(aftermath.stack.folder))
    client.delete(*(f"planted:{kind}" for kind in puts))

    assert {f"it in redis {kind} planted:{kind} ({spelling})" for kind in puts} <= set(in_redis)
    assert f"it in file keeper.log ({spelling})" in in_files
    assert any("appendonlydir" in leak for leak in in_files)
