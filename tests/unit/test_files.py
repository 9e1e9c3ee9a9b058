"""Files on disk: there whole or not at all, for any number of processes, whatever breaks off."""

from __future__ import annotations

import hashlib
import logging
import os
import resource
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from chat.errors import FileNotFound, IdempotencyMismatch, StorageUnavailable
from chat.files import FileStore, Purpose, StoredFile
from chat.idempotency import KeyedNames
from chat.jobs import new_id
from tests.fakes import FakeClock

LINES = b'{"custom_id": "1"}\n{"custom_id": "2"}\n'
DAY_S = 86400


@pytest.fixture
def clock() -> FakeClock:
    """The wall clock of the stores."""
    return FakeClock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the files are; the folder is made when it is needed."""
    return tmp_path / "data" / "files"


@pytest.fixture
def store(root: Path, clock: FakeClock) -> FileStore:
    """A store with nothing in it."""
    return FileStore(root, now=clock)


def put(
    store: FileStore,
    content: bytes = LINES,
    filename: str = "in.jsonl",
    purpose: Purpose = "batch",
    lifetime_s: int | None = None,
    key: str | None = None,
) -> StoredFile:
    """Store ``content`` in two pieces."""
    with store.incoming() as incoming:
        incoming.write(content[:5])
        incoming.write(content[5:])
        return incoming.commit(filename, purpose, lifetime_s, key)


def listed(store: FileStore) -> list[str]:
    """The ids of all files, newest first."""
    return [stored.id for stored in store.page()[0]]


def content_of(store: FileStore, file_id: str) -> bytes:
    with store.open(file_id) as file:
        return file.read()


def on_disk(folder: Path) -> set[str]:
    """Every file below a folder, hidden ones as well."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes, as on a disk that is nearly full."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def test_a_committed_file_is_there_with_all_that_is_known_about_it(store: FileStore) -> None:
    """Its facts, its content, its place."""
    stored = put(store, lifetime_s=3600)

    assert stored == StoredFile(
        id=stored.id,
        filename="in.jsonl",
        purpose="batch",
        bytes=len(LINES),
        created_at=1000,
        expires_at=4600,
        sha256=hashlib.sha256(LINES).hexdigest(),
    )
    assert store.get(stored.id) == stored
    assert store.page() == ([stored], False)
    assert content_of(store, stored.id) == LINES
    assert store.path(stored.id).read_bytes() == LINES


def test_a_file_is_shown_as_openai_shows_one(store: FileStore) -> None:
    """The hash stays inside."""
    stored = put(store, purpose="batch_output")

    assert stored.to_wire() == {
        "id": stored.id,
        "object": "file",
        "bytes": len(LINES),
        "created_at": 1000,
        "expires_at": None,
        "filename": "in.jsonl",
        "purpose": "batch_output",
        "status": "processed",
    }


def test_only_the_owner_may_read(store: FileStore, root: Path) -> None:
    """Whatever the umask allows."""
    umask = os.umask(0)
    try:
        put(store, key="k")
    finally:
        os.umask(umask)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_file()}

    assert (
        stat.S_IMODE(root.stat().st_mode) == stat.S_IMODE((root / "keys").stat().st_mode) == 0o700
    )
    assert modes == {0o600}


def test_nothing_is_there_before_it_is_committed(store: FileStore) -> None:
    """Not even when all of it is written."""
    with store.incoming() as incoming:
        incoming.write(LINES)
        before = listed(store)
        stored = incoming.commit("in.jsonl", "batch")

    assert (before, incoming.bytes) == ([], len(LINES))
    assert listed(store) == [stored.id]


def test_what_is_not_committed_leaves_nothing(store: FileStore, root: Path) -> None:
    """Left early or by an error."""
    with store.incoming() as incoming:
        incoming.write(LINES)
    with suppress(RuntimeError), store.incoming() as incoming:
        incoming.write(LINES)
        raise RuntimeError

    assert on_disk(root) == set()


def test_what_a_crash_left_is_invisible_and_swept_after_a_day(store: FileStore, root: Path) -> None:
    """A process may die while it writes the content, or the facts, or in between."""
    stored = put(store)
    half = new_id("file-")
    left = {".0a1b", ".0a1c", f"{half}.jsonl"}
    for name in left:
        (root / name).write_bytes(LINES)
    seen = listed(store)
    with pytest.raises(FileNotFound):
        store.get(half)
    store.sweep(time.time() + DAY_S - 600)
    soon = on_disk(root)
    store.sweep(time.time() + DAY_S + 600)

    assert seen == listed(store) == [stored.id]
    assert soon - on_disk(root) == left


