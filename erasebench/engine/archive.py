"""Cells as one file: an uncompressed tar archive, whose bytes depend on nothing but the cells.

It begins with ``cells.json``: a format number, and for each cell the SHA-256 of its marker.  Then come, cell by cell,
``<key>/done.json`` and the payload's files ``<key>/...``.  So each byte of a cell is vouched for, and none can be
missing unnoticed.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from erasebench.engine.markers import KEY, MARKER, Marker, identity_key, parse_marker
from erasebench.engine.opening import store_at
from erasebench.engine.store import Store
from erasebench.engine.upkeep import Arrival
from erasebench.errors import EraseBenchError
from erasebench.files import Place, cannot_write, durably

FORMAT = 1
CONTENTS = "cells.json"


def export_cells(store: Store, keys: Iterable[str], path: Path) -> int:
    """Write cells into an archive, and return how many bytes it has.

    Args:
        store: where they are.
        keys: of the cells, in whichever order.
        path: the archive's; one that is there is replaced when the new one is whole.

    Raises:
        EraseBenchError: a cell is damaged, or the archive cannot be written.
    """
    keys = sorted(keys)
    for key in keys:
        problem = store.verify(key)
        if problem:
            raise EraseBenchError(
                f"cell {key[:12]} {problem}; `erasebench doctor --fix --store {store.name}` removes it, and the run "
                "that needs it computes it again"
            )
    markers = {key: (store.read(key) / MARKER).read_bytes() for key in keys}
    hashes = {key: hashlib.sha256(marker).hexdigest() for key, marker in markers.items()}
    contents = json.dumps({"format": FORMAT, "cells": hashes}, indent=1).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with durably(path) as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
                tar.addfile(_member(CONTENTS, len(contents)), io.BytesIO(contents))
                for key, marker in markers.items():
                    tar.addfile(_member(f"{key}/{MARKER}", len(marker)), io.BytesIO(marker))
                    for name, (size, _) in sorted(parse_marker(marker.decode()).files.items()):
                        with open(store.folder(key) / name, "rb") as payload:
                            tar.addfile(_member(f"{key}/{name}", size), payload)
            return stream.tell()
    except OSError as error:
        raise cannot_write(f"the archive {path}", error) from error


def _member(name: str, size: int) -> tarfile.TarInfo:
    """A plain file of nobody and no time."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def import_cells(path: Path, place: Place) -> Arrival:
    """Bring the cells of an archive into a store; what arrives is compared with each cell's marker.

    Nothing is written before the whole archive was looked through, and nothing of it ever decides where a file goes
    but names that a marker lists.

    Args:
        path: the archive.
        place: the store's folder, or its URL; the store is made if it is not there.

    Raises:
        EraseBenchError: it is no archive of cells, or holds what no such archive does; the disk is full; or cells are
            being removed from the store.
    """
    arrival = Arrival()
    with _opened(path) as tar:
        cells = _contents(path, tar)
        store = store_at(place)
        with store.at_work():
            for key, cell in cells.items():

                def write(folder: Path, cell: _Cell = cell) -> None:
                    for name, member in cell.files.items():
                        (folder / name).parent.mkdir(parents=True, exist_ok=True)
                        payload = tar.extractfile(member)
                        assert payload
                        with open(folder / name, "wb") as stream:
                            shutil.copyfileobj(payload, stream)

                arrival.bring(store, key, cell.marker, write)
    return arrival


MAX_NAME_BYTES = 255
"""Bytes of a file's name that file systems take."""


@dataclass(frozen=True)
class _Cell:
    """A cell in an archive: its marker, and where its payload's files are."""

    marker: Marker
    files: Mapping[str, tarfile.TarInfo]


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    if not path.is_file():
        raise EraseBenchError(f"{path} is no file")
    try:
        with open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            yield tar
    except tarfile.TarError as error:
        raise _refused(path, str(error)) from error


def _refused(path: Path, why: str) -> EraseBenchError:
    return EraseBenchError(
        f"{path} is no whole archive of cells: {why}; write it anew with `erasebench store export`, or bring it again"
    )


def _contents(path: Path, tar: tarfile.TarFile) -> dict[str, _Cell]:
    """The cells in an archive.

    Raises:
        EraseBenchError: something is missing, too much, no plain file, or not what was written.
    """
    members: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        if not member.isreg() or member.issparse() or member.name in members:
            raise _refused(path, f"{member.name!r} is no plain file, or there twice")
        members[member.name] = member
    for name in members:
        parents = PurePosixPath(name).parents
        longest = max(map(len, name.encode().split(b"/")))
        if any(str(parent) in members for parent in parents) or longest > MAX_NAME_BYTES:
            raise _refused(path, f"{name[:80]!r} cannot be a file beside the others")
    try:
        about = json.loads(_read(tar, members.pop(CONTENTS)))
        written, hashes = about["format"], dict[str, str](about["cells"])
    except (KeyError, ValueError, TypeError, RecursionError):
        raise _refused(path, f"it has no {CONTENTS} that says what is in it") from None
    if written != FORMAT:
        raise EraseBenchError(f"{path} is of format {written!r}, known: {FORMAT}; upgrade erasebench")
    cells: dict[str, _Cell] = {}
    for key, digest in hashes.items():
        if not KEY.fullmatch(key):
            raise _refused(path, f"{key!r} is the key of no cell")
        try:
            text = _read(tar, members.pop(f"{key}/{MARKER}"))
            marker = parse_marker(text.decode())
            files = {name: members.pop(f"{key}/{name}") for name in marker.files}
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
            raise _refused(path, f"cell {key[:12]} is not there with all its files") from None
        sizes = {name: member.size for name, member in files.items()}
        fits = sizes == {name: size for name, (size, _) in marker.files.items()}
        if hashlib.sha256(text).hexdigest() != digest or identity_key(marker) != key or not fits:
            raise _refused(path, f"the marker of cell {key[:12]} is not what was written")
        cells[key] = _Cell(marker, files)
    if members:
        raise _refused(path, f"{next(iter(members))!r} is of no cell that it lists")
    return cells


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream
    return stream.read()
