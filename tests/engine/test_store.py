from __future__ import annotations

import errno
import json
import os
import posix
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.doctor import examine
from erasebench.engine.markers import MARKER, VERIFIED, CorruptCellError
from erasebench.engine.store import Store
from erasebench.engine.store_format import ABOUT
from erasebench.errors import EraseBenchError
from erasebench.files import write_durably

CELL = Cell("erase", {"method": "sd"})


class Killed(BaseException):
    """What a kill is to the code: nothing after it runs."""


def commit(store: Store, cell: Cell = CELL) -> None:
    with store.writing(cell, {"seconds": 1.0}) as folder:
        (folder / "weights").write_bytes(b"numbers")
        (folder / "sub").mkdir()
        (folder / "sub" / "more").write_bytes(b"")


def test_a_committed_cell_is_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.marker(CELL.key) is None and store.verify(CELL.key) == "is missing"
    commit(store)
    marker = Store(tmp_path / "store").marker(CELL.key)
    assert marker is not None and marker.identity == CELL.identity and marker.cost == {"seconds": 1.0}
    assert {name: size for name, (size, _) in marker.files.items()} == {"weights": 7, "sub/more": 0}
    assert (store.read(CELL.key) / "weights").read_bytes() == b"numbers"
    assert store.cells() == [CELL.key] and not store.leftovers()
    store.remove(CELL.key)
    assert store.cells() == []


def test_an_error_in_the_making_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.writing(CELL, {}) as folder:
        (folder / "half").write_bytes(b"")
        raise KeyboardInterrupt
    assert not store.cells() and not store.leftovers()


def test_payload_then_marker_are_synced_before_the_cell_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def record(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            what = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[1])
            steps.append(f"{name} {re.sub(r'[.][.0-9a-f]+[.]partial', '.partial', Path(what).name)}")
            return change(*args)

        return call

    store = Store(tmp_path)
    for name in ("fsync", "rename", "replace"):
        monkeypatch.setattr(os, name, record(name, getattr(posix, name)))
    commit(store)
    folder = f"{CELL.key}.partial"
    assert steps == [
        *("fsync sub", "fsync more", "fsync weights", f"fsync {folder}"),
        *(f"fsync {MARKER}.partial", f"replace {MARKER}", f"fsync {folder}"),
        *(f"rename {CELL.key}", f"fsync {CELL.key[:2]}"),
    ]


