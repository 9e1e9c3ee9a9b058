"""What stands before a script when Redis gets it."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from chat.scripts import load_script

LUA = files("chat") / "lua"
SHARED = ("prelude", "rates", "budget", "recall", "standing")
NAMES = sorted(
    file.name.removesuffix(".lua")
    for file in LUA.iterdir()
    if file.name.removesuffix(".lua") not in SHARED
)
DEFINITION = re.compile(r"^local (?:function )?([\w, ]+?)(?: =|\(|$)", re.MULTILINE)
DEFINED = {
    name
    for part in SHARED
    for names in DEFINITION.findall((LUA / f"{part}.lua").read_text())
    for name in names.split(", ")
}


def words(text):
    """Every name of a script in its order, with where it stands; comments name nothing."""
    return [(found[0], found.start()) for found in re.finditer(r"--.*|\w+", text)]


@pytest.mark.parametrize("name", NAMES)
def test_a_script_has_what_it_names_and_what_that_names(name):
    """Each shared name is defined where it first stands, as in the files."""
    text = load_script(name)
    first = dict(reversed(words(text)))
    used = DEFINED & first.keys()

    assert used
    assert [
        one for one in used if not re.search(r"local (function )?[\w, ]*$", text[: first[one]])
    ] == []


@pytest.mark.parametrize(("name", "without"), [("room", "end_job"), ("admit", "rates_refused")])
def test_a_script_has_nothing_else(name, without):
    """Redis would make it at each call."""
    assert without in DEFINED
    assert without not in load_script(name)


def test_in_place_of_a_constant_stands_its_number():
    """Redis would hand it to each function that uses it, at each call."""
    text = load_script("start")

    assert "local TURN_MS = 1000 " in (LUA / "budget.lua").read_text()
    assert "math.abs(now - b.turn) < (1000) then" in text
    assert not re.search(r"TURN_MS|RATES_LEAST", text)
