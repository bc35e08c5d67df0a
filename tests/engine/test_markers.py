"""What vouches for a cell, and what is seen of its folder by it; damage of whole stores is in ``test_store.py``."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from erasebench.engine.cells import Cell
from erasebench.engine.markers import (
    MARKER,
    VERIFIED,
    CorruptCellError,
    Marker,
    check_payload,
    file_times,
    find_marker,
    identity_key,
    is_cell,
    is_verified,
    note_verified,
    parse_marker,
    read_payload,
)
from erasebench.files import PARTIAL

CELL = Cell("erase", {"method": "sd"}, {"base": Cell("erase", {"method": "none"})})
FILES = {"weights": b"numbers", "sub/more": b""}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def content(**changes: Any) -> dict[str, Any]:
    files = {name: [len(data), digest(data)] for name, data in FILES.items()}
    return {"identity": CELL.identity, "files": files, "cost": {"seconds": 1.5}, "kind": "k", "units": 4, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cell's, with its marker, as another program could have written it."""
    for name, data in FILES.items():
        path = tmp_path / "cell" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "cell" / MARKER).write_text(json.dumps(content()))
    return tmp_path / "cell"


def found(folder: Path) -> Marker:
    marker = find_marker(CELL.key, folder)
    assert isinstance(marker, Marker)
    return marker


def test_a_marker_says_whose_it_is_and_what_is_beside_it(folder: Path) -> None:
    marker = found(folder)
    assert identity_key(marker) == CELL.key and marker.reads == [CELL.reads["base"].key]
    assert marker.files == {name: (len(data), digest(data)) for name, data in FILES.items()}
    assert (marker.cost, marker.kind, marker.units) == ({"seconds": 1.5}, "k", 4)
    check_payload(CELL.key, folder, marker)


def test_what_is_seen_without_reading_the_payload(folder: Path) -> None:
    assert find_marker(CELL.key, folder.with_name("none")) == "is missing"
    assert find_marker("0" * 64, folder) == "is corrupt: its marker belongs to another cell"
    (folder / f"half{PARTIAL}").touch()
    assert isinstance(find_marker(CELL.key, folder), Marker), "half a file is none yet"
    (folder / "more").touch()
    assert find_marker(CELL.key, folder) == "is corrupt: its marker does not list more"
    (folder / "more").rename(folder / "sub" / "more")
    (folder / "weights").write_bytes(b"fewer")
    assert find_marker(CELL.key, folder) == "is corrupt: its marker does not fit its files"
    (folder / MARKER).unlink()
    assert find_marker(CELL.key, folder) == "is incomplete: it has no marker"


def test_bytes_are_what_a_marker_says_or_the_file_is_named(folder: Path) -> None:
    marker = found(folder)
    assert read_payload(folder, marker) is None and (folder / VERIFIED).exists()
    (folder / "weights").write_bytes(b"nambers")
    assert read_payload(folder, marker) == "is corrupt: weights is not what was written"
    with pytest.raises(CorruptCellError, match=f"cell {CELL.key[:12]} is corrupt: weights is not what was written"):
        check_payload(CELL.key, folder, marker)
    (folder / "weights").unlink()
    with pytest.raises(CorruptCellError, match="its marker does not fit its files"):
        check_payload(CELL.key, folder, marker)


def test_a_note_holds_as_long_as_no_file_was_written_to_since(folder: Path) -> None:
    marker = found(folder)
    assert not is_verified(folder, marker), "nobody has looked"
    for name in FILES:
        os.utime(folder / name, ns=(10**18, 10**18))
    times = file_times(folder)
    assert {name: times[name] for name in FILES} == dict.fromkeys(FILES, 10**18) and MARKER in times
    note_verified(folder, marker, {name: times[name] for name in FILES})
    assert is_verified(folder, marker)
    os.utime(folder / "weights", ns=(10**18 + 1, 10**18 + 1))
    assert not is_verified(folder, marker)
    os.utime(folder / "weights", ns=(10**18, 10**18))
    assert is_verified(folder, marker)
    assert not is_verified(folder, parse_marker(json.dumps(content(files={"weights": [7, "0" * 64]}))))
    os.utime(folder / VERIFIED, ns=(10**18, 10**18))
    assert not is_verified(folder, marker), "a file could have changed after the note in the same tick of the clock"


def test_where_nothing_can_be_noted_nothing_is(folder: Path) -> None:
    marker = found(folder)
    (folder / VERIFIED).mkdir()
    note_verified(folder, marker, dict.fromkeys(FILES, 0))
    assert not is_verified(folder, marker)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        *({"files": {name: [0, ""]}} for name in ("/a", "../a", "a/../b", "a//b", "./a", "")),
        *({"files": {"a": about}} for about in ([0], [0.0, ""], [True, ""], ["0", ""], [0, None])),
        {"cost": []},
        *({"cost": {name: value}} for name, value in (("seconds", None), ("images", "3"), ("done", True))),
        *({"cost": {"seconds": value}} for value in (-1, -0.5, 2**63, 10**400)),
        *({"identity": {"stage": stage, "reads": {}}} for stage in (None, 3)),
        *({"identity": {"stage": "erase", "reads": reads}} for reads in ({"a": "0" * 63}, ["x" * 64], [0])),
        *({"units": units} for units in (0, -1, 2.0, True, 2**63)),
        {"kind": None},
    ],
    ids=str,
)
def test_what_is_no_marker_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        parse_marker(json.dumps(content(**changes)))


def test_a_cell_is_where_its_key_says(tmp_path: Path) -> None:
    key = "ab" * 32
    assert is_cell(tmp_path / "ab" / key)
    for place in (f"ba/{key}", f"ab/{key}0", f"ab/{key[:-1]}", f"AB/{key.upper()}", "ab/folder"):
        assert not is_cell(tmp_path / place)


def test_a_marker_of_an_older_version_has_reads_without_names() -> None:
    marker = parse_marker(json.dumps(content(identity={"stage": "erase", "reads": ["a" * 64]})))
    assert marker.reads == ["a" * 64]
    less = {name: value for name, value in content().items() if name not in ("kind", "units")}
    assert (parse_marker(json.dumps(less)).kind, parse_marker(json.dumps(less)).units) == ("", 1)
