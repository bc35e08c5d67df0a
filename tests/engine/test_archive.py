from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from erasebench.engine import archive as archive_module
from erasebench.engine.archive import CONTENTS, export_cells, import_cells
from erasebench.engine.cells import Cell
from erasebench.engine.doctor import examine
from erasebench.engine.markers import MARKER, Marker, file_times
from erasebench.engine.store import Store
from erasebench.errors import EraseBenchError
from tests.engine.fake import cell

FIRST = cell("first")
CELLS = [FIRST, cell("second", first=FIRST)]
Members = list[tuple[tarfile.TarInfo, bytes]]


def commit(store: Store, one: Cell) -> None:
    with store.writing(one, {"seconds": 1.5}) as folder:
        (folder / "payload").write_bytes(one.title.encode() * 300)
        (folder / "sub").mkdir()
        (folder / "sub" / "empty").touch()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for one in CELLS:
        commit(store, one)
    return store


@pytest.fixture
def archive(store: Store, tmp_path: Path) -> Path:
    export_cells(store, store.cells(), tmp_path / "cells.tar")
    return tmp_path / "cells.tar"


def contents(store: Store) -> dict[str, bytes]:
    """All that the cells of a store hold."""
    return {
        str(path.relative_to(store.root)): path.read_bytes()
        for path in sorted((store.root / "cells").rglob("*"))
        if path.is_file() and path.name != "verified.json"
    }


def test_what_is_exported_is_what_is_imported(store: Store, archive: Path, tmp_path: Path) -> None:
    arrival = import_cells(archive, tmp_path / "other")
    other = Store(tmp_path / "other")
    assert (arrival.new, arrival.there, arrival.problems) == (2, 0, []) and arrival.size == 300 * 11
    assert contents(other) == contents(store) and examine(other.root) == []
    assert other.marker(FIRST.key) == store.marker(FIRST.key)
    again = import_cells(archive, tmp_path / "other")
    assert (again.new, again.there) == (0, 2)


def test_the_same_cells_are_the_same_bytes(store: Store, archive: Path, tmp_path: Path) -> None:
    for path in store.root.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    size = export_cells(store, reversed(store.cells()), tmp_path / "new" / "again.tar")
    assert (tmp_path / "new" / "again.tar").read_bytes() == archive.read_bytes() and size == archive.stat().st_size
    import_cells(archive, tmp_path / "other")
    export_cells(Store(tmp_path / "other"), store.cells(), tmp_path / "third.tar")
    assert (tmp_path / "third.tar").read_bytes() == archive.read_bytes()


def test_any_tar_program_reads_it(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}
    assert names == [CONTENTS, *(f"{k}/{n}" for k in sorted(c.key for c in CELLS) for n in (MARKER, *PAYLOAD))]


PAYLOAD = ("payload", "sub/empty")


def test_a_damaged_cell_is_not_exported(store: Store, archive: Path) -> None:
    before = archive.read_bytes()
    (store.folder(FIRST.key) / "payload").write_bytes(b"FIRST" * 300)
    with pytest.raises(EraseBenchError, match=f"cell {FIRST.key[:12]} is corrupt: payload.*; `erasebench doctor --fix"):
        export_cells(store, store.cells(), archive)
    assert archive.read_bytes() == before


def check_flipped_bytes(archive: Path, folder: Path) -> None:
    """Whichever byte it is: of what is imported nothing is another, and what is not is named."""
    whole, store = archive.read_bytes(), folder / "other"
    import_cells(archive, store)
    expected, seen = contents(Store(store)), set[str]()
    for where in range(0, len(whole), 97):
        archive.write_bytes(whole[:where] + bytes([whole[where] ^ 0x15]) + whole[where + 1 :])
        root = folder / str(where)
        try:
            arrival = import_cells(archive, root)
        except EraseBenchError as error:
            assert str(error).startswith(f"{archive} is no whole archive of cells: ") and not root.exists()
            seen.add("refused")
            continue
        found = contents(Store(root))
        assert found.items() <= expected.items(), "something else was brought"
        assert len(arrival.problems) + arrival.new == 2
        assert all("is corrupt: payload is not what was written: not brought" in line for line in arrival.problems)
        assert arrival.problems or found == expected
        seen.add("not brought" if arrival.problems else "no matter")
    assert seen == {"refused", "not brought", "no matter"}, "padding is no matter"


def test_no_flipped_byte_gets_into_a_store(archive: Path, tmp_path: Path) -> None:
    check_flipped_bytes(archive, tmp_path)


def test_the_procedure_finds_an_import_that_hashes_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def trusting(self: Store, key: str, marker: Marker) -> Iterator[Path]:
        with self._partial(key) as partial:
            yield partial
            self._commit(key, partial, marker, file_times(partial))

    monkeypatch.setattr(Store, "adopting", trusting)
    with pytest.raises(AssertionError, match="something else was brought"):
        check_flipped_bytes(archive, tmp_path)