def test_two_stores_on_one_folder_see_the_same(store: FileStore, root: Path) -> None:
    """Nothing is remembered but on disk."""
    other = FileStore(root, now=lambda: 1000.0)
    first, second = put(store), put(other)
    other.delete(first.id)

    assert listed(store) == listed(other) == [second.id]
    with pytest.raises(FileNotFound):
        store.delete(first.id)
    assert {name.partition(".")[0] for name in on_disk(root)} == {second.id}


def test_an_empty_or_missing_folder_has_no_files(store: FileStore) -> None:
    """Before the first upload there is none."""
    assert store.page() == ([], False)
    assert store.sweep(time.time()) == 0
    with pytest.raises(FileNotFound, match="GET /v1/files lists"):
        store.get(new_id("file-"))


class TestPages:
    """The files in the order of their making, a page at a time."""

    @pytest.fixture
    def ids(self, store: FileStore, clock: FakeClock) -> list[str]:
        """Five files, oldest first; the second and the fourth are what batches wrote."""
        ids = []
        for number in range(5):
            clock.advance(0.01)
            ids.append(put(store, purpose="batch_output" if number % 2 else "batch").id)
        return ids

    def test_ids_sort_by_time(self, store: FileStore, ids: list[str]) -> None:
        """Newest first, unless told otherwise."""
        assert ids == sorted(ids)
        assert listed(store) == ids[::-1]
        assert [stored.id for stored in store.page(newest_first=False)[0]] == ids

    @pytest.mark.parametrize("newest_first", [True, False], ids=["newest first", "oldest first"])
    def test_pages_together_are_the_whole(
        self, store: FileStore, ids: list[str], *, newest_first: bool
    ) -> None:
        """Each begins behind the last of the page before."""
        seen: list[str] = []
        pages = []
        more = True
        while more:
            found, more = store.page(
                after=seen[-1] if seen else None, limit=2, newest_first=newest_first
            )
            seen += [stored.id for stored in found]
            pages.append((len(found), more))

        assert seen == (ids[::-1] if newest_first else ids)
        assert pages == [(2, True), (2, True), (1, False)]

    def test_a_full_last_page_has_nothing_behind_it(self, store: FileStore, ids: list[str]) -> None:
        """Whether more follow is looked up, not guessed from the length."""
        found, more = store.page(limit=5)

        assert (len(found), more) == (len(ids), False)

    def test_only_files_of_the_purpose_count(self, store: FileStore, ids: list[str]) -> None:
        """For the limit and for what follows."""
        found, more = store.page(purpose="batch_output", limit=2)

        assert ([stored.id for stored in found], more) == ([ids[3], ids[1]], False)

    def test_a_page_may_begin_behind_a_file_that_is_gone(
        self, store: FileStore, ids: list[str]
    ) -> None:
        """Somebody deletes while somebody else leafs through."""
        store.delete(ids[3])
        found, _ = store.page(after=ids[3])

        assert [stored.id for stored in found] == ids[2::-1]


