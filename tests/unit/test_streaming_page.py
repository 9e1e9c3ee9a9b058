"""docs/streaming.md says what the code does: its times, commands and clients."""

from __future__ import annotations

import re

import pytest

from api import streaming
from bench.clients.environments import CLIENTS
from tests.pages import ROOT, page, table
from workers import outbox

PAGE = page("docs/streaming.md")
#: Its text on one line.
TEXT = " ".join(PAGE.split())


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ("for five seconds at most", streaming._HELD_S == 5),
        ("a comment every ten seconds", streaming._QUIET_S == 10),
        ("one round trip to Redis each five milliseconds", outbox._TICK_S == 0.005),
    ],
    ids=["head", "comments", "sender"],
)
def test_the_times_are_those_of_the_code(told, known):
    """Whoever sets up a proxy goes by them."""
    assert told in TEXT
    assert known


def test_what_is_kept_is_what_the_script_keeps():
    """How many pieces, and for how long."""
    script = (ROOT / "chat" / "lua" / "deliver.lua").read_text("utf-8")
    (most,), (kept_s,) = (
        re.findall(rf"^local {name} = (\d+)", script, re.MULTILINE) for name in ("MOST", "KEPT_S")
    )

    assert f"the newest {int(most):,} of an answer" in TEXT
    assert (int(kept_s), "kept for five minutes" in TEXT) == (300, True)


def test_every_client_of_the_bench_is_told_with_its_version():
    """Those that are installed for it, in the version that is."""
    rows = [row[0] for row in table(PAGE, "Client", "Beside the base URL and any key it needs")]
    pinned = [client.packages[0] for client in CLIENTS.values() if client.packages]

    assert len(rows) == len(CLIENTS)
    for name, version in (package.split("==") for package in pinned):
        (row,) = (row for row in rows if f"`{name}`" in row)
        assert version.startswith(re.findall(r"[\d.]+", row)[0])


def test_every_command_exists():
    """Modules, and the tables of one of them."""
    for module in re.findall(r"python -m ([a-z_.]+)", PAGE):
        assert (ROOT / module.replace(".", "/") / "__main__.py").exists()
    tables = set(re.findall(r"bench\.streams ([a-z-]+)", PAGE))
    source = (ROOT / "bench" / "streams" / "__main__.py").read_text("utf-8")

    assert tables == set(re.findall(r'command\("([a-z-]+)"\)', source))
