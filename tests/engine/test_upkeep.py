from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from erasebench.engine import upkeep
from erasebench.engine.cells import Cell
from erasebench.engine.doctor import examine
from erasebench.engine.markers import Marker
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from erasebench.results.record import read_record
from tests.engine.fake import cell
from tests.engine.runs import CELLS, copy_of, done, run_tiny, table
from tests.engine.test_leases import killed
from tests.forks import in_a_child
from tests.whole.test_kill import count_calls

FIRST = cell("first")
SECOND = cell("second", first=FIRST)
KEPT = [FIRST, SECOND, cell("third", first=FIRST, second=SECOND)]
OTHERS = [cell("other"), cell("apart", first=FIRST)]


def commit(store: Store, one: Cell) -> None:
    with store.writing(one, {"seconds": 1.5}) as folder:
        (folder / "payload").write_bytes(one.title.encode() * 100)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for one in (*KEPT, *OTHERS):
        commit(store, one)
    return store


def keys(*cells: Cell) -> list[str]:
    return sorted(one.key for one in cells)


def test_what_a_cell_was_made_of_is_found(store: Store) -> None:
    assert upkeep.with_what_they_read(store, [KEPT[2].key, "0" * 64]) == {one.key for one in KEPT}
    (store.folder(SECOND.key) / "payload").unlink()
    with pytest.raises(EraseBenchError, match=f"cell {SECOND.key[:12]} is corrupt: .*; run `erasebench doctor --fix"):
        upkeep.with_what_they_read(store, [KEPT[2].key])


def test_garbage_is_all_that_the_kept_cells_are_not_made_of(store: Store) -> None:
    (store.work(OTHERS[0].key) / "checkpoint").write_bytes(b"x" * 50)
    (store.work("0" * 64) / "checkpoint").touch()
    (store.root / "locks").mkdir()
    (store.folder(FIRST.key).with_name("ab.partial")).mkdir()
    garbage = upkeep.find_garbage(store, [KEPT[2].key, "0" * 64])
    assert sorted(garbage.cells["fake"]) == keys(*OTHERS) and garbage.kept_cells == 3
    assert {what: [path.name for path in paths] for what, paths in garbage.paths.items()} == {
        "half-written": ["ab.partial"],
        "in the making": [OTHERS[0].key],
        "of an older erasebench": ["locks"],
    }
    assert store.cells() == keys(*KEPT, *OTHERS), "nothing is removed by looking"
    assert upkeep.collect_garbage(store, [KEPT[2].key, "0" * 64]).cells == garbage.cells
    assert store.cells() == keys(*KEPT) and examine(store.root) == []
    assert sorted(path.name for path in store.root.iterdir()) == ["cells", "leases", "store.json", "work"]
    assert [path.name for path in store.works()] == ["0" * 64]


@pytest.mark.usefixtures("fast")
def test_a_run_that_is_kept_computes_nothing_again(fast_run: Path, tmp_path: Path) -> None:
    copy_of(fast_run, tmp_path)
    assert run_tiny(tmp_path, "--concepts", "nudity", "--methods", "sd,uce", "--out", tmp_path / "other") == 0
    store = Store(tmp_path / "store")
    assert len(store.cells()) > CELLS
    upkeep.collect_garbage(store, read_record(tmp_path / "out").cells)
    assert len(store.cells()) == CELLS
    assert run_tiny(tmp_path) == 0
    assert done(tmp_path) == [] and table(tmp_path) == table(fast_run)


def test_nothing_is_removed_while_a_run_is_at_work_and_no_run_begins_meanwhile(store: Store) -> None:
    other = Store(store.root)
    with other.at_work(), pytest.raises(EraseBenchError, match=f"is in use by process {os.getpid()} on .*; wait until"):
        upkeep.collect_garbage(store, [])
    with other.leases.holding(FIRST.key), pytest.raises(EraseBenchError, match="is in use by"):
        upkeep.collect_garbage(store, [])
    with other.clearing(), pytest.raises(EraseBenchError, match="is in use by another"):
        upkeep.collect_garbage(store, [])
    with store.clearing(), pytest.raises(EraseBenchError, match=r"is being cleared by process \d+ on .*; wait until"):
        other.at_work().__enter__()
    assert store.cells() == keys(*KEPT, *OTHERS)
    for name in ("run-0", FIRST.key):
        killed(store.root / "leases", name)
    upkeep.collect_garbage(store, [])
    assert not store.cells() and examine(store.root) == []