@pytest.mark.parametrize(
    "file_id",
    [
        pytest.param("", id="empty"),
        pytest.param("secret", id="no prefix"),
        pytest.param("../secret", id="up"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("file-" + "0" * 25, id="too short"),
        pytest.param("file-" + "0" * 27, id="too long"),
        pytest.param("file-" + "0" * 23 + "/..", id="up at the end"),
        pytest.param("file-" + "0" * 26 + "\n", id="line end"),
        pytest.param("file-" + "0" * 25 + "\0", id="zero"),
        pytest.param("file-" + "0" * 25 + "u", id="not in the alphabet"),
        pytest.param("file-" + "0" * 25 + "٣", id="a digit elsewhere"),
        pytest.param("FILE-" + "0" * 26, id="upper case"),
        pytest.param("keys", id="the folder of keys"),
    ],
)
def test_what_is_no_file_id_never_becomes_a_path(
    store: FileStore, tmp_path: Path, root: Path, file_id: str
) -> None:
    """It is refused by its form, whatever it would lead to."""
    put(store)
    facts = next(root.glob("*.json")).read_text("utf-8")
    for name in ("secret", "data/secret"):
        (tmp_path / f"{name}.json").write_text(facts)
        (tmp_path / f"{name}.jsonl").write_text("not for everybody")
    before = on_disk(tmp_path)
    source = tmp_path / "source"
    source.write_bytes(LINES)
    for method in (store.get, store.path, store.open, store.delete):
        with pytest.raises(FileNotFound, match="is not a file id; those are file- and 26"):
            method(file_id)
    with pytest.raises(FileNotFound):
        store.adopt(source, file_id, "x", "batch")

    assert on_disk(tmp_path) == before | {"source"}


class TestExpiry:
    """A file is gone the moment its time is over, and swept some time later."""

    def test_an_expired_file_is_not_there(self, store: FileStore, clock: FakeClock) -> None:
        """To the second."""
        stored = put(store, lifetime_s=3600)
        clock.now = 4599.9
        before = listed(store)
        clock.now = 4600.0

        assert (before, listed(store)) == ([stored.id], [])
        for method in (store.get, store.open, store.delete):
            with pytest.raises(FileNotFound):
                method(stored.id)

    def test_sweeping_removes_expired_files_and_their_keys_only(
        self, store: FileStore, clock: FakeClock, root: Path
    ) -> None:
        """And says how many."""
        for name in ("a", "b"):
            put(store, filename=name, lifetime_s=3600, key=name)
        kept = [put(store, lifetime_s=3601, key="c"), put(store, key="d")]
        clock.now = 4600.0
        removed = [store.sweep(4600.0), store.sweep(4600.0)]

        assert removed == [2, 0]
        assert set(listed(store)) == {stored.id for stored in kept}
        assert len(on_disk(root)) == 2 * 2 + 2 * 2

    def test_a_file_without_a_lifetime_is_kept(self, store: FileStore) -> None:
        """For ever."""
        stored = put(store)

        assert store.sweep(10.0**12) == 0
        assert listed(store) == [stored.id]


def test_a_file_that_is_deleted_while_it_is_read_is_read_to_its_end(store: FileStore) -> None:
    """A download or a batch that has begun goes on."""
    stored = put(store)
    with store.open(stored.id) as file:
        begin = file.read(3)
        store.delete(stored.id)
        rest = file.read()

    assert begin + rest == LINES


class TestAdopting:
    """A file of data_dir becomes a stored file by its name alone."""

    @pytest.fixture
    def output(self, tmp_path: Path) -> Path:
        """What a batch has written."""
        path = tmp_path / "data" / "batches" / "output.jsonl"
        path.parent.mkdir(parents=True)
        path.write_bytes(LINES)
        return path

    def test_the_file_is_moved_and_not_copied(self, store: FileStore, output: Path) -> None:
        """However large it is."""
        file_id, inode = new_id("file-"), output.stat().st_ino
        stored = store.adopt(output, file_id, "out.jsonl", "batch_output", 3600)

        assert stored == store.get(file_id)
        assert (stored.bytes, stored.expires_at) == (len(LINES), 4600)
        assert stored.sha256 == hashlib.sha256(LINES).hexdigest()
        assert not output.exists()
        assert store.path(file_id).stat().st_ino == inode
        assert stat.S_IMODE(store.path(file_id).stat().st_mode) == 0o600

    def test_adopting_again_changes_nothing(
        self, store: FileStore, output: Path, clock: FakeClock
    ) -> None:
        """Whether or not the old name is still there."""
        file_id = new_id("file-")
        first = store.adopt(output, file_id, "out.jsonl", "batch_output")
        clock.advance(60)
        second = store.adopt(output, file_id, "out.jsonl", "batch_output")
        output.write_bytes(b"of a crash before the old name went\n")
        third = store.adopt(output, file_id, "out.jsonl", "batch_output")

        assert first == second == third
        assert content_of(store, file_id) == LINES
        assert not output.exists()

    def test_a_crash_in_the_middle_is_made_good(
        self, store: FileStore, output: Path, root: Path
    ) -> None:
        """The content has its new name already, the facts are not there."""
        file_id = new_id("file-")
        root.mkdir(parents=True)
        os.link(output, root / f"{file_id}.jsonl")
        before = listed(store)
        stored = store.adopt(output, file_id, "out.jsonl", "batch_output")

        assert (before, listed(store)) == ([], [file_id])
        assert (stored.bytes, content_of(store, file_id)) == (len(LINES), LINES)
        assert not output.exists()

    def test_two_processes_may_adopt_at_once(self, root: Path, output: Path) -> None:
        """Both get the file that there is then."""
        file_id = new_id("file-")
        stores = [FileStore(root, now=lambda at=at: 1000.0 + at) for at in range(8)]  # type: ignore[misc]
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(lambda one: one.adopt(output, file_id, "out", "batch_output"), stores)
            )

        assert set(found) == {stores[0].get(file_id)}
        assert content_of(stores[0], file_id) == LINES
        assert on_disk(root) == {f"{file_id}.json", f"{file_id}.jsonl"}

    def test_there_has_to_be_something(self, store: FileStore, tmp_path: Path) -> None:
        """Neither the file nor what it is to be made of."""
        with pytest.raises(FileNotFound):
            store.adopt(tmp_path / "nothing", new_id("file-"), "x", "batch_output")