def check_cut_short(archive: Path, folder: Path) -> None:
    whole = archive.read_bytes()
    with tarfile.open(archive) as tar:
        last = tar.getmembers()[-1]
        needed = last.offset_data + last.size
    for size in (0, 1, *range(512, needed, 512), needed - 1):
        archive.write_bytes(whole[:size])
        with pytest.raises(EraseBenchError, match="is no whole archive of cells: "):
            import_cells(archive, folder / "other")
    assert not (folder / "other").exists()
    archive.write_bytes(whole[:needed])
    assert import_cells(archive, folder / "other").new == 2


def test_no_archive_that_was_cut_short_passes_for_a_whole_one(archive: Path, tmp_path: Path) -> None:
    check_cut_short(archive, tmp_path)


def test_the_procedure_finds_an_import_that_takes_what_it_gets(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = archive_module._contents

    def lenient(path: Path, tar: tarfile.TarFile) -> Any:
        try:
            return contents(path, tar)
        except (EraseBenchError, tarfile.TarError):
            return {}

    monkeypatch.setattr(archive_module, "_contents", lenient)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_cut_short(archive, tmp_path)


def rewrite(archive: Path, change: Callable[[Members], object]) -> None:
    """Have an archive hold something else."""
    with tarfile.open(archive) as tar:
        members: Members = []
        for member in tar:
            stream = tar.extractfile(member)
            assert stream
            members.append((member, stream.read()))
    change(members)
    with tarfile.open(archive, "w") as tar:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data))


def add(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[[Members], object]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return lambda members: members.append((member, b"x" if kind == tarfile.REGTYPE else b""))


def rename(name: str) -> Callable[[Members], object]:
    """Have a marker, and the contents, vouch for a payload by another name."""

    def change(members: Members) -> None:
        key = members[1][0].name.partition("/")[0]
        marker = json.loads(members[1][1])
        marker["files"][name] = marker["files"].pop("payload")
        members[1] = members[1][0], json.dumps(marker).encode()
        members[2][0].name = f"{key}/{name}"
        about = json.loads(members[0][1])
        about["cells"][key] = hashlib.sha256(members[1][1]).hexdigest()
        members[0] = members[0][0], json.dumps(about).encode()

    return change


def contents_say(text: str) -> Callable[[Members], object]:
    return lambda members: members.__setitem__(0, (members[0][0], text.encode()))


KEY = CELLS[0].key


@pytest.mark.parametrize(
    "change",
    [
        *(
            add("../escaped"),
            add("/tmp/escaped"),
            add(f"{KEY}/../../escaped"),
            add(f"{KEY}/more"),
            add("other/payload"),
        ),
        *(add(f"{KEY}/link", tarfile.SYMTYPE, "/etc"), add(f"{KEY}/hard", tarfile.LNKTYPE, f"{KEY}/payload")),
        *(add(f"{KEY}/folder", tarfile.DIRTYPE), add(f"{KEY}/pipe", tarfile.FIFOTYPE), add(f"{KEY}/payload")),
        *(rename("../escaped"), rename("/tmp/escaped"), rename("a/../../escaped"), rename("."), rename(MARKER)),
        *(lambda members: members.pop(0), lambda members: members.pop(1), lambda members: members.pop(2)),
        *(contents_say(""), contents_say("[]"), contents_say("[" * 100_000), contents_say('{"format": 1}')),
        *(contents_say('{"format": 1, "cells": {"../x": ""}}'), contents_say('{"format": 1, "cells": [1]}')),
    ],
)
def test_what_no_archive_of_cells_holds_is_refused_before_anything_is_written(
    change: Callable[[Members], object], archive: Path, tmp_path: Path
) -> None:
    rewrite(archive, lambda members: None)
    import_cells(archive, tmp_path / "fine")
    rewrite(archive, change)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(EraseBenchError, match="is no whole archive of cells: "):
        import_cells(archive, tmp_path / "other")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["verified.json", "x.partial"])
def test_a_payload_by_the_name_of_something_else_is_not_brought(name: str, archive: Path, tmp_path: Path) -> None:
    rewrite(archive, rename(name))
    arrival = import_cells(archive, tmp_path / "other")
    assert arrival.new == 1 and len(arrival.problems) == 1
    assert len(Store(tmp_path / "other").cells()) == 1


def test_an_archive_of_a_newer_erasebench_is_named(archive: Path, tmp_path: Path) -> None:
    rewrite(archive, contents_say('{"format": 2, "cells": {}}'))
    with pytest.raises(EraseBenchError, match=r"is of format 2, known: 1; upgrade erasebench"):
        import_cells(archive, tmp_path / "other")


def test_a_cell_that_a_run_is_at_is_left_to_it(archive: Path, tmp_path: Path) -> None:
    leases = Store(tmp_path / "other").leases
    with leases.holding(FIRST.key):
        arrival = import_cells(archive, tmp_path / "other")
    assert arrival.new == 1
    assert arrival.problems == [f"cell {FIRST.key[:12]} is being computed by a run in {tmp_path}/other: left to it"]
    assert import_cells(archive, tmp_path / "other").new == 1
