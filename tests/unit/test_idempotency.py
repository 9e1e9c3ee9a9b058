"""Idempotency-Keys that stand for something on disk: one id each, whoever claims and when."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chat.errors import IdempotencyMismatch
from chat.idempotency import KeyedNames


def on_disk(folder: Path) -> set[str]:
    """The names of all files below a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def names(tmp_path: Path) -> KeyedNames:
    """No key was claimed."""
    return KeyedNames(tmp_path / "keys")


def test_a_key_keeps_the_id_it_was_first_given_to(names: KeyedNames) -> None:
    """For the same body; each key its own."""
    claims = [names.claim(key, "h", new) for key, new in (("k", "a"), ("k", "b"), ("l", "c"))]

    assert claims == ["a", "a", "c"]
    assert sorted(names.ids()) == ["a", "c"]


def test_another_body_is_refused(names: KeyedNames) -> None:
    """The message has the id and never the key."""
    names.claim("s3cret", "h", "batch_1")
    with pytest.raises(IdempotencyMismatch) as caught:
        names.claim("s3cret", "i", "batch_2")

    assert "belongs to batch_1, which had another body" in caught.value.message
    assert "s3cret" not in caught.value.message


def test_a_forgotten_key_is_free(names: KeyedNames, tmp_path: Path) -> None:
    """Forgetting twice, or what never had a key, does nothing."""
    names.claim("k", "h", "a")
    for name in ("a", "a", "b"):
        names.forget(name)
    left = on_disk(tmp_path)

    assert left == set()
    assert names.claim("k", "i", "b") == "b"


def test_a_claim_that_broke_off_takes_no_key(names: KeyedNames, tmp_path: Path) -> None:
    """The process died before it had the key; forgetting its id leaves the key to others."""
    names.claim("k", "h", "a")
    pair = (tmp_path / "keys" / "a.id").read_text("utf-8")
    (tmp_path / "keys" / "b.id").write_text(pair.replace('"a"', '"b"'))
    names.forget("b")

    assert names.ids() == ["a"]
    assert names.claim("k", "h", "c") == "a"


def test_keys_are_not_written(names: KeyedNames, tmp_path: Path) -> None:
    """They may be secrets of their callers."""
    names.claim("s3cret", "h", "a")
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]

    assert len(written) == 2
    assert not any(b"s3cret" in text for text in written)
    assert not any("s3cret" in name for name in on_disk(tmp_path))


def test_of_many_that_claim_at_once_one_gets_its_own(tmp_path: Path) -> None:
    """And all others get that one."""
    ids = [f"id-{number}" for number in range(32)]
    with ThreadPoolExecutor(16) as pool:
        claims = list(pool.map(lambda new: KeyedNames(tmp_path / "keys").claim("k", "h", new), ids))

    assert len(set(claims)) == 1
    assert KeyedNames(tmp_path / "keys").ids() == [claims[0]]
