"""Redis' protocol, as the proxy that strikes at the n-th command reads it."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.redis_proxy import CommandNames
from bench.resp import CommandReader, ReplyReader, is_message
from chat.scripts import load_script

WORDS = st.lists(st.binary(max_size=20), min_size=1, max_size=5)


def command(*words: bytes) -> bytes:
    """A command as a client sends it."""
    sizes = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n%b" % (len(words), sizes)


def sha1(script: str) -> bytes:
    """What Redis calls a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest().encode()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data cut at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(places)]


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(st.integers(0, 500), max_size=6))
def test_commands_are_whole_whatever_pieces_they_come_in(sent, cuts):
    """Any bytes may be a word, line ends among them; several commands may come at once."""
    reader = CommandReader()
    data = b"".join(command(*words) for words in sent)
    found = [one for piece in pieces(data, cuts) for one in reader.feed(piece)]

    assert [one.words for one in found] == [tuple(words) for words in sent]
    assert b"".join(one.raw for one in found) == data


def test_a_command_that_is_not_whole_is_not_told():
    """Not before its very last byte."""
    reader = CommandReader()
    data = command(b"SET", b"key", b"value")

    assert reader.feed(data[:-1]) == []
    assert [one.words[0] for one in reader.feed(data[-1:])] == [b"SET"]


@pytest.mark.parametrize("data", [b"PING\r\n", b"*1\r\n:4\r\nPING\r\n"])
def test_what_is_no_array_of_strings_is_an_error(data):
    """The clients in use send nothing else."""
    with pytest.raises(ValueError, match="not a"):
        CommandReader().feed(data)


REPLIES = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":42\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$4\r\na\r\nb\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
    b"%1\r\n+name\r\n*2\r\n:1\r\n$1\r\nx\r\n",
    b"~1\r\n:1\r\n",
    b"_\r\n",
    b",1.5\r\n",
    b"#t\r\n",
    b"=5\r\ntxt:a\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
]


@given(
    st.lists(st.sampled_from(REPLIES), min_size=1, max_size=6),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_replies_are_whole_whatever_pieces_they_come_in(sent, cuts):
    """Those of RESP 2 and of RESP 3, nested ones too."""
    reader = ReplyReader()

    assert [reply for piece in pieces(b"".join(sent), cuts) for reply in reader.feed(piece)] == sent


def test_a_reply_of_an_unknown_kind_is_an_error():
    """What cannot be told apart must not be handed on as if it were."""
    with pytest.raises(ValueError, match="not a reply"):
        ReplyReader().feed(b"?\r\n")


def test_messages_answer_no_command():
    """What was published is told from what was asked for, also on one connection."""
    published = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"
    subscribed = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"

    assert [is_message(reply) for reply in (published, b">" + published[1:])] == [True, True]
    assert [is_message(reply) for reply in (subscribed, b">" + subscribed[1:])] == [False, False]


def test_scripts_are_called_by_their_names_and_modes():
    """Other commands by their own, in capitals."""
    names = CommandNames()
    start, watch = (sha1(load_script(name)) for name in ("start", "watch"))

    assert names((b"EVALSHA", start, b"0", b"job", b"worker", b"token", b"")) == "start"
    assert names((b"EVALSHA", watch, b"0", b"job", b"channel", b"add")) == "watch add"
    assert names((b"evalsha", b"0" * 40, b"0")) == "EVALSHA 00000000"
    assert names((b"get", b"key")) == "GET"
    assert names((b"CLIENT", b"unblock", b"7")) == "CLIENT UNBLOCK"