class TestTroubleWithTheDisk:
    """What the disk refuses is one clear error that may pass, and nothing half-written stays."""

    def test_a_disk_that_fills_up(self, store: FileStore, root: Path) -> None:
        """In the middle of a piece."""
        with largest_file(100_000), store.incoming() as incoming:
            incoming.write(b"x" * 65_536)
            with pytest.raises(StorageUnavailable, match="see that data_dir has room") as caught:
                incoming.write(b"x" * 65_536)

        assert caught.value.retryable
        assert on_disk(root) == set()

    def test_a_disk_that_is_full_when_all_is_written(self, store: FileStore, root: Path) -> None:
        """The content had room, the facts have none."""
        with store.incoming() as incoming:
            incoming.write(LINES)
            with largest_file(10), pytest.raises(StorageUnavailable):
                incoming.commit("in.jsonl", "batch")

        assert listed(store) == []
        assert on_disk(root) == set()

    def test_a_key_that_cannot_be_kept(self, store: FileStore, root: Path) -> None:
        """Without its key a repeated upload would make a second file, so there is none at all."""
        root.mkdir(parents=True)
        (root / "keys").write_text("in the way")
        with pytest.raises(StorageUnavailable, match="Idempotency-Key cannot be kept"):
            put(store, key="k")

        assert on_disk(root) == {"keys"}

    def test_a_folder_that_cannot_be_one(self, tmp_path: Path) -> None:
        """As when data_dir is somebody else's."""
        (tmp_path / "data").write_text("a file")
        store = FileStore(tmp_path / "data" / "files")
        with pytest.raises(StorageUnavailable, match="cannot be made"), store.incoming():
            pass
        with pytest.raises(StorageUnavailable, match="cannot be read"):
            store.page()

    def test_facts_that_make_no_sense_hide_one_file_only(
        self, store: FileStore, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The log says which."""
        broken, other, good = put(store), put(store), put(store)
        (root / f"{broken.id}.json").write_text("{")
        (root / f"{other.id}.json").write_text('{"id": 3}')
        with caplog.at_level(logging.WARNING):
            found = listed(store)

        assert found == [good.id]
        assert broken.id in caplog.text
        assert other.id in caplog.text


class TestFilesWithAKey:
    """An Idempotency-Key makes one file of any number of equal uploads."""

    def test_the_same_again_is_the_same_file(self, store: FileStore, clock: FakeClock) -> None:
        """Later, and from another process."""
        first = put(store, key="k")
        clock.advance(60)

        assert put(store, key="k") == first
        assert listed(store) == [first.id]

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param({"content": LINES + b"\n"}, id="content"),
            pytest.param({"filename": "other.jsonl"}, id="name"),
            pytest.param({"purpose": "batch_output"}, id="purpose"),
        ],
    )
    def test_anything_else_is_refused(
        self, store: FileStore, root: Path, other: dict[str, str]
    ) -> None:
        """With the id of the file that has the key, and without a new one."""
        first = put(store, key="k")
        before = on_disk(root)
        with pytest.raises(IdempotencyMismatch, match=first.id):
            put(store, key="k", **other)  # type: ignore[arg-type]

        assert on_disk(root) == before

    def test_another_key_is_another_file(self, store: FileStore) -> None:
        """As is none."""
        ids = {put(store, key="k").id, put(store, key="l").id, put(store).id, put(store).id}

        assert set(listed(store)) == ids
        assert len(ids) == 4

    def test_the_key_goes_with_its_file(self, store: FileStore, root: Path) -> None:
        """The same upload makes a new one then."""
        first = put(store, key="k")
        store.delete(first.id)
        left = on_disk(root)
        second = put(store, content=b"other", key="k")

        assert left == set()
        assert listed(store) == [second.id]

    def test_a_key_whose_file_has_vanished_is_free(self, store: FileStore, root: Path) -> None:
        """A process died between the two, or the file has expired and was not swept yet."""
        first = put(store, key="k")
        (root / f"{first.id}.json").unlink()
        second = put(store, key="k")
        again = put(store, key="k")

        assert first.id != second.id
        assert again == second

    def test_an_expired_file_does_not_come_back(self, store: FileStore, clock: FakeClock) -> None:
        """Its key is given to the new one."""
        first = put(store, lifetime_s=3600, key="k")
        clock.advance(3600)
        second = put(store, lifetime_s=3600, key="k")
        store.sweep(clock.now)

        assert first.id != second.id
        assert put(store, lifetime_s=3600, key="k") == second

    def test_sweeping_forgets_keys_without_a_file(self, store: FileStore, root: Path) -> None:
        """Those of a process that died in between."""
        gone, kept = put(store, key="k"), put(store, key="l")
        (root / f"{gone.id}.json").unlink()
        store.sweep(time.time())

        assert KeyedNames(root / "keys").ids() == [kept.id]
        assert len(on_disk(root / "keys")) == 2

    def test_of_many_at_once_one_file_stays(self, root: Path) -> None:
        """And all get that one."""
        stores = [FileStore(root) for _ in range(16)]
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda one: put(one, key="k"), stores))

        assert len({stored.id for stored in found}) == 1
        assert listed(stores[0]) == [found[0].id]
        assert len(on_disk(root)) == 4
