"""Looking for a secret in everything that chatd writes, says or keeps.

A place is a name and the bytes that were found there. A secret is looked for in pieces, so that one
that was cut short is found as well, and in the spellings it may have got on the way.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis

__all__ = ["Place", "command_lines", "files_below", "leaks", "redis_contents", "spellings"]

Place = tuple[str, bytes]

#: So many characters of a secret in a row are no coincidence.
_PIECE = 12


def spellings(secret: str) -> dict[str, bytes]:
    """The secret as it is, as URLs and JSON have it, and as base64 at each of three offsets."""
    raw = secret.encode()
    found = {
        "plain": raw,
        "URL-quoted": quote(secret, safe="").encode(),
        "in JSON": json.dumps(secret)[1:-1].encode(),
        "hexadecimal": raw.hex().encode(),
    }
    for name, encode in (
        ("base64", base64.b64encode),
        ("base64 of URLs", base64.urlsafe_b64encode),
    ):
        for offset in range(3):
            # The characters at both ends also depend on what stands beside the secret.
            text = encode(b"\0" * offset + raw)
            found[f"{name} at {offset}"] = text[4 if offset else 0 : -4]
    return found


def leaks(secrets: Mapping[str, str], places: Iterable[Place]) -> list[str]:
    """``<secret> in <place> (<spelling>)`` for each that stands in a place or in its name."""
    wanted = [
        (name, spelling, _pieces(text))
        for name, secret in secrets.items()
        for spelling, text in spellings(secret).items()
    ]
    return [
        f"{name} in {place} ({spelling})"
        for place, content in places
        for name, spelling, pieces in wanted
        if any(piece in place.encode() + b"\n" + content for piece in pieces)
    ]


def _pieces(text: bytes) -> list[bytes]:
    last = len(text) - _PIECE
    if last < 0:
        raise AssertionError(f"fewer than {_PIECE} characters cannot be told from other text")
    return [text[start : start + _PIECE] for start in (*range(0, last, _PIECE // 2), last)]


def redis_contents(url: str) -> Iterator[Place]:
    """Every key, and its value as its type's own command reads it and as DUMP has it."""
    client: Any = redis.Redis.from_url(url, protocol=2)
    read = {
        "string": client.get,
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1),
        "stream": client.xrange,
        # It has expired since SCAN named it.
        "none": lambda _key: None,
    }
    try:
        for key in client.scan_iter(count=1000):
            kind, name = client.type(key).decode(), key.decode()
            yield f"redis {kind} {name}", b"\n".join(_flat(read[kind](key)))
            yield f"redis dump {name}", client.dump(key) or b""
    finally:
        client.close()


def _flat(value: Any) -> Iterator[bytes]:
    match value:
        case bytes():
            yield value
        case dict():
            for pair in value.items():
                yield from _flat(pair)
        case list() | tuple() | set():
            for item in value:
                yield from _flat(item)
        case None:
            return
        case _:
            raise AssertionError(f"Redis gave {value!r}, which nothing here reads")


def files_below(folder: Path, *, but: Iterable[Path] = ()) -> Iterator[Place]:
    """Every file: logs, append-only files, whatever else a process left behind."""
    left_out = set(but)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in left_out:
            yield f"file {path.relative_to(folder)}", path.read_bytes()


def command_lines(pids: Iterable[int]) -> Iterator[Place]:
    """What `ps` shows of these processes and of all that they have started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name stands in parentheses and may hold any character.
                fields = (entry / "stat").read_text("utf-8").rpartition(")")[2].split()
            except OSError:
                continue  # It has ended meanwhile.
            parents[int(entry.name)] = int(fields[1])
    family = set(pids)
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    for pid in sorted(family):
        yield f"command line of {pid}", Path(f"/proc/{pid}/cmdline").read_bytes()