def in_a_process(act: Callable[[], object], moment: int) -> int:
    """The exit code of something that is killed before the n-th call that changes the disk; negative if it was."""

    def kill(n: int, after: bool) -> None:
        if (n, after) == (moment, False):
            os.kill(os.getpid(), signal.SIGKILL)

    def counted() -> None:
        with pytest.MonkeyPatch.context() as patch:
            count_calls(patch, kill)
            act()

    return in_a_child(counted)


def check_killed_at_every_moment(store: Store) -> int:
    """Kill a collection again and again: what is kept stays whole, and what goes never looks damaged."""
    moment = 0
    while in_a_process(lambda: upkeep.collect_garbage(Store(store.root), [KEPT[2].key]), moment) != 0:
        moment += 1
        assert not [problem for problem in examine(store.root) if "corrupt" in problem]
        assert set(keys(*KEPT)) <= set(store.cells())
        commit(store, OTHERS[0])
    return moment


def test_a_collection_that_is_killed_at_any_moment_leaves_no_damage(store: Store) -> None:
    assert check_killed_at_every_moment(store) >= 8
    assert store.cells() == keys(*KEPT) and examine(store.root) == []


@pytest.mark.slow
def test_the_procedure_finds_a_removal_in_place(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(self: Store, key: str) -> None:
        for path in sorted(self.folder(key).iterdir(), reverse=True):
            path.unlink()
        self.folder(key).rmdir()

    monkeypatch.setattr(Store, "remove", remove)
    with pytest.raises(AssertionError, match="corrupt"):
        check_killed_at_every_moment(store)


def test_the_size_of_a_store_is_told_by_stage(store: Store) -> None:
    (store.work("0" * 64) / "checkpoint").write_bytes(b"x" * 2_000_000)
    (store.folder(FIRST.key) / "payload").unlink()
    damaged, fake, making, total = sorted(upkeep.measure(store))[:1] + upkeep.measure(store)[-3:]
    assert damaged.split() == ["damaged", "1", "0.0", "MB"] and fake.split()[:2] == ["fake", "4"]
    assert making.split() == ["in", "the", "making", "1", "2.0", "MB"] and total.split()[:3] == ["in", "all", "6"]


def flipped(store: Store, one: Cell) -> None:
    path = store.folder(one.key) / "payload"
    path.write_bytes(path.read_bytes()[:-1] + b"X")


def check_copied(source: Store, target: Store) -> None:
    """Copy a store with a flipped byte: what arrives is sound, and what is not is named."""
    flipped(source, SECOND)
    arrival = upkeep.copy(source, target, source.cells())
    assert examine(target.root) == [], "damage was copied"
    assert target.cells() == keys(FIRST, KEPT[2], *OTHERS) and arrival.new == 4
    assert arrival.problems == [f"cell {SECOND.key[:12]} is corrupt: payload is not what was written: not brought"]


def test_a_copy_is_sound_or_not_there(store: Store, tmp_path: Path) -> None:
    check_copied(store, Store(tmp_path / "other"))


def test_the_procedure_finds_a_copy_that_is_not_verified(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def adopting(self: Store, key: str, marker: Marker) -> Iterator[Path]:
        with self._partial(key) as partial:
            yield partial
            self._commit(key, partial, marker, dict.fromkeys(marker.files, 0))

    monkeypatch.setattr(Store, "adopting", adopting)
    with pytest.raises(AssertionError, match="damage was copied"):
        check_copied(store, Store(tmp_path / "other"))


def test_only_what_is_missing_is_copied(store: Store, tmp_path: Path) -> None:
    target = Store(tmp_path / "other")
    commit(target, FIRST)
    commit(target, SECOND)
    flipped(target, SECOND)
    before = (target.folder(FIRST.key) / "done.json").stat().st_ino
    arrival = upkeep.copy(store, target, [*keys(*KEPT), "0" * 64])
    assert (arrival.new, arrival.there) == (2, 1) and arrival.problems == [f"cell {'0' * 12} is missing: not brought"]
    assert (target.folder(FIRST.key) / "done.json").stat().st_ino == before
    assert target.cells() == keys(*KEPT) and examine(target.root) == []
    assert [target.marker(one.key) for one in KEPT] == [store.marker(one.key) for one in KEPT]


def test_a_store_that_cannot_be_written_can_be_copied(store: Store, tmp_path: Path) -> None:
    shutil.rmtree(store.root / "leases")
    before = sorted((path, path.lstat().st_mtime_ns) for path in store.root.rglob("*"))
    upkeep.copy(Store(store.root, make=False), Store(tmp_path / "other"), store.cells())
    assert sorted((path, path.lstat().st_mtime_ns) for path in store.root.rglob("*")) == before