@pytest.mark.parametrize("step", range(8))
def test_a_kill_at_any_step_leaves_no_finished_cell(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        calls = iter(range(100))
        # A killed process tidies nothing up.
        patch.setattr("shutil.rmtree", lambda *_, **__: None)

        def dying(change: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                if next(calls) == step:
                    raise Killed
                return change(*args)

            return call

        for name in ("fsync", "rename", "replace"):
            patch.setattr(os, name, dying(getattr(os, name)))
        with pytest.raises(Killed):
            commit(store)
    again = Store(tmp_path)
    assert again.marker(CELL.key) is None
    problem = again.verify(CELL.key)
    assert problem is not None and "corrupt" not in problem
    with pytest.raises(CorruptCellError, match=CELL.key[:12]):
        again.read(CELL.key)
    commit(again)
    assert again.verify(CELL.key) is None and not again.leftovers()


def flip(path: Path, where: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(bytes(data))


def damage_payload(folder: Path) -> None:
    flip(folder / "weights")


def truncate_payload(folder: Path) -> None:
    (folder / "weights").write_bytes(b"num")


def remove_payload(folder: Path) -> None:
    (folder / "weights").unlink()


def empty_marker(folder: Path) -> None:
    (folder / MARKER).write_bytes(b"")


def other_identity(folder: Path) -> None:
    marker = json.loads((folder / MARKER).read_text())
    marker["identity"]["spec"]["method"] = "uce"
    (folder / MARKER).write_text(json.dumps(marker))


def other_hash(folder: Path) -> None:
    text = (folder / MARKER).read_text()
    digest = json.loads(text)["files"]["weights"][1]
    (folder / MARKER).write_text(text.replace(digest, digest[::-1]))


def add_a_file(folder: Path) -> None:
    (folder / "guidance.json").write_text("{}")


def add_a_link(folder: Path) -> None:
    (folder / "sub" / "guidance.json").symlink_to(folder / "weights")


def link_payload(folder: Path) -> None:
    (folder / "weights").rename(folder.parent / "elsewhere")
    (folder / "weights").symlink_to(folder.parent / "elsewhere")


def marker_is_a_folder(folder: Path) -> None:
    (folder / MARKER).unlink()
    (folder / MARKER).mkdir()


def marker_is_a_pipe(folder: Path) -> None:
    (folder / MARKER).unlink()
    os.mkfifo(folder / MARKER)


def edit(**changes: Any) -> Callable[[Path], None]:
    """Damage that a marker of wrong contents is."""

    def damage(folder: Path) -> None:
        marker = json.loads((folder / MARKER).read_text())
        (folder / MARKER).write_text(json.dumps(marker | changes))

    damage.__name__ = str(changes)
    return damage


def nested_marker(folder: Path) -> None:
    (folder / MARKER).write_text("[" * 100_000)


def nested_identity(folder: Path) -> None:
    text = (folder / MARKER).read_text()
    (folder / MARKER).write_text(text.replace('"method": "sd"', '"method": ' + "[" * 900 + "]" * 900))


@pytest.mark.parametrize(
    "damage",
    [
        *(damage_payload, truncate_payload, remove_payload, empty_marker, other_identity, other_hash),
        *(add_a_file, add_a_link, link_payload, marker_is_a_folder, marker_is_a_pipe, nested_marker, nested_identity),
        *(edit(files={}), edit(files={".": [0, ""]}), edit(files={"../store.json": [0, ""]}), edit(files=None)),
        *(edit(files={"weights": [7.0, ""]}), edit(files={"weights": None}), edit(files={"/etc/passwd": [1, ""]})),
        *(edit(cost=None), edit(cost={"seconds": None}), edit(cost={"seconds": "1"}), edit(cost={"images": [1]})),
        *(edit(cost={"seconds": float("nan")}), edit(cost={"seconds": float("inf")}), edit(identity=None)),
        edit(identity={"stage": "erase", "spec": float("nan")}),
    ],
    ids=lambda damage: damage.__name__,
)
def test_damage_is_found_and_never_read(damage: Callable[[Path], None], tmp_path: Path) -> None:
    commit(Store(tmp_path))
    store = Store(tmp_path)
    damage(store.folder(CELL.key))
    assert "is corrupt" in str(store.verify(CELL.key))
    with pytest.raises(CorruptCellError, match=f"{CELL.key[:12]} is corrupt"):
        store.read(CELL.key)
    commit(store)
    assert store.read(CELL.key)


def test_every_flipped_byte_of_a_marker_is_survived(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store)
    path = store.folder(CELL.key) / MARKER
    whole = path.read_bytes()
    # What a cell took, and what it was like, is no part of its result.
    cost = {*range(whole.index(b'"cost"'), whole.index(b'"files"')), *range(whole.index(b'"kind"'), len(whole))}
    for k in range(len(whole) - 1):
        flip(path, k)
        if store.verify(CELL.key) is None:
            assert k in cost, "a changed identity or hash went unnoticed"
        path.write_bytes(whole)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(EraseBenchError, match=r"is no store and not empty \(it holds thesis.tex\)"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(EraseBenchError, match="cannot be written"):
        Store(tmp_path / "thesis.tex")


def stand(path: Path, kind: str) -> None:
    """Put something else where a folder or a lease should be."""
    if kind == "folder":
        path.mkdir(parents=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_text("in the way")
    else:
        path.symlink_to({"loop": path, "dangling": path.with_name("nowhere"), "link": path.parent}[kind])


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("cells/{ab}", ["file", "loop", "dangling"]),
        ("cells/{ab}/{key}", ["file", "loop", "dangling", "folder", "link"]),
        ("cells/{ab}/{key}.partial", ["file", "loop", "dangling", "folder", "link"]),
        ("leases/{key}.json", ["loop", "dangling", "folder", "link"]),
        ("work/{key}", ["file", "loop", "dangling"]),
    ],
)
def test_what_stands_in_the_way_of_a_cell_is_reported_and_gives_way(
    name: str, kinds: list[str], tmp_path: Path
) -> None:
    for kind in kinds:
        for fix in (False, True):
            store = Store(tmp_path / f"{kind}-{fix}")
            path = store.root / name.format(ab=CELL.key[:2], key=CELL.key)
            stand(path, kind)
            if kind != "link" or "lease" in name:  # a link to another folder is an empty cell
                (problem,) = examine(store.root, fix)
                assert str(path) in problem or CELL.key[:12] in problem
                assert problem.endswith(": removed") == fix
                assert not fix or examine(store.root) == []
            with store.leases.holding(CELL.key) as held:
                assert held
                (store.work(CELL.key) / "state").touch()
                commit(store)
                assert not store.works()
            assert store.verify(CELL.key) is None and examine(store.root) == []


@pytest.mark.parametrize("name", ["cells", "leases", "work"])
@pytest.mark.parametrize("kind", ["file", "loop", "dangling"])
def test_what_stands_in_the_place_of_a_part_of_the_store_is_named_and_gives_way(
    name: str, kind: str, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    (tmp_path / name).rmdir()
    stand(tmp_path / name, kind)
    wanted = rf"the store {store.root} cannot be written at {tmp_path / name}: File exists; remove what is there"
    with pytest.raises(EraseBenchError, match=wanted):
        Store(tmp_path)
    assert examine(tmp_path) == [f"{tmp_path / name} is no folder"]
    assert examine(tmp_path, fix=True) == [f"{tmp_path / name} is no folder: removed"]
    commit(store)
    assert examine(tmp_path) == []


@pytest.mark.parametrize("kind", ["loop", "dangling", "pipe", "folder"])
def test_a_store_whose_description_is_no_file_is_corrupt(kind: str, tmp_path: Path) -> None:
    about = Store(tmp_path).root / ABOUT
    about.unlink()
    if kind == "pipe":
        os.mkfifo(about)
    else:
        stand(about, kind)
    for open_it in (lambda: Store(tmp_path, make=False), lambda: examine(tmp_path)):
        with pytest.raises(EraseBenchError, match=rf"{about} is corrupt \((it is a pipe|Too many|No such|Is a dir)"):
            open_it()


def test_files_that_were_verified_are_not_read_again_unless_they_were_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(Store(tmp_path))
    folder = Store(tmp_path).folder(CELL.key)
    sleep_past(folder / "weights")
    assert Store(tmp_path).verify(CELL.key) is None
    with monkeypatch.context() as patch:
        patch.setattr("erasebench.engine.markers.hash_file", lambda path: pytest.fail(f"{path} was read"))
        assert Store(tmp_path).check(CELL.key) is None and Store(tmp_path).read(CELL.key) == folder
    whole = (folder / VERIFIED).read_text()
    for torn in ("", "{", "[" * 100_000, whole.replace("weights", "others")):
        (folder / VERIFIED).write_text(torn)
        assert Store(tmp_path).check(CELL.key) is None, "the note is worth nothing: the files are"
        assert (folder / VERIFIED).read_text() == whole
    flip(folder / "weights")
    assert Store(tmp_path).check(CELL.key) == "is corrupt: weights is not what was written"
    with pytest.raises(CorruptCellError):
        Store(tmp_path).read(CELL.key)


def test_a_note_says_nothing_of_files_written_to_at_its_own_moment(tmp_path: Path) -> None:
    commit(Store(tmp_path))
    folder = Store(tmp_path).folder(CELL.key)
    assert Store(tmp_path).verify(CELL.key) is None
    before = (folder / "weights").stat()
    flip(folder / "weights")
    os.utime(folder / "weights", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(folder / VERIFIED, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "weights" in str(Store(tmp_path).check(CELL.key))


def test_the_whole_store_may_lie_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    Store(tmp_path / "store")
    (tmp_path / "store" / "cells").rmdir()
    (tmp_path / "store" / "cells").symlink_to(tmp_path / "disk")
    commit(Store(tmp_path / "store"))
    assert examine(tmp_path / "store") == [] and any((tmp_path / "disk").iterdir())


def sleep_past(path: Path) -> None:
    """Wait until the clock of the file system has gone on."""
    probe = path.parent.parent / "clock"
    while True:
        probe.touch()
        if probe.stat().st_mtime_ns > path.stat().st_mtime_ns:
            break
        time.sleep(0.002)
    probe.unlink()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(EraseBenchError, match=f"the store {tmp_path}/store cannot be written: Permission denied"):
        Store(tmp_path / "store")


def test_a_text_file_is_old_or_new_but_never_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    write_durably(path, "old")

    def die(*args: Any) -> None:
        raise Killed

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, name, die)
            write_durably(path, "new")
        assert path.read_text() == "old"
    write_durably(path, "new")
    assert path.read_text() == "new"
